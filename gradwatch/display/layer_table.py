"""The layer table as text cells, the same in a terminal and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gradwatch.verdict.findings import LayerSummary

DEFAULT_ROWS = 20
MAX_NOTES = 5
_ENDS = 2  # layers always shown at either end of the network, and of a flagged region


@dataclass(frozen=True)
class Gap:
    """Rows that are left out of an abbreviated table."""

    n_layers: int
    n_flagged: int

    def __str__(self) -> str:
        if not self.n_flagged:
            return f"{self.n_layers} more"
        count = "all" if self.n_flagged == self.n_layers else str(self.n_flagged)
        return f"{self.n_layers} more, {count} flagged"


@dataclass(frozen=True)
class TableColumn:
    """One statistic: its heading and how it is written."""

    title: str
    field: str
    is_share: bool = False

    def write(self, layer: LayerSummary) -> str:
        """The cell; empty where nothing was measured.

        Args:
            layer: of the row.
        """
        value = float(getattr(layer, self.field))
        return write_share(value) if self.is_share else write_number(value)


COLUMNS = (
    TableColumn("Gradient", "grad_ratio"),
    TableColumn("Gain", "gain"),
    TableColumn("Satur.", "saturated_fraction", is_share=True),
    TableColumn("Dead", "dead_fraction", is_share=True),
    TableColumn("Update", "update_ratio"),
)

LEGEND = (
    "Gradient: at the layer's output, relative to the largest further down (1 = full). "
    "Gain: what the layer multiplies it by on its way back. "
    "Satur., Dead: share of units. Update: change of the weight per step, relative to its size."
)


def choose_columns(layers: Sequence[LayerSummary]) -> list[TableColumn]:
    """Columns in which at least one layer has a number.

    Args:
        layers: of the table.
    """
    return [
        column
        for column in COLUMNS
        if any(not math.isnan(getattr(layer, column.field)) for layer in layers)
    ]


def abridge_rows(
    layers: Sequence[LayerSummary], limit: int = DEFAULT_ROWS
) -> list[LayerSummary | Gap]:
    """At most about ``limit`` layers in order, with gaps: the ends, and the flagged regions.

    Kept first are both ends of the network, then the borders of each flagged region with their
    neighbours, then flagged layers by how little gradient they get.

    Args:
        layers: in forward order.
        limit: rows from which on the table is abbreviated; gaps are not counted.
    """
    if len(layers) <= limit:
        return list(layers)
    kept: set[int] = set()
    for index in _rank_rows(layers):
        kept.add(index)
        if len(kept) >= limit:
            break
    return list(_fill_gaps(layers, sorted(kept)))


def _rank_rows(layers: Sequence[LayerSummary]) -> Iterator[int]:
    last = len(layers) - 1
    for distance in range(_ENDS):
        yield from (distance, last - distance)
    flagged = [index for index, layer in enumerate(layers) if layer.flagged]
    for index in flagged[:1] + flagged[-1:] + flagged:
        window = range(max(index - 1, 0), min(index + 1, last) + 1)
        if not all(layers[near].flagged for near in window):
            yield from window
    yield from sorted(flagged, key=lambda index: layers[index].grad_ratio)


def _fill_gaps(layers: Sequence[LayerSummary], kept: Sequence[int]) -> Iterator[LayerSummary | Gap]:
    position = 0
    for index in [*kept, len(layers)]:
        left_out = layers[position:index]
        if len(left_out) == 1:
            yield left_out[0]  # a line for the gap would be no shorter
        elif left_out:
            yield Gap(len(left_out), sum(layer.flagged for layer in left_out))
        if index < len(layers):
            yield layers[index]
        position = index + 1


def write_number(value: float) -> str:
    """Two significant digits, at most seven characters: ``1``, ``0.22``, ``3.1e-07``.

    Args:
        value: NaN gives an empty text.

    Example:
        >>> [write_number(value) for value in (1.0, 0.2213, 123.4, 3.14e-7)]
        ['1', '0.22', '123', '3.1e-07']
    """
    if math.isnan(value):
        return ""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{value:.1e}"


def write_share(value: float) -> str:
    """A fraction in percent; a share that is not zero is never written as 0 %.

    Args:
        value: from 0 to 1; NaN gives an empty text.

    Example:
        >>> [write_share(value) for value in (0.0, 0.001, 0.625, 1.0)]
        ['0%', '<1%', '62%', '100%']
    """
    if math.isnan(value):
        return ""
    if 0 < value < 0.01:
        return "<1%"
    return f"{math.floor(value * 100) if value < 1 else 100}%"


def make_printable(text: str) -> str:
    """Layer names are untrusted: control characters and direction marks are spelled out.

    Args:
        text: untrusted.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def cut_name(name: str, width: int, dots: str = "…") -> str:
    """Cut the middle out of a name; its end tells layers apart best.

    Args:
        name: of a layer.
        width: most characters of the result.
        dots: what stands for the part that is cut out.

    Example:
        >>> cut_name("transformer.h.11.mlp.c_proj", 16)
        'trans…mlp.c_proj'
    """
    if len(name) <= width:
        return name
    tail = max((width - len(dots)) * 2 // 3, 1)
    head = max(width - len(dots) - tail, 0)
    return f"{name[:head]}{dots}{name[-tail:]}"


def join_unique(words: Iterable[str]) -> str:
    """Each word once, separated by commas, in their order.

    Args:
        words: with repetitions.
    """
    return ", ".join(dict.fromkeys(words))
