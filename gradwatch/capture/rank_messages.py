"""What ranks send each other: records as bytes, and one set of layers for several."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from gradwatch.capture.exchange import Exchange
from gradwatch.records import Array, Layer, LayerSet, Rows, StepRecord


class LayerSets:
    """Records as bytes; what their columns mean travels once for each set of layers."""

    def __init__(self) -> None:
        self._known: dict[str, LayerSet] = {}
        self._sent: set[str] = set()
        self._joined: dict[tuple[str, ...], LayerSet] = {}

    def encode(self, record: StepRecord | None, exchange: Exchange) -> bytes:
        """A message; the set of layers is sent before it.

        Args:
            record: ``None``: this rank's optimizer skipped the step.
            exchange: takes the set of layers.
        """
        if record is None:
            return json.dumps({"digest": None}).encode() + b"\n"
        digest = record.layer_set.digest
        if digest not in self._sent:
            self._sent.add(digest)
            exchange.put(f"layers/{digest}", record.layer_set.to_json().encode())
        parts = record.layer_values, record.param_values, record.step_values
        values = np.concatenate([part.ravel() for part in parts])
        return json.dumps({"digest": digest}).encode() + b"\n" + values.astype("<f8").tobytes()

    def decode(self, content: bytes, global_step: int, exchange: Exchange) -> StepRecord | None:
        """What ``encode`` made; ``None`` for a step that was skipped.

        Args:
            content: of the message.
            global_step: of the record.
            exchange: holds the set of layers.
        """
        head, _, body = content.partition(b"\n")
        digest = json.loads(head)["digest"]
        if digest is None:
            return None
        layer_set = self._find(digest, exchange)
        rows = layer_set.rows
        shapes = (
            (len(rows.all_layer), len(layer_set.layers)),
            (len(rows.param), len(layer_set.params)),
        )
        sizes = np.cumsum([np.prod(shape) for shape in shapes]).tolist()
        layers, params, step = np.split(np.frombuffer(body, "<f8").astype(np.float64), sizes)
        return StepRecord(
            global_step, layer_set, layers.reshape(shapes[0]), params.reshape(shapes[1]), step
        )

    def join(self, sets: Sequence[LayerSet], notes: tuple[str, ...]) -> LayerSet:
        """One set for several, the same object for the same ones.

        Args:
            sets: one of each rank that has sent a record.
            notes: to be added.
        """
        key = (*(layer_set.digest for layer_set in sets), *notes)
        if key not in self._joined:
            whole = join_layer_sets(sets)
            notes = tuple(dict.fromkeys((*whole.notes, *notes)))
            self._joined[key] = dataclasses.replace(whole, notes=notes)
        return self._joined[key]

    def _find(self, digest: str, exchange: Exchange) -> LayerSet:
        if digest not in self._known:
            content = exchange.take(f"layers/{digest}")
            assert content is not None  # sent before the message that names it
            self._known[digest] = LayerSet.from_json(content.decode())
        return self._known[digest]


def join_layer_sets(sets: Sequence[LayerSet]) -> LayerSet:
    """One set with the layers of all: the first one's, then what others have besides.

    Rows that some rank does not measure are left out.

    Args:
        sets: at least one; parameters are those of the first that has layers.

    Returns:
        A parameter counts as used where any rank has used it.
    """
    whole = next((layer_set for layer_set in sets if layer_set.layers), sets[0])
    layers: list[Layer] = list(whole.layers)
    positions = {layer.key: index for index, layer in enumerate(layers)}
    for layer_set in sets:
        for layer in layer_set.layers:
            if layer.key not in positions:
                keys = (layer_set.layers[source].key for source in layer.inputs)
                inputs = tuple(sorted(positions[key] for key in keys if key in positions))
                positions[layer.key] = len(layers)
                layers.append(dataclasses.replace(layer, inputs=inputs))
    notes = dict.fromkeys(note for layer_set in sets for note in layer_set.notes)
    used = {param.fqn for layer_set in sets for param in layer_set.params if param.used}
    params = tuple(dataclasses.replace(param, used=param.fqn in used) for param in whole.params)
    return LayerSet(
        tuple(layers), params, tuple(notes), _share_rows([layer_set.rows for layer_set in sets])
    )


def _share_rows(rows: Sequence[Rows]) -> Rows:
    names = {
        field.name: tuple(
            name
            for name in getattr(rows[0], field.name)
            if all(name in getattr(other, field.name) for other in rows)
        )
        for field in dataclasses.fields(Rows)
    }
    return Rows(**names)


def align_rows(values: Array, names: Sequence[str], wanted: Sequence[str]) -> Array:
    """Rows ``(len(names), n)`` in another order, ``(len(wanted), n)``; NaN where one is missing.

    Args:
        values: float64 ``(len(names), n)``.
        names: of its rows.
        wanted: names of the rows of the result.

    Example:
        >>> import numpy as np
        >>> align_rows(np.array([[1.0], [2.0]]), ["a", "b"], ["b", "c"]).tolist()
        [[2.0], [nan]]
    """
    places = {name: row for row, name in enumerate(names)}
    padded = np.concatenate((values, np.full((1, values.shape[1]), np.nan)))
    chosen: Array = padded[[places.get(name, len(names)) for name in wanted]]
    return chosen
