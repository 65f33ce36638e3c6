"""Colours and number formats of the pictures; safe for the common kinds of colour blindness.

Red to yellow to blue and on to violet keep apart for deuteranopes and protanopes (the ends differ
in lightness and in blueness), and no picture relies on colour alone: every value is in the hover
text, the layer table and the words of the banner. Where a colour changes its meaning, the
thresholds in force say.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.thresholds import Thresholds

Figure = dict[str, Any]
Matrix = npt.NDArray[np.float32]

VANISHED = "#67001f"
FULL = "#2f7fb8"
_JUST_ENOUGH = "#d3e5f0"  # at the limit, on the side where no rule sees harm
_TOO_LITTLE = ((1.0, "#fbe3a0"), (0.67, "#f08a4b"), (0.33, "#c0352b"), (0.0, VANISHED))
_MUCH = "#b9c2e6"
_TOO_MUCH = ((0.0, "#9b86c9"), (0.4, "#6a51a3"), (1.0, "#3f007d"))

# Bars, dots and lines: no colour of the scales, so that blue, orange, red and violet mean one thing
# on the whole page: enough, too little, next to nothing, too much.
ACTIVATION = "#0f8b8d"
WEIGHT = "#5b6873"
NORM = "#b5739d"
OTHER = "#a9b1b8"
STILL = "rgba(240, 138, 75, 0.20)"  # where a weight practically stands still
LIMIT = "#c0352b"
_SHARE_BELOW = ("rgba(91, 104, 115, 0)", "rgba(91, 104, 115, 0.55)")
_SHARE_ABOVE = ("#f08a4b", "#7a2500")
_SHARE_BELOW_DARK = ("rgba(190, 200, 210, 0)", "rgba(190, 200, 210, 0.5)")
_SHARE_ABOVE_DARK = ("#f5924d", "#ffe3bf")

FULL_DECADES = 8.0  # the heatmap shows eight decades below a full gradient
GAP = "rgba(128, 138, 148, 0.4)"  # where nothing was measured, or what is no number
_FEW_STEPS = 7  # each gets its tick; left alone, an axis of one step counts in tenths
GREY = "#737c86"  # lines and text that must be legible on white and on dark grey

Scale = list[list[Any]]
ColourRange = tuple[Scale, float, float]


def gradient_scale(explodes: bool, thresholds: Thresholds | None = None) -> ColourRange:
    """Colour scale, lowest and highest log10 value of the relative gradient.

    Blue ends where the rule of vanishing gradients begins to look (``profile``), violet begins
    where that of exploding ones does (``exploding_growth``).

    Args:
        explodes: goes on above a full gradient, up to 10^8.
        thresholds: in force; the defaults when ``None``.
    """
    limits = thresholds or Thresholds()
    fading = fade_below(limits.profile)
    if not explodes:
        return fading, -FULL_DECADES, 0.0
    grown = 0.5 + min(math.log10(max(limits.exploding_growth, 10.0)) / 16, 0.45)
    low = [[float(at) / 2, colour] for at, colour in fading]
    high = [[grown + (1 - grown) * at, colour] for at, colour in _TOO_MUCH]
    return [*low, [grown, _MUCH], *high], -FULL_DECADES, FULL_DECADES


def fade_below(limit: float) -> Scale:
    """From 10^-8 to 1: shades of blue down to the limit, of yellow to dark red below it.

    Args:
        limit: a share, such as ``Thresholds.profile``.
    """
    edge = 1 + math.log10(min(max(limit, 10 ** (0.5 - FULL_DECADES)), 0.5)) / FULL_DECADES
    below = [[edge * at, colour] for at, colour in reversed(_TOO_LITTLE)]
    return [*below, [edge, _JUST_ENOUGH], [1.0, FULL]]


def share_scale(limit: float, dark: bool = False) -> Scale:
    """From 0 to 1: grey up to the share from which it counts as a finding, orange from there.

    Args:
        limit: share from 0 to 1, kept within 0.01 and 0.99.
        dark: for a dark page.
    """
    edge = min(max(limit, 0.01), 0.99)
    below = _SHARE_BELOW_DARK if dark else _SHARE_BELOW
    above = _SHARE_ABOVE_DARK if dark else _SHARE_ABOVE
    return [[0.0, below[0]], [edge, below[1]], [edge, above[0]], [1.0, above[1]]]


def encode(values: npt.NDArray[Any]) -> dict[str, Any]:
    """A typed array as Plotly reads it: base64, little-endian, with its shape.

    Args:
        values: float32, int16, int32 or uint8, of any shape.
    """
    kinds = {"float32": "f4", "int16": "i2", "int32": "i4", "uint8": "u1"}
    plain = np.ascontiguousarray(values)
    shape = ", ".join(str(size) for size in plain.shape)
    data = base64.b64encode(plain.astype(plain.dtype.newbyteorder("<")).tobytes()).decode()
    return {"dtype": kinds[plain.dtype.name], "bdata": data, "shape": shape}


def log10(values: npt.NDArray[Any], decimals: int = 2) -> Matrix:
    """log10 rounded to what a picture can show; 0 becomes float32's smallest decade.

    Args:
        values: of any shape; only their magnitudes matter. Infinity becomes 10^39, NaN stays.
        decimals: that are kept.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(np.abs(values, dtype=np.float64))
    finite = np.where(np.isneginf(logs), -45.0, logs)
    return np.round(np.where(np.isposinf(finite), 39.0, finite), decimals).astype(np.float32)


