"""Values as the pixels of a PNG, for where no script runs."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from gradwatch.display.figures import palette

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UNKNOWN = (160, 160, 160)

Pixels = npt.NDArray[np.uint8]


def colour(logs: palette.Matrix, colours: palette.ColourRange) -> Pixels:
    """``(rows, columns, 3)`` RGB of values, on the scale of the interactive heatmap.

    Args:
        logs: ``(rows, columns)``; grey where not finite.
        colours: scale of hex colours, and the values at its two ends.
    """
    scale, low, high = colours
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
    """An RGB image as PNG (W3C PNG specification: signature, IHDR, IDAT, IEND).

    Args:
        pixels: uint8, ``(rows, columns, 3)``.
    """
    height, width, _ = pixels.shape
    unfiltered = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    unfiltered[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(unfiltered.tobytes(), 9)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", body), _chunk(b"IEND", b""))
    return _PNG_SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
