"""Update ratio by layer: how far a step moves each weight, and from where on it stands still."""

from __future__ import annotations

import math

import numpy as np

from gradwatch.display.figures import palette
from gradwatch.display.figures.card import Card
from gradwatch.display.figures.hover import say_share
from gradwatch.display.figures.names import axis_meta, layer_axis, plot_height
from gradwatch.display.figures.palette import Figure, Matrix
from gradwatch.display.figures.series import Series

_MARGIN_TOP, _MARGIN_BOTTOM = 30, 46
_LABEL_SHARE = 0.25  # of the axis that the zone's label takes
_FLOOR = 1e-9  # smaller ratios are drawn at the left edge


def build_updates(series: Series, column: int = -1) -> Figure | None:
    """A dot per layer at one step, a line over the middle 80 % of steps; ``None`` if unknown.

    Args:
        series: whose ``updates`` is ``(rows, columns)``.
        column: whose step the dots belong to; the last by default.
    """
    finite = np.where(np.isfinite(series.updates), series.updates, np.nan)
    measured = np.flatnonzero(np.isfinite(finite).any(axis=1))
    if not measured.size:
        return None
    names = [series.names[i] for i in measured]
    logs = palette.log10(np.maximum(finite[measured], _FLOOR))
    plot = plot_height(len(names))
    limit = float(np.log10(max(series.thresholds.update_ratio, _FLOOR)))
    axis = _axis(logs, limit)
    layout = palette.frame(
        plot + _MARGIN_TOP + _MARGIN_BOTTOM,
        margin={"l": 8, "r": 16, "t": _MARGIN_TOP, "b": _MARGIN_BOTTOM},
        yaxis=layer_axis(names, plot),
        xaxis=axis,
        shapes=[_zone(limit)],
        annotations=[_zone_label(limit, axis)],
        meta={
            "kind": "updates",
            **axis_meta(names),
            "steps": list(series.steps),
            "ratios": palette.encode(palette.milli_log10(10.0 ** logs.astype(np.float64))),
        },
    )
    return {"data": [_spread(names, logs), _dots(names, logs, column)], "layout": layout}


def _axis(logs: Matrix, limit: float) -> Figure:
    known = logs[np.isfinite(logs)]
    low = min(limit - 0.5, float(known.min())) - 0.5
    high = max(limit + 1, float(known.max())) + 0.5
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


def _zone(limit: float) -> Figure:
    """From the left edge to the rule's own limit."""
    return {"type": "rect", "yref": "paper", "x0": -100, "x1": limit, "y0": 0, "y1": 1,
            "fillcolor": palette.STILL, "line": {"width": 0}, "layer": "below"}  # fmt: skip


def _zone_label(limit: float, axis: Figure) -> Figure:
    """Left of the limit; within a zone too narrow for it, it begins at the left edge."""
    low, high = axis["range"]
    is_narrow = limit - low < _LABEL_SHARE * (high - low)
    place = (
        {"x": 0, "xref": "paper", "xanchor": "left"}
        if is_narrow
        else {"x": limit, "xanchor": "right"}
    )
    return {"text": "practically still" if is_narrow else "◄ practically still", **place, "y": 1,
            "yref": "paper", "yanchor": "bottom", "showarrow": False}  # fmt: skip


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


def _say_move(log: float) -> str:
    return f"a step moves it by {say_share(10.0**log)} of its size" if math.isfinite(log) else ""


def _dots(names: list[str], logs: Matrix, column: int) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": palette.encode(np.ascontiguousarray(logs[:, column])),
        "y": [palette.escape(name) for name in names],
        "marker": {"color": palette.WEIGHT, "size": 9 if len(names) < 60 else 4,
                   "line": {"width": int(len(names) < 60), "color": "#ffffff"}},
        "customdata": [_say_move(log) for log in logs[:, column].tolist()],
        "hovertemplate": "%{y}<br>%{customdata}<extra></extra>",
    }  # fmt: skip


CARDS = (
    Card(
        "updates",
        "Update ratio",
        "how far a step moves each weight, relative to its size: dot at the chosen step, line over "
        "the middle 80 % of all; in the shaded zone a weight practically stands still: harmless "
        "once all has been learned, a finding where it was never moved",
        build_updates,
        lambda series: "No updates of weights were recorded in this run.",
    ),
)
