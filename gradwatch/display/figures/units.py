"""Where the units sit: a run's own pre-activations over the activation and its derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.display.figures import palette
from gradwatch.display.figures.card import Card
from gradwatch.display.figures.palette import Figure
from gradwatch.display.figures.series import Series, thin
from gradwatch.records import HISTOGRAM_EDGES
from gradwatch.schema.activations import SATURATION_SHARE, find_activation
from gradwatch.schema.curves import Curve

EDGES: npt.NDArray[np.float64] = np.array(HISTOGRAM_EDGES)
"""Edges of the bins of a record's histograms, in units of the pre-activation z."""

MAX_ACTIVATIONS = 200  # the page's list; each costs a few kilobytes
MAX_DRAWN_SAMPLES = 12  # sampled steps shown per activation

_HEIGHT = 320
_REACHES = (4.0, 6.0)  # of z to each side, before all that was counted is shown
_LEFT_OUT = 0.001  # share of units that may lie outside of what is shown
TICK_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # distances of the ticks that are chosen from
_MOST_TICKS, _HEADROOM, _LEAST_TOP = 5, 1.06, 0.02
_TALLEST_PHI = 2.2  # an unbounded phi runs out of the picture, or phi' = 1 would lie at the bottom
_POINTS = 241


def build_units(series: Series, activation: str | None = None) -> Figure | None:
    """The distribution of one activation's inputs over phi and phi'; ``None`` without histograms.

    ``layout.meta.units`` holds all activations and sampled steps, so that the page can switch.

    Args:
        series: of one run; the histogram of its latest step is drawn.
        activation: key of the one to draw first; the first one with histograms when unknown.
    """
    known = [name for name in series.activations if series.histograms.get(name)][:MAX_ACTIVATIONS]
    if not known:
        return None
    chosen = activation if activation in known else known[0]
    kind = series.types[series.activations.index(chosen)]
    step, counts = max(series.histograms[chosen].items(), key=lambda sample: sample[0])
    curves = curves_of(kind)
    views = {name: _view(series, name) for name in known}
    view = views[chosen]
    layout = palette.frame(
        _HEIGHT,
        margin={"l": 52, "r": 52, "t": 34, "b": 46},
        xaxis={"title": {"text": "input of the activation (z)"}, "zeroline": False,
               "range": view["z"], "showgrid": False},
        yaxis={"title": {"text": "share of units"}, "tickformat": ".0%", "showgrid": False,
               "zeroline": False, **_share_axis(shares_of(counts), view["zero"])},
        yaxis2={"title": {"text": "φ, φ′"}, "overlaying": "y", "side": "right",
                "tickmode": "auto", "nticks": 6, "range": view["phi"],
                "showgrid": False, "zeroline": True, "zerolinecolor": "rgba(128,138,148,0.35)"},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        meta={"kind": "units", "names": known, "chosen": chosen, "step": step,
              "units": _all_units(series, known), "curves": _all_curves(series, known),
              "views": views, "tick_shares": list(TICK_SHARES), "curve_z": _rounded(_grid()),
              "z": [round(value, 4) for value in _middles().tolist()]},
    )  # fmt: skip
    return {"data": [_bars(counts), *_curve_traces(curves)], "layout": layout}


def _middles() -> npt.NDArray[np.float64]:
    middles: npt.NDArray[np.float64] = (EDGES[1:] + EDGES[:-1]) / 2
    return middles


def _view(series: Series, name: str) -> dict[str, Any]:
    """How much of the axes to show: where the units are, and phi' at a legible height.

    ``zero`` is the height of the line where phi and the shares are 0, as a share of the plot.
    """
    row = find_activation(series.types[series.activations.index(name)])
    curve = None if row is None else row.curve
    reach = _reach(list(series.histograms[name].values()))
    if curve is None:
        return {"z": [-reach, reach], "phi": [0.0, 1.0], "zero": 0.0}
    z = np.linspace(-reach, reach, _POINTS)
    drawn = np.concatenate([curve(z), slope(curve, z), [0.0]])
    low, high = 1.05 * np.clip([drawn.min(), drawn.max()], -_TALLEST_PHI, _TALLEST_PHI)
    return {
        "z": [-reach, reach],
        "phi": [round(float(low), 3), round(float(high), 3)],
        "zero": round(float(-low / (high - low)), 4),
    }


