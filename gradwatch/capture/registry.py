"""All calls met so far, so that a step in which some are missing does not begin a new layer set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from gradwatch.capture.calls import Call, CallKey
from gradwatch.records import Layer

_HAS_WEIGHTS = frozenset(("weight", "recurrent", "embedding"))


class CallRegistry:
    """Layers in the order in which forward reaches them; grows, and never forgets."""

    def __init__(self) -> None:
        self._order: list[CallKey] = []
        self._layers: dict[CallKey, Layer] = {}
        self._sources: dict[CallKey, tuple[CallKey, ...]] = {}
        self._gates: set[CallKey] = set()
        self._parts: set[CallKey] = set()
        self.layers: tuple[Layer, ...] = ()

    def forget(self) -> None:
        """Start over, also for a step that is armed and knows what is linked."""
        for table in (self._order, self._layers, self._sources, self._gates, self._parts):
            table.clear()
        self.layers = ()

    @property
    def linked(self) -> Mapping[CallKey, Layer]:
        """Calls whose sources are known, as they are described."""
        return self._layers

    def place(self, calls: Sequence[Call], gates: Iterable[int]) -> dict[int, int]:
        """Column of each call, by its index in the step.

        Args:
            calls: of the step, in the order of forward, in which new ones are put in.
            gates: indices of those whose output multiplies something.
        """
        keys = {call.index: (call.layer.fqn, call.layer.call) for call in calls}
        self._gates.update(keys[index] for index in gates if index in keys)
        changed = self._insert(calls, keys)
        if changed or any(not self._layers[key].is_gate for key in self._gates):
            self.layers = self._describe()
        positions = {key: column for column, key in enumerate(self._order)}
        return {index: positions[key] for index, key in keys.items()}

    def _insert(self, calls: Sequence[Call], keys: dict[int, CallKey]) -> bool:
        at, changed = -1, False
        positions = {key: column for column, key in enumerate(self._order)}
        for call in calls:
            key = keys[call.index]
            if key in self._layers:
                at = positions[key] if not changed else self._order.index(key)
                continue
            at, changed = at + 1, True
            self._order.insert(at, key)
            self._layers[key] = call.layer
            if call.is_part:
                self._parts.add(key)
            self._sources[key] = tuple(keys[i] for i in call.sources if i in keys)
        return changed

    def _describe(self) -> tuple[Layer, ...]:
        positions = {key: column for column, key in enumerate(self._order)}
        inputs = [tuple(sorted(positions[s] for s in self._sources[key])) for key in self._order]
        heads = find_heads([self._layers[key].role for key in self._order], inputs)
        for column, key in enumerate(self._order):
            self._layers[key] = dataclasses.replace(
                self._layers[key],
                inputs=inputs[column],
                is_gate=key in self._gates,
                is_head=heads[column] and key not in self._parts,
            )
        return tuple(self._layers[key] for key in self._order)


def find_heads(roles: Sequence[str], inputs: Sequence[tuple[int, ...]]) -> list[bool]:
    """Which layers have no weight behind them on any path to the loss.

    Args:
        roles: of all layers, in the order of forward.
        inputs: of each layer, the places of the layers that feed it.

    Example:
        >>> find_heads(["weight", "activation", "weight", "other"], [(), (0,), (1,), (2,)])
        [False, False, True, True]
    """
    feeds_weight = [False] * len(roles)
    for index in sorted(range(len(roles)), reverse=True):
        if roles[index] in _HAS_WEIGHTS or feeds_weight[index]:
            for source in inputs[index]:
                feeds_weight[source] = True
    return [not feeds for feeds in feeds_weight]
