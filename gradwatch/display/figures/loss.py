"""The loss and the learning rate over the steps, on the axis of steps that the heatmaps have."""

from __future__ import annotations

import numpy as np

from gradwatch.display.figures import palette
from gradwatch.display.figures.card import Card
from gradwatch.display.figures.palette import Figure, Matrix
from gradwatch.display.figures.series import Series

_HEIGHT = 300
_LOGARITHMIC_FROM = 30.0  # largest over smallest; a smaller range reads better on a linear axis
_RATE_TOP, _LOSS_BOTTOM = 0.24, 0.36  # of the plot's height


def build_loss(series: Series) -> Figure | None:
    """Loss above, learning rate below; ``None`` when neither is known.

    The loss is the value that backward was called on, before clipping and without a loss scale.

    Args:
        series: whose ``loss`` and ``learning_rate`` are ``(columns,)``.
    """
    has_loss = bool(np.isfinite(series.loss).any())
    has_rate = bool(np.isfinite(series.learning_rate).any())
    if not (has_loss or has_rate):
        return None
    steps = palette.encode(np.array(series.steps, dtype=np.int32))
    layout = palette.frame(
        _HEIGHT,
        margin={"l": 72, "r": 12, "t": 10, "b": 46},
        xaxis={**palette.step_axis(series.steps), "anchor": "y2" if has_rate else "y"},
        yaxis=_axis("loss", series.loss, [_LOSS_BOTTOM if has_rate else 0, 1]),
        annotations=[] if has_loss else [_say_unknown()],
        meta={"kind": "loss", "steps": list(series.steps)},
    )
    traces = [_line("loss", steps, series.loss, palette.WEIGHT, "y")] if has_loss else []
    if has_rate:
        layout["yaxis2"] = _axis("rate", series.learning_rate, [0, _RATE_TOP])
        rate = _line("learning rate", steps, series.learning_rate, palette.OTHER, "y2")
        traces.append({**rate, "line": {**rate["line"], "shape": "hv"}})
    return {"data": traces, "layout": layout}


def _axis(title: str, values: Matrix, domain: list[float]) -> Figure:
    known = values[np.isfinite(values)]
    positive = known[known > 0]
    spread = float(positive.max() / positive.min()) if positive.size else 1.0
    is_log = known.size == positive.size and spread > _LOGARITHMIC_FROM
    shape: Figure = {"type": "log", "dtick": 1} if is_log else {"rangemode": "tozero"}
    return {
        "title": {"text": title, "standoff": 6},
        "domain": domain,
        "exponentformat": "power" if title == "loss" else "e",
        "gridcolor": "rgba(128,138,148,0.25)",
        "zeroline": False,
        "nticks": 5 if domain[1] == 1 else 3,
        **shape,
    }


def _line(name: str, steps: Figure, values: Matrix, colour: str, axis: str) -> Figure:
    """A gap where the value is no number; a dot where it stands alone."""
    known = int(np.isfinite(values).sum())
    return {
        "type": "scatter",
        "mode": "lines+markers" if known < 30 else "lines",
        "name": name,
        "x": steps,
        "y": palette.encode(values.astype(np.float32)),
        "xaxis": "x",
        "yaxis": axis,
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
        "hovertemplate": f"step %{{x:,d}}<br>{name} %{{y:.4g}}<extra></extra>",
    }


def _say_unknown() -> Figure:
    return {"text": "The loss was not recorded:<br>backward was not called on a single number.",
            "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.7, "showarrow": False}  # fmt: skip


CARDS = (
    Card(
        "loss",
        "Loss and learning rate",
        "the value that backward was called on, at each sampled step; below it the largest "
        "learning rate of the optimizer's groups",
        build_loss,
        lambda series: (
            "Neither loss nor learning rate is in this log: backward was not called on a single "
            "number and no optimizer was watched, or the log is from before they were recorded."
        ),
        is_first=True,
    ),
)
