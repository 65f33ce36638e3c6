"""Depth by step: how much gradient reaches each layer, and what each layer does to it.

Heatmap and bars stand on one axis of layers, so that a dark row and its bar are read together.
"""

from __future__ import annotations

import numpy as np

from gradwatch.display.figures import palette
from gradwatch.display.figures.names import axis_meta, layer_axis, plot_height
from gradwatch.display.figures.palette import Figure, Matrix, draw_backdrop, mark_gaps
from gradwatch.display.figures.rows import SHARES
from gradwatch.display.figures.series import Series
from gradwatch.wording.phrases import name_number

_COLOURS = (palette.ACTIVATION, palette.WEIGHT, palette.NORM, palette.OTHER)
_WORDS = ("activation", "weight", "normalisation", "other (pooling, dropout)")
_EXPLODES = 1.0  # log10: above ten times a full gradient the scale goes on into violet
_SMALLEST_REACH = 0.7  # log10: the gain axis shows at least 5 times up and down
_LARGEST_REACH = 12.0
_NOTHING_LEFT = -20.0  # log10: below, a gain is zero but for rounding
_MARGIN_TOP, _MARGIN_BOTTOM = 34, 46


def build_profile(series: Series, column: int = -1) -> Figure:
    """The heatmap and, at one column's step, the gain of each layer.

    ``layout.meta`` holds what the step slider needs: the steps, the names and all gains
    (int16, thousandths of log10, ``shares x rows x columns``).

    Args:
        series: with at least one row and one column.
        column: whose gains the bars show; the last by default.
    """
    plot = plot_height(len(series.names))
    logs = palette.log10(series.relative)
    used = [i for i in range(len(SHARES)) if np.isfinite(series.gains[i]).any()]
    reach = _reach(series.gains)
    layout = palette.frame(
        plot + _MARGIN_TOP + _MARGIN_BOTTOM,
        margin={"l": 8, "r": 12, "t": _MARGIN_TOP, "b": _MARGIN_BOTTOM},
        barmode="relative",
        bargap=0.18 if len(series.names) <= plot // 6 else 0,
        yaxis=layer_axis(series.names, plot),
        xaxis={"domain": [0, 0.6], **palette.step_axis(series.steps)},
        xaxis2=_gain_axis(reach, series.steps[column]),
        showlegend=True,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        shapes=[_line(series, column), *draw_backdrop(logs, series.steps)],
        meta={**_meta(series, used), "kind": "profile", **mark_gaps(logs, series.steps)},
    )
    bars = [_bar(series, share, column) for share in used]
    return {"data": [_heatmap(series, logs), *bars], "layout": layout}


def _heatmap(series: Series, logs: Matrix) -> Figure:
    finite = logs[np.isfinite(logs)]
    explodes = bool(finite.size and finite.max() > _EXPLODES)
    scale, low, high = palette.gradient_scale(explodes, series.thresholds)
    return {
        "type": "heatmap",
        "x": palette.encode(np.array(series.steps, dtype=np.int32)),
        "y": [palette.escape(name) for name in series.names],
        "z": palette.encode(logs),
        "zmin": low,
        "zmax": high,
        "colorscale": scale,
        "hoverongaps": False,
        "colorbar": _colorbar(low, high, series),
    }


def _colorbar(low: float, high: float, series: Series) -> Figure:
    """Ticks at full and at the limits of the rules, with words."""
    limits = series.thresholds
    least = max(float(np.log10(max(limits.profile, 1e-30))), low + 0.5)
    words = {0.0: "full", low: _say_gain(10**low), least: f"{_say_gain(10**least)}<br>limit"}
    if high > 0:
        most = min(float(np.log10(max(limits.exploding_growth, 10))), high - 0.5)
        words |= {most: f"{_say_gain(10**most)}<br>limit", high: _say_gain(10**high)}
    ticks = sorted(words)
    return {
        "x": 0.605,
        "xanchor": "left",
        "thickness": 12,
        "len": 1,
        "outlinewidth": 0,
        "ticks": "outside",
        "ticklen": 3,
        "tickvals": ticks,
        "ticktext": [words[tick] for tick in ticks],
    }


