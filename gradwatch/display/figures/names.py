"""Layer names on an axis: short enough to fit, and still telling the layers apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gradwatch.display.figures.palette import escape

_WORD = re.compile(r"[^._/]*[._/]+|[^._/]+")  # with the separator behind it
_INITIAL = re.compile(r"^([^\W\d])[^\W\d]+([._/]+)$")  # a word without digits, to its first letter
LONGEST = 24  # characters of a tick label
TICK_PIXELS = 16  # least distance between two labels
ROW_PIXELS = 24
SHORTEST_PLOT, TALLEST_PLOT = 150, 560  # pixels


def shorten(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Leave out what all names share, then all but the initials, then the middle, until each fits.

    Names are cut at ``.``, ``_`` and ``/``; words with a digit tell layers apart and stay whole.

    Args:
        names: of the rows of one axis; what they share is left out of all.
        longest: characters.

    Returns:
        A label for each name, in the same order.

    Example:
        >>> shorten(["encoder.layers.0.attention.weight", "encoder.layers.1.attention.weight"], 20)
        ['…layers.0…', '…layers.1…']
    """
    words = [_WORD.findall(name) for name in names]
    head, tail = _shared(words), _shared([word[::-1] for word in words])
    return [_fit(name, word, head, tail, longest) for name, word in zip(names, words, strict=True)]


def _shared(words: Sequence[Sequence[str]]) -> int:
    """How many leading words all names have in common, leaving each at least one of its own."""
    if len(words) < 2:
        return 0
    room = min(len(word) for word in words) - 1
    count = 0
    while count < room and len({word[count] for word in words}) == 1:
        count += 1
    return count


def _fit(name: str, words: Sequence[str], head: int, tail: int, longest: int) -> str:
    if len(name) <= longest:
        return name
    end = max(len(words) - tail, head + 1)
    kept = list(words)
    for start in (max(head - 1, 0), head):  # one shared word more, where it fits, says what it is
        kept = ["…"] * (start > 0) + list(words[start:end]) + ["…"] * (end < len(words))
        text = _join(kept)
        if len(text) <= longest:
            return text
    for place in range(len(kept) - 1):
        kept[place] = _INITIAL.sub(r"\1\2", kept[place])
        if len(_join(kept)) <= longest:
            return _join(kept)
    return cut_middle(_join(kept), longest)


def _join(words: Sequence[str]) -> str:
    """No separator stands beside the sign for what is left out."""
    return "".join(words).replace("_…", "…").replace(".…", "…").replace("/…", "…")


def cut_middle(text: str, longest: int) -> str:
    """Both ends of a text, and a sign for what lies between.

    Args:
        text: of any length.
        longest: characters of the result, the sign included.
    """
    left = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:left]}…{text[-(longest - 1 - left) :]}"


def plot_height(rows: int) -> int:
    """Pixels of a plot with this many rows, without its margins.

    Args:
        rows: of the layer axis.
    """
    return max(SHORTEST_PLOT, min(TALLEST_PLOT, rows * ROW_PIXELS))


def layer_axis(names: Sequence[str], height: int) -> dict[str, Any]:
    """A category axis, input layer on top; the page picks other ticks when one zooms in.

    Categories are the full names, so that hovering shows them in full; only labels are short.

    Args:
        names: of the rows, input layer first.
        height: of the plot in pixels, from which the ticks' distance is chosen.

    Returns:
        A ``layout.yaxis`` of Plotly.
    """
    stride = max(1, -(-len(names) * TICK_PIXELS // max(height, 1)))
    full = [escape(name) for name in names]
    short = [escape(name) for name in shorten(names)]
    return {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": full,
        "range": [len(names) - 0.5, -0.5],
        "tickmode": "array",
        "tickvals": full[::stride],
        "ticktext": short[::stride],
        "ticklabelstandoff": 4,
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
        "fixedrange": False,
    }


def axis_meta(names: Sequence[str]) -> dict[str, Any]:
    """What the page needs to filter rows and to label them again after zooming.

    Args:
        names: of the rows, as in ``layer_axis``.
    """
    return {
        "names": list(names),
        "labels": [escape(name) for name in shorten(names)],
        "pixels": {
            "row": ROW_PIXELS,
            "least": SHORTEST_PLOT,
            "most": TALLEST_PLOT,
            "tick": TICK_PIXELS,
        },
    }
