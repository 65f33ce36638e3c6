"""Saturated units and dead units by layer and step."""

from __future__ import annotations

import numpy as np

from gradwatch.display.figures import palette
from gradwatch.display.figures.card import Card
from gradwatch.display.figures.names import axis_meta, layer_axis, plot_height
from gradwatch.display.figures.palette import Figure, Matrix
from gradwatch.display.figures.series import Series

WORTH_DRAWING = 0.05
"""A picture in which no layer ever reaches this share would be empty, and looks broken."""

_WORTH_SAYING = 0.001  # a smaller share would read as 0.0 %
_HOVER, _END = "%{y}<br>step %{x:.0f}<br>%{z:.1%} ", "<extra></extra>"
_MARGIN_TOP, _MARGIN_BOTTOM = 10, 46


def build_saturated(series: Series) -> Figure | None:
    """Share of elements with a derivative near zero; ``None`` when there are none.

    Args:
        series: whose ``saturated`` is ``(activations, columns)``.
    """
    return _build(series, series.saturated, "saturated")


def build_dead(series: Series) -> Figure | None:
    """Share of units that never fired over the window; ``None`` when there are none.

    Zeros as such are no disease: half of a healthy ReLU's outputs are zero.

    Args:
        series: whose ``dead`` is ``(activations, columns)``.
    """
    return _build(series, series.dead, "dead")


def largest_share(values: Matrix) -> float | None:
    """The largest share anywhere; ``None`` when no layer has units of this kind.

    Args:
        values: shares from 0 to 1 of any shape, NaN where unknown.
    """
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else None


def _build(series: Series, values: Matrix, word: str) -> Figure | None:
    largest = largest_share(values)
    if largest is None or largest < WORTH_DRAWING:
        return None
    measured = np.flatnonzero(np.isfinite(values).any(axis=1))
    names = [series.activations[i] for i in measured]
    plot = plot_height(len(names))
    limit = getattr(series.thresholds, f"{word}_fraction")
    layout = palette.frame(
        plot + _MARGIN_TOP + _MARGIN_BOTTOM,
        margin={"l": 8, "r": 12, "t": _MARGIN_TOP, "b": _MARGIN_BOTTOM},
        yaxis=layer_axis(names, plot),
        xaxis=palette.step_axis(series.steps),
        meta={"kind": word, **axis_meta(names), "steps": list(series.steps),
              "dark_scale": palette.share_scale(limit, dark=True), "limit": limit},
    )  # fmt: skip
    heatmap = _heatmap(series, names, values[measured], limit)
    return {"data": [{**heatmap, "hovertemplate": _HOVER + word + _END}], "layout": layout}


def _heatmap(series: Series, names: list[str], values: Matrix, limit: float) -> Figure:
    return {
        "type": "heatmap",
        "x": palette.encode(np.array(series.steps, dtype=np.int32)),
        "y": [palette.escape(name) for name in names],
        "z": palette.encode(np.round(values, 3)),
        "zmin": 0,
        "zmax": 1,
        "colorscale": palette.share_scale(limit),
        "hoverongaps": False,
        "colorbar": {
            "thickness": 12,
            "len": 1,
            "outlinewidth": 0,
            "tickvals": [0, limit, 1],
            "ticktext": ["0 %", f"{100 * limit:.0f} %<br>limit", "100 %"],
        },
    }


def _explain_empty(values: Matrix, family: str) -> str:
    largest = largest_share(values)
    if largest is None:
        return f"None: no activation {family} was measured."
    if largest < _WORTH_SAYING:
        return "None, in any layer at any step."
    return f"Hardly any: at most {100 * largest:.1f} % in any layer at any step."


CARDS = (
    Card(
        "saturated",
        "Saturated units",
        "share of units that sit where the slope of the activation is near zero; grey below the "
        "share from which it can be a finding, orange above it",
        build_saturated,
        lambda series: _explain_empty(series.saturated, "that saturates"),
    ),
    Card(
        "dead",
        "Dead units",
        "share of units that never fired lately; grey below the share from which it can be a "
        "finding, orange above it; zeros as such are normal after a ReLU",
        build_dead,
        lambda series: _explain_empty(series.dead, "of the ReLU family"),
    ),
)