def _reach(gains: Matrix) -> float:
    """How far the gain axis goes, log10: the 99th percentile of what stacks up on one side.

    A layer that lets nothing through has a bar to the edge, and does not set the scale.
    """
    known = np.where(gains > _NOTHING_LEFT, gains, 0.0)
    up, down = known.clip(min=0).sum(axis=0), -known.clip(max=0).sum(axis=0)
    widest = float(np.percentile(np.maximum(up, down), 99)) if known.size else 0.0
    return min(max(widest * 1.1, _SMALLEST_REACH), _LARGEST_REACH)


def _gain_axis(reach: float, step: int) -> Figure:
    ticks = _gain_ticks(reach)
    return {
        "domain": [0.7, 1],
        "range": [-reach, reach],
        "title": {"text": f"gain at step {step:,}"},
        "tickvals": [float(np.log10(tick)) for tick in ticks],
        "ticktext": [_say_gain(tick) for tick in ticks],
        "tickangle": 0,
        "gridcolor": "rgba(128,138,148,0.25)",
        "zeroline": True,
        "zerolinewidth": 2,
        "zerolinecolor": palette.GREY,
    }


def _gain_ticks(reach: float) -> list[float]:
    if reach <= 1.2:
        ups = [2.0, 4.0] if reach < 1 else [3.0, 10.0]
    else:
        stride = max(1, round(reach / 2.5))
        ups = [10.0**decade for decade in range(stride, int(reach) + 1, stride)]
    return [*(1 / up for up in reversed(ups)), 1.0, *ups]


def _say_gain(gain: float) -> str:
    if gain == 1:
        return "1"
    times = gain if gain > 1 else 1 / gain
    return f"{'×' if gain > 1 else '÷'}{name_number(times)}"


def _bar(series: Series, share: int, column: int) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": _WORDS[share],
        "x": palette.encode(np.nan_to_num(series.gains[share, :, column], nan=0.0)),
        "y": [palette.escape(name) for name in series.names],
        "xaxis": "x2",
        "marker": {"color": _COLOURS[share], "line": {"width": 0}},
        "hovertemplate": "%{y}<br>" + _WORDS[share] + ": %{customdata}<extra></extra>",
        "customdata": [_say_bar(gain) for gain in series.gains[share, :, column].tolist()],
    }


def _say_bar(log: float) -> str:
    if log < _NOTHING_LEFT:
        return "nothing gets through"
    return f"{'÷' if log < 0 else '×'}{name_number(10 ** abs(log))}"


def _line(series: Series, column: int) -> Figure:
    """The step that the bars belong to; the page moves it."""
    step = series.steps[column]
    line = {"color": palette.GREY, "width": 2, "dash": "dot"}
    return {"type": "line", "yref": "paper", "x0": step, "x1": step, "y0": 0, "y1": 1, "line": line}


def _meta(series: Series, used: list[int]) -> Figure:
    return {
        **axis_meta(series.names),
        "steps": list(series.steps),
        "last": find_last(series.relative),
        "limits": {
            "profile": series.thresholds.profile,
            "growth": series.thresholds.exploding_growth,
        },
        "gains": palette.encode(palette.milli_log10(10.0 ** series.gains[used].astype(np.float64))),
    }


def find_last(values: Matrix) -> int:
    """The last column in which most layers have a finite value, at which the page opens.

    Args:
        values: ``(rows, columns)``, NaN or infinite where unknown.
    """
    counts = np.isfinite(values).sum(axis=0)
    whole = np.flatnonzero(2 * counts > counts.max(initial=0))
    return int(whole[-1]) if whole.size else max(values.shape[1] - 1, 0)
