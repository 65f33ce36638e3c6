"""The heatmap as a picture inside HTML, for where no script runs."""

from __future__ import annotations

import base64
import struct
import zlib
from html import escape

import numpy as np
import numpy.typing as npt

from gradwatch.display.figures import palette
from gradwatch.display.figures.names import shorten
from gradwatch.display.figures.series import Series, thin

_ROW_PIXELS, _TALLEST, _WIDTH = 14, 320, 560
_MOST_ROWS, _MOST_COLUMNS = 160, 280  # a picture of tens of kilobytes at most
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UNKNOWN = (160, 160, 160)

Pixels = npt.NDArray[np.uint8]


def draw_heatmap(series: Series) -> str:
    """An ``<img>`` with one pixel per layer and step, scaled up; empty without records."""
    if not series.steps or not series.names:
        return ""
    rows = thin(range(len(series.names)), _MOST_ROWS)
    columns = thin(series.steps, _MOST_COLUMNS)
    png = write_png(colour(palette.log10(series.relative[np.ix_(rows, columns)])))
    data = base64.b64encode(png).decode()
    height = max(2 * _ROW_PIXELS, min(_TALLEST, len(series.names) * _ROW_PIXELS))
    about = (
        f"Gradient by layer (top: {series.names[0]}, bottom: {series.names[-1]}) and step "
        f"({series.steps[0]} to {series.steps[-1]}); blue: full, dark red: a hundred-millionth"
    )
    style = f"width:{_WIDTH}px;max-width:100%;height:{height}px;image-rendering:pixelated"
    ends = shorten(series.names)
    names = "display:flex;flex-direction:column;justify-content:space-between;text-align:right"
    return (
        '<div style="display:flex;gap:8px;margin-top:10px;font-size:0.85em">'
        f'<div aria-hidden="true" style="{names}"><span>{escape(ends[0])}</span>'
        f"<span>{escape(ends[-1])}</span></div>"
        f'<img src="data:image/png;base64,{data}" style="{style}" alt="{escape(about)}"></div>'
        f'<div style="font-size:0.85em;margin-top:4px">{_draw_scale(series)}</div>'
    )


def _draw_scale(series: Series) -> str:
    """The colours in words, with a strip of them."""
    scale, low, high = palette.gradient_scale(_explodes(series))
    stops = ", ".join(f"{hue} {100 * float(at):.0f}%" for at, hue in scale)
    bar = f"display:inline-block;width:120px;height:10px;background:linear-gradient(90deg, {stops})"
    ends = f"10<sup>{low:.0f}</sup>", "full" if high == 0 else f"10<sup>{high:.0f}</sup>"
    steps = f"steps {series.steps[0]:,} to {series.steps[-1]:,}"
    strip = f'{ends[0]} <span style="{bar}" aria-hidden="true"></span> {ends[1]}'
    return f"Gradient against the last layers, {steps}: {strip}"


def _explodes(series: Series) -> bool:
    logs = palette.log10(series.relative)
    finite = logs[np.isfinite(logs)]
    return bool(finite.size and finite.max() > 1)


def colour(logs: palette.Matrix) -> Pixels:
    """``(rows, columns, 3)`` RGB of log10 values, on the scale of the interactive heatmap."""
    finite = logs[np.isfinite(logs)]
    scale, low, high = palette.gradient_scale(bool(finite.size and finite.max() > 1))
    stops = [float(at) for at, _ in scale]
    share = (np.clip(np.nan_to_num(logs, nan=low), low, high) - low) / (high - low)
    channels = [
        np.interp(share, stops, [_channel(str(hue), place) for _, hue in scale])
        for place in range(3)
    ]
    pixels: Pixels = np.stack(channels, axis=-1).round().astype(np.uint8)
    pixels[~np.isfinite(logs)] = _UNKNOWN
    return pixels


def _channel(hue: str, place: int) -> int:
    return int(hue[1 + 2 * place : 3 + 2 * place], 16)


def write_png(pixels: Pixels) -> bytes:
    """An RGB image as PNG (W3C PNG specification: signature, IHDR, IDAT, IEND)."""
    height, width, _ = pixels.shape
    unfiltered = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    unfiltered[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(unfiltered.tobytes(), 9)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", body), _chunk(b"IEND", b""))
    return _PNG_SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
