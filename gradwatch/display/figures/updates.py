"""Update ratio by layer: how far a step moves each weight, against the healthy band."""

from __future__ import annotations

import numpy as np

from gradwatch.display.figures import palette
from gradwatch.display.figures.card import Card
from gradwatch.display.figures.names import axis_meta, layer_axis, plot_height
from gradwatch.display.figures.palette import Figure, Matrix
from gradwatch.display.figures.series import Series

HEALTHY_BAND = (1e-4, 1e-2)
"""||dw|| / ||w|| per step. The usual rule of thumb is about 1e-3 (Karpathy's notes for Stanford
CS231n, "Ratio of weights:updates"); a decade to each side covers schedules and warm-up."""

_MARGIN_TOP, _MARGIN_BOTTOM = 30, 46
_FLOOR = 1e-9  # smaller ratios are drawn at the left edge


def build_updates(series: Series, column: int = -1) -> Figure | None:
    """A dot per layer at one step, a line over the middle 80 % of steps; ``None`` if unknown."""
    finite = np.where(np.isfinite(series.updates), series.updates, np.nan)
    measured = np.flatnonzero(np.isfinite(finite).any(axis=1))
    if not measured.size:
        return None
    names = [series.names[i] for i in measured]
    logs = palette.log10(np.maximum(finite[measured], _FLOOR))
    plot = plot_height(len(names))
    layout = palette.frame(
        plot + _MARGIN_TOP + _MARGIN_BOTTOM,
        margin={"l": 8, "r": 16, "t": _MARGIN_TOP, "b": _MARGIN_BOTTOM},
        yaxis=layer_axis(names, plot),
        xaxis=_axis(logs),
        shapes=[_band()],
        annotations=[_band_label()],
        meta={
            "kind": "updates",
            **axis_meta(names),
            "steps": list(series.steps),
            "ratios": palette.encode(palette.milli_log10(10.0 ** logs.astype(np.float64))),
        },
    )
    return {"data": [_spread(names, logs), _dots(names, logs, column)], "layout": layout}


def _axis(logs: Matrix) -> Figure:
    known = logs[np.isfinite(logs)]
    low = min(np.log10(HEALTHY_BAND[0]), float(known.min())) - 0.5
    high = max(np.log10(HEALTHY_BAND[1]), float(known.max())) + 0.5
    stride = max(1, round((high - low) / 7))
    ticks = list(range(int(np.ceil(low)), int(np.floor(high)) + 1, stride))
    return {
        "range": [low, high],
        "title": {"text": "update / weight per step (log scale)"},
        "tickvals": ticks,
        "ticktext": [_say_tick(tick) for tick in ticks],
        "gridcolor": "rgba(128,138,148,0.25)",
        "zeroline": False,
    }


def _say_tick(tick: int) -> str:
    power = "1" if tick == 0 else f"10<sup>{tick}</sup>"
    return f"≤ {power}" if tick == round(np.log10(_FLOOR)) else power


def _band() -> Figure:
    low, high = (float(np.log10(edge)) for edge in HEALTHY_BAND)
    return {"type": "rect", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1,
            "fillcolor": palette.BAND, "line": {"width": 0}, "layer": "below"}  # fmt: skip


def _band_label() -> Figure:
    middle = float(np.mean(np.log10(HEALTHY_BAND)))
    return {"text": "healthy", "x": middle, "y": 1, "yref": "paper", "yanchor": "bottom",
            "showarrow": False, "font": {"color": palette.NORM}}  # fmt: skip


def _spread(names: list[str], logs: Matrix) -> Figure:
    """One trace for all lines; a gap (null) ends each."""
    low, high = np.nanpercentile(logs, [10, 90], axis=1)
    xs: list[float | None] = []
    ys: list[str | None] = []
    for name, left, right in zip(names, low.tolist(), high.tolist(), strict=True):
        xs += [round(left, 2), round(right, 2), None]
        ys += [palette.escape(name)] * 2 + [None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": xs,
        "y": ys,
        "line": {"color": palette.GREY, "width": 2 if len(names) < 100 else 1},
        "hoverinfo": "skip",
    }


def _dots(names: list[str], logs: Matrix, column: int) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": palette.encode(np.ascontiguousarray(logs[:, column])),
        "y": [palette.escape(name) for name in names],
        "marker": {"color": palette.WEIGHT, "size": 9 if len(names) < 60 else 4,
                   "line": {"width": int(len(names) < 60), "color": "#ffffff"}},
        "hovertemplate": "%{y}<br>update / weight: 10<sup>%{x:.1f}</sup><extra></extra>",
    }  # fmt: skip


CARDS = (
    Card(
        "updates",
        "Update ratio",
        "how far a step moves each weight, relative to its size: dot at the chosen step, line over "
        "the middle 80 % of all; left of the green band a layer hardly learns",
        build_updates,
        lambda series: "No updates of weights were recorded in this run.",
    ),
)
