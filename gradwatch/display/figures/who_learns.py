"""Who learns: each layer's share of the loss change that a step makes, by layer and step."""

from __future__ import annotations

import math

import numpy as np

from gradwatch.display.figures import palette
from gradwatch.display.figures.card import Card
from gradwatch.display.figures.names import axis_meta, layer_axis, plot_height
from gradwatch.display.figures.palette import Figure, Matrix
from gradwatch.display.figures.series import Series
from gradwatch.wording.phrases import name_number

_MARGIN_TOP, _MARGIN_BOTTOM = 10, 46


def build_who_learns(series: Series) -> Figure | None:
    """log10 of the shares from 1e-8 to 1; ``None`` when no loss change was recorded.

    A smaller share is drawn as 1e-8. A gap: the layer has no weight that
    an optimizer holds, or got no gradient or no step.

    Args:
        series: whose ``learning`` is ``(rows, columns)``, shares from 0 to 1.
    """
    rows = np.flatnonzero(series.has_weight)
    names, shares = [series.names[row] for row in rows], series.learning[rows]
    if not np.isfinite(shares).any():
        return None
    plot = plot_height(len(names))
    layout = palette.frame(
        plot + _MARGIN_TOP + _MARGIN_BOTTOM,
        margin={"l": 8, "r": 12, "t": _MARGIN_TOP, "b": _MARGIN_BOTTOM},
        yaxis=layer_axis(names, plot),
        xaxis=palette.step_axis(series.steps),
        shapes=palette.draw_backdrop(shares, series.steps),
        meta={
            "kind": "who_learns",
            **axis_meta(names),
            "steps": list(series.steps),
            **palette.mark_gaps(shares, series.steps),
        },
    )
    return {"data": [_draw_heatmap(series, names, shares)], "layout": layout}


def _draw_heatmap(series: Series, names: list[str], shares: Matrix) -> Figure:
    low, high = -palette.FULL_DECADES, 0.0
    limit = math.log10(min(max(series.thresholds.loss_share, 10 ** (low + 1)), 1e-3))
    decades = np.clip(palette.log10(shares), low, high)
    return {
        "type": "heatmap",
        "x": palette.encode(np.array(series.steps, dtype=np.int32)),
        "y": [palette.escape(name) for name in names],
        "z": palette.encode(decades),
        "zmin": low,
        "zmax": high,
        "colorscale": palette.fade_below(series.thresholds.loss_share),
        "hoverongaps": False,
        "colorbar": {
            "thickness": 12,
            "len": 1,
            "outlinewidth": 0,
            "tickvals": [low, limit, -2, 0],
            "ticktext": [
                "≤ 1 in<br>100 million",
                f"1 in<br>{name_number(10**-limit)}",
                "1 %",
                "all",
            ],
        },
    }


def _explain_empty(series: Series) -> str:
    return (
        "No step with a loss change was recorded: nothing has moved, or no optimizer was watched, "
        "or the log is from before loss changes were recorded."
    )


CARDS = (
    Card(
        "who_learns",
        "Who learns",
        "each layer's share of the loss change that a step makes (gradient times update); blue: it "
        "has a part in what is learned; yellow to dark red: below the limit, next to nothing; "
        "grey: frozen, or no gradient or step",
        build_who_learns,
        _explain_empty,
        is_first=True,
    ),
)
