"""Colours and number formats of the pictures; safe for the common kinds of colour blindness.

Red to yellow to blue and on to violet keep apart for deuteranopes and protanopes (the ends differ
in lightness and in blueness), and no picture relies on colour alone: every value is in the hover
text, the layer table and the words of the banner. The bars use the Okabe-Ito colours.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Figure = dict[str, Any]
Matrix = npt.NDArray[np.float32]

VANISHED = "#67001f"
FULL = "#2f7fb8"
_FADING = ((0.25, "#c0352b"), (0.5, "#f08a4b"), (0.75, "#fbe3a0"))
_GROWING = ((0.75, "#6a51a3"), (1.0, "#3f007d"))

ACTIVATION = "#d55e00"
WEIGHT = "#0072b2"
NORM = "#009e73"
OTHER = "#8a8a8a"
BAND = "rgba(0, 158, 115, 0.18)"
SHARE_SCALE = (
    (0.0, "rgba(213, 94, 0, 0)"),
    (0.1, "rgba(213, 94, 0, 0.25)"),
    (0.5, "rgba(213, 94, 0, 0.7)"),
    (1.0, "#7a2500"),
)
SHARE_SCALE_DARK = (
    (0.0, "rgba(240, 140, 50, 0)"),
    (0.1, "rgba(240, 140, 50, 0.3)"),
    (0.5, "rgba(240, 140, 50, 0.85)"),
    (1.0, "#ffe3bf"),
)

FULL_DECADES = 8.0  # the heatmap shows eight decades below a full gradient
GAP = "rgba(128, 138, 148, 0.4)"  # where nothing was measured, or what is no number
_FEW_STEPS = 7  # each gets its tick; left alone, an axis of one step counts in tenths
GREY = "#737c86"  # lines and text that must be legible on white and on dark grey

Scale = list[list[float | str]]


def gradient_scale(explodes: bool) -> tuple[Scale, float, float]:
    """Colour scale, lowest and highest log10 value of the relative gradient."""
    if not explodes:
        stops = [(0.0, VANISHED), *_FADING, (1.0, FULL)]
        return [[at, colour] for at, colour in stops], -FULL_DECADES, 0.0
    faded = [(0.0, VANISHED), *((at / 2, colour) for at, colour in _FADING), (0.5, FULL)]
    return [[at, colour] for at, colour in (*faded, *_GROWING)], -FULL_DECADES, FULL_DECADES


def encode(values: npt.NDArray[Any]) -> dict[str, Any]:
    """A typed array as Plotly reads it: base64, little-endian, with its shape."""
    kinds = {"float32": "f4", "int16": "i2", "int32": "i4", "uint8": "u1"}
    plain = np.ascontiguousarray(values)
    shape = ", ".join(str(one) for one in plain.shape)
    data = base64.b64encode(plain.astype(plain.dtype.newbyteorder("<")).tobytes()).decode()
    return {"dtype": kinds[plain.dtype.name], "bdata": data, "shape": shape}


def log10(values: npt.NDArray[Any], decimals: int = 2) -> Matrix:
    """log10 rounded to what a picture can show; 0 becomes float32's smallest decade."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(np.abs(values, dtype=np.float64))
    finite = np.where(np.isneginf(logs), -45.0, logs)
    return np.round(np.where(np.isposinf(finite), 39.0, finite), decimals).astype(np.float32)


def milli_log10(values: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """log10 in thousandths; -32768 where unknown. Half the bytes for what only bars show."""
    logs = np.clip(log10(values, 3).astype(np.float64) * 1000, -32000, 32000)
    return np.where(np.isnan(logs), -32768, np.round(logs)).astype(np.int16)


def escape(text: str) -> str:
    """Layer names as Plotly shows them: its texts are HTML-like, and names are untrusted."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def step_axis(steps: Sequence[int]) -> Figure:
    """An axis of exactly these steps; a single one gets a width of one step."""
    first, last = steps[0], steps[-1]
    axis: Figure = {"title": {"text": "step"}, "showgrid": False, "autorange": False, "nticks": 7,
                    "range": [first - 0.5, last + 0.5], "tickformat": ",d"}  # fmt: skip
    return {**axis, "dtick": 1} if last - first < _FEW_STEPS else axis


def frame(height: int, **layout: Any) -> Figure:
    """Layout that all pictures share; backgrounds are transparent so that they follow the page."""
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
