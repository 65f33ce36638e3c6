"""What is known of a call in forward that lets no gradient through, and who has used its result."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gradwatch.capture.graph import collect_tensors


@dataclass
class FoundCut:
    """One place in the user's code, and what it was given.

    Attributes:
        function, source, line, caller, is_flat, is_singular: see ``schema.cut.Cut``.
        goes_on: what it returned was used by what learns; in forward that is taken for granted.
        is_read: plain numbers were made of what it returned.
        calls: indices of the calls whose outputs it was given.
        names: fqns of modules that ran there as a whole.
        params: ids of parameters that it was given.
    """

    function: str
    source: str
    line: str
    caller: str
    is_flat: bool = False
    goes_on: bool = True
    is_read: bool = False
    calls: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    params: set[int] = field(default_factory=set)
    is_singular: bool = False


class CutResults:
    """What calls outside of forward made of values that learn, until what learns uses it again.

    Most of it is for logs and metrics, and nothing of the training's is lost there.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Tensor], list[FoundCut]]] = {}

    def keep(self, tensors: Iterable[Tensor], cuts: list[FoundCut]) -> None:
        """Remember where these come from, without keeping them.

        Args:
            tensors: held weakly.
            cuts: among which they came from.
        """
        for tensor in tensors:
            self._kept[id(tensor)] = weakref.ref(tensor), cuts

    def follow(self, values: Any, result: Any) -> None:
        """A call was given ``values`` and has returned ``result``.

        Args:
            values: arguments of the call; one that came from a cut makes its result one too.
            result: where it learns, the cuts count from here on.
        """
        cuts = self._find(values) if self._kept else []
        outputs = collect_tensors(result, depth=2) if cuts else []
        if any(output.requires_grad for output in outputs):
            _mark(cuts)
        else:
            self.keep(outputs, cuts)

    def read(self, values: Any) -> None:
        """A call has made plain numbers of ``values``.

        Args:
            values: arguments of the call.
        """
        for cut in self._find(values):
            cut.is_read = True

    def use(self, values: Any) -> bool:
        """A watched module was given ``values``; answers whether a cut was among them.

        Args:
            values: arguments of the module's call.
        """
        cuts = self._find(values)
        _mark(cuts)
        return bool(cuts)

    def _find(self, values: Any) -> list[FoundCut]:
        entries = [(tensor, self._kept.get(id(tensor))) for tensor in collect_tensors(values)]
        return [
            cut for tensor, entry in entries if entry and entry[0]() is tensor for cut in entry[1]
        ]


def _mark(cuts: Iterable[FoundCut]) -> None:
    for cut in cuts:
        cut.goes_on = True
