"""What a cell or a dot of a figure says when one points at it: the headline's words, not powers.

The page has the same words in ``static/words.js``; this is for figures in a notebook.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gradwatch.display.figures.palette import FULL_DECADES, Figure, Matrix
from gradwatch.wording.phrases import LARGEST_WORD, name_lack, name_number

_LAST = "the last layers"
_ABOUT_EQUAL = 1.3  # a factor below it is no difference in words
_LEAST_PERCENT = 1e-3  # a smaller share reads better as "1 part in"


def say_share(share: float) -> str:
    """A share as a percentage while it can be read as one.

    Args:
        share: from 0 to 1.

    Example:
        >>> say_share(0.25), say_share(2e-6), say_share(1e-20), say_share(0.0)
        ('25 %', '1 part in 500,000', 'practically nothing', 'nothing')
    """
    if not share > 0:
        return "nothing"
    if share >= _LEAST_PERCENT:
        return f"{float(f'{100 * share:.2g}'):g} %"
    return (
        "practically nothing" if share * LARGEST_WORD < 1 else f"1 part in {name_number(1 / share)}"
    )


def say_times(log: float) -> str:
    """A gradient against that of the last layers.

    Args:
        log: log10 of their ratio.

    Example:
        >>> say_times(-6.0), say_times(0.05)
        ('1 million times less gradient than the last layers', 'about as much gradient as the last layers')
    """  # noqa: E501
    if abs(log) < np.log10(_ABOUT_EQUAL):
        return f"about as much gradient as {_LAST}"
    if log < 0:
        return name_lack(10.0**log, _LAST)
    return f"{name_number(10.0**log)} times more gradient than {_LAST}"


def _say_part(log: float) -> str:
    if log <= -FULL_DECADES:
        return "less than 1 part in 100 million of the loss change"
    return f"{say_share(10.0**log)} of the loss change"


_CELLS: dict[str, Callable[[float], str]] = {"profile": say_times, "who_learns": _say_part}


def add_words(figure: Figure) -> Figure:
    """The figure with words for each cell of its heatmap; any other figure as it is.

    Args:
        figure: of a builder, arrays as base64.
    """
    say = _CELLS.get(figure["layout"]["meta"]["kind"])
    if say is None:
        return figure
    heatmap, *others = figure["data"]
    cells = _read(heatmap["z"])
    said = {
        "text": [[say(cell) if np.isfinite(cell) else "" for cell in row] for row in cells],
        "hovertemplate": "%{y}, step %{x:,.0f}<br>%{text}<extra></extra>",
    }
    return {**figure, "data": [{**heatmap, **said}, *others]}


def _read(encoded: dict[str, str]) -> Matrix:
    """The inverse of ``palette.encode``."""
    shape = tuple(int(size) for size in encoded["shape"].split(","))
    kind = np.dtype(f"<{encoded['dtype']}")
    values: npt.NDArray[np.float32] = np.frombuffer(
        base64.b64decode(encoded["bdata"]), kind
    ).reshape(shape)
    return values