def milli_log10(values: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """log10 in thousandths; -32768 where unknown. Half the bytes for what only bars show.

    Args:
        values: as of ``log10``.
    """
    logs = np.clip(log10(values, 3).astype(np.float64) * 1000, -32000, 32000)
    return np.where(np.isnan(logs), -32768, np.round(logs)).astype(np.int16)


def escape(text: str) -> str:
    """Layer names as Plotly shows them: its texts are HTML-like, and names are untrusted.

    Args:
        text: untrusted.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def step_axis(steps: Sequence[int]) -> Figure:
    """An axis of exactly these steps; a single one gets a width of one step.

    Args:
        steps: global steps of the columns, ascending, at least one.

    Returns:
        A ``layout.xaxis`` of Plotly.
    """
    first, last = steps[0], steps[-1]
    axis: Figure = {"title": {"text": "step"}, "showgrid": False, "autorange": False, "nticks": 7,
                    "range": [first - 0.5, last + 0.5], "tickformat": ",d"}  # fmt: skip
    return {**axis, "dtick": 1} if last - first < _FEW_STEPS else axis


def frame(height: int, **layout: Any) -> Figure:
    """Layout that all pictures share; backgrounds are transparent so that they follow the page.

    Args:
        height: pixels, margins included.
        **layout: entries of ``layout`` that replace the shared ones.
    """
    base: Figure = {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 30, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, Roboto, sans-serif", "size": 12, "color": GREY},
        "hoverlabel": {"font": {"family": "ui-monospace, monospace", "size": 12}, "namelength": -1},
        "showlegend": False,
    }
    return {**base, **layout}


def draw_backdrop(values: npt.NDArray[Any], steps: Sequence[int]) -> list[Figure]:
    """Grey behind a heatmap that has gaps: white would look like a value.

    Args:
        values: of the heatmap, ``(rows, columns)``.
        steps: global steps of its columns.

    Returns:
        Shapes for ``layout.shapes``; none where every value is finite.
    """
    if np.isfinite(values).all():
        return []
    whole = {"xref": "x", "x0": steps[0] - 0.5, "x1": steps[-1] + 0.5}
    high = {"yref": "paper", "y0": 0, "y1": 1}
    return [{"type": "rect", **whole, **high, "layer": "below", "fillcolor": GAP,
             "line": {"width": 0}}]  # fmt: skip


def mark_gaps(values: npt.NDArray[Any], steps: Sequence[int]) -> Figure:
    """For ``layout.meta``: whether there are gaps, and what the page draws behind them.

    Args:
        values: of the heatmap, ``(rows, columns)``.
        steps: global steps of its columns.
    """
    backdrop = draw_backdrop(values, steps)
    return {"gaps": bool(backdrop), "backdrop": backdrop}