def _share_axis(shares: npt.NDArray[np.float64], zero: float) -> dict[str, Any]:
    """Range and ticks of the shares, whose 0 lies at the height of phi's."""
    top = _HEADROOM * max(float(shares.max()), _LEAST_TOP)
    stride = next((share for share in TICK_SHARES if top / share <= _MOST_TICKS), TICK_SHARES[-1])
    ticks = [round(stride * at, 3) for at in range(int(top / stride) + 1)]
    return {"range": [-zero / (1 - zero) * top, top], "tickvals": ticks}


def _reach(samples: Sequence[npt.NDArray[np.float64]]) -> float:
    """The narrowest range with nearly all units of all samples in it."""
    shares = np.stack([shares_of(counts) for counts in samples])
    for reach in _REACHES:
        if (shares[:, np.abs(_middles()) > reach].sum(axis=1) <= _LEFT_OUT).all():
            return reach
    return float(EDGES[-1])


def _grid() -> npt.NDArray[np.float64]:
    return np.linspace(EDGES[0], EDGES[-1], _POINTS)


def shares_of(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Counts as shares of all; what lies beyond the outer edges counts for the outer bins.

    Args:
        counts: ``(bins,)``; NaN counts as 0.

    Returns:
        ``(bins,)``, adding up to 1; zeros where nothing was counted.
    """
    counts = np.nan_to_num(np.asarray(counts, dtype=np.float64))
    total = counts.sum()
    shares: npt.NDArray[np.float64] = counts / total if total > 0 else counts
    return np.round(shares, 5)


def _bars(counts: npt.NDArray[np.float64]) -> Figure:
    return {
        "type": "bar",
        "name": "this run's units",
        "x": palette.encode(_middles().astype(np.float32)),
        "y": palette.encode(shares_of(counts).astype(np.float32)),
        "width": palette.encode(np.diff(EDGES).astype(np.float32)),
        "marker": {"color": palette.WEIGHT, "opacity": 0.55, "line": {"width": 0}},
        "hovertemplate": "%{y:.1%} of the units near z = %{x:.1f}<extra></extra>",
    }


def curves_of(layer_type: str) -> dict[str, Any]:
    """phi and phi' over the shown range, and where units are saturated; empty when unknown.

    Args:
        layer_type: of an activation, such as ``"Sigmoid"``.
    """
    row = find_activation(layer_type)
    if row is None or row.curve is None:
        return {}
    z = _grid()
    values, slopes = row.curve(z), slope(row.curve, z)
    steepest = np.abs(slopes).max()
    return {
        "phi": _rounded(values),
        "slope": _rounded(slopes),
        "rectifies": row.rectifies,
        "steepest": round(float(steepest), 2),
        "saturated": [bool(is_flat) for is_flat in np.abs(slopes) < SATURATION_SHARE * steepest],
    }


def slope(curve: Curve, z: npt.NDArray[np.float64], width: float = 1e-4) -> npt.NDArray[np.float64]:
    """phi' by central differences, exact enough to draw.

    Args:
        curve: phi, vectorised.
        z: of any shape.
        width: half the distance of the two points.
    """
    slopes: npt.NDArray[np.float64] = (curve(z + width) - curve(z - width)) / (2 * width)
    return slopes


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _curve_traces(curves: dict[str, Any]) -> list[Figure]:
    z = _rounded(_grid())
    looks = (("phi", "φ(z)", palette.GREY, "solid"), ("slope", "φ′(z)", palette.ACTIVATION, "dash"))
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": label,
            "x": z if curves else [],
            "y": curves.get(key, []),
            "yaxis": "y2",
            "line": {"color": colour, "width": 2, "dash": dash},
            "hovertemplate": label + " = %{y:.3f}<extra></extra>",
        }
        for key, label, colour, dash in looks
    ]


def _all_units(series: Series, known: list[str]) -> dict[str, list[list[Any]]]:
    return {name: _samples(series.histograms[name]) for name in known}


def _samples(by_step: dict[int, npt.NDArray[np.float64]]) -> list[list[Any]]:
    steps = sorted(by_step)
    return [
        [step, _rounded(shares_of(by_step[step]))]
        for step in (steps[i] for i in thin(steps, MAX_DRAWN_SAMPLES))
    ]


def _all_curves(series: Series, known: list[str]) -> dict[str, Any]:
    """Per activation its type, and per type its curves once."""
    kinds = {name: series.types[series.activations.index(name)] for name in known}
    return {"types": kinds, "by_type": {kind: curves_of(kind) for kind in set(kinds.values())}}


CARDS = (
    Card(
        "units",
        "Where the units sit",
        "this run's inputs of an activation over its curve φ and derivative φ′",
        build_units,
        lambda series: "No histograms of activations were recorded in this run.",
    ),
)
