"""What gradwatch writes into TensorBoard summaries, and how it is read back.

Tags: ``gradwatch/record/<digest>`` holds ``StepRecord.to_vector()``; ``gradwatch/units/<digest>``
holds the histograms of a step as a float32 matrix, one row ``[layer index, counts...]`` per layer;
``gradwatch/trials`` holds trials of remedies as deflated JSON; ``gradwatch/start``, ``end`` and
``gap`` hold the marks of ``gradwatch.run_marks`` as JSON. All belong to the plugin ``gradwatch``.
A record's ``node_name``, which TensorBoard does not read, holds its session and number. The
metadata of a tag's first summary carries the layer set as deflated JSON; TensorBoard keeps no later
one, so later ones only repeat the plugin's name.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.text import metadata as text_metadata

from gradwatch.errors import UnreadableLog
from gradwatch.log.validation import check_json_shape, check_layer_set
from gradwatch.records import Array, LayerSet, StepRecord
from gradwatch.run_marks import (
    Mark,
    RunEnd,
    RunGap,
    RunHeader,
    pack_mark,
)
from gradwatch.schema.packing import Float32

PLUGIN_NAME = "gradwatch"
TAG_PREFIX = "gradwatch/"
RECORD_PREFIX = "gradwatch/record/"
UNITS_PREFIX = "gradwatch/units/"
TRIALS_TAG = "gradwatch/trials"
START_TAG, END_TAG, GAP_TAG = "gradwatch/start", "gradwatch/end", "gradwatch/gap"
MARK_TAGS = {RunHeader: START_TAG, RunEnd: END_TAG, RunGap: GAP_TAG}
MAX_LAYER_SET_BYTES = 10 << 20
"""A layer set larger than this (60,000 calls) is not read: a few bytes can inflate to any size."""


def pack_layer_set(layer_set: LayerSet) -> bytes:
    """The layer set as the plugin content of a tag's first summary: deflated JSON.

    Args:
        layer_set: of a record.

    Example:
        >>> from gradwatch.records import Layer
        >>> unpack_layer_set(pack_layer_set(LayerSet((Layer("fc"),)))).layers[0].fqn
        'fc'
    """
    return zlib.compress(layer_set.to_json().encode())


@lru_cache(maxsize=1)  # runs beside each other are often of one network
def unpack_layer_set(content: bytes) -> LayerSet:
    """Read back what ``pack_layer_set`` made.

    Args:
        content: of a summary's plugin data.

    Raises:
        UnreadableLog: not ours, damaged, or unreasonably large.
    """
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(content, MAX_LAYER_SET_BYTES).decode()
        if inflate.unconsumed_tail:
            raise ValueError(f"more than {MAX_LAYER_SET_BYTES} bytes")
        check_json_shape(text)
        layer_set = LayerSet.from_json(text)
        check_layer_set(layer_set)
    except (zlib.error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableLog(
            f"Expected deflated JSON in the metadata of a gradwatch record, got {content[:20]!r} "
            f"({error}). Was this event file written by another program?"
        ) from error
    return layer_set


def summarise_record(
    record: StepRecord, digest: str, content: bytes = b"", label: str = ""
) -> Iterator[summary_pb2.Summary.Value]:
    """The values of one sampled step.

    Args:
        record: the step.
        digest: of its layer set.
        content: the packed layer set, where the record is the tag's first.
        label: session and number, as ``"1a2b3c4d:17"``; empty outside a session.
    """
    value = _tensor_value(RECORD_PREFIX + digest, record.to_vector(), content)
    value.node_name = label
    yield value
    if record.histograms:
        units = pack_units(record.layer_set, record.histograms)
        yield _tensor_value(UNITS_PREFIX + digest, units, content)


def pack_units(layer_set: LayerSet, histograms: Mapping[str, Array]) -> Float32:
    """Histograms of a step as one matrix.

    Args:
        layer_set: of the record.
        histograms: float64 ``(bins,)`` by layer key; a key that the set lacks is left out.

    Returns:
        float32 ``(n, 1 + bins)``, each row led by the layer's index.

    Example:
        >>> from gradwatch.records import Layer
        >>> layer_set = LayerSet((Layer("fc"), Layer("act")))
        >>> pack_units(layer_set, {"act": np.array([3.0, 5.0])}).tolist()
        [[1.0, 3.0, 5.0]]
    """
    index = {layer.key: place for place, layer in enumerate(layer_set.layers)}
    rows = [(index[key], *counts) for key, counts in histograms.items() if key in index]
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), -1)


def unpack_units(layer_set: LayerSet, units: Float32) -> dict[str, Array]:
    """Read back what ``pack_units`` made; a row that names no layer is left out.

    Args:
        layer_set: of the record.
        units: ``(n, 1 + bins)``; anything else is empty.

    Returns:
        float64 ``(bins,)`` by layer key.
    """
    n_layers = len(layer_set.layers)
    rows = units if units.ndim == 2 else units[:0].reshape(0, 1)
    return {
        layer_set.layers[int(row[0])].key: row[1:].astype(np.float64)
        for row in rows
        if row.size and 0 <= row[0] < n_layers
    }


def _tensor_value(tag: str, values: Float32, content: bytes) -> summary_pb2.Summary.Value:
    shape = tensor_shape_pb2.TensorShapeProto(
        dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in values.shape]
    )
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_FLOAT,
        tensor_shape=shape,
        tensor_content=values.astype("<f4", copy=False).tobytes(),
    )
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content)
    metadata = summary_pb2.SummaryMetadata(
        plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_TENSOR
    )
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def summarise_scalars(scalars: Mapping[str, float]) -> Iterator[summary_pb2.Summary.Value]:
    """One value per scalar; NaN means "not measured" and is left out.

    Args:
        scalars: by tag.
    """
    for tag, number in scalars.items():
        if not math.isnan(number):
            yield summary_pb2.Summary.Value(tag=tag, simple_value=number)


def summarise_text(tag: str, markdown: str) -> summary_pb2.Summary.Value:
    """Markdown for TensorBoard's Text tab.

    Args:
        tag: begins with ``TAG_PREFIX``.
        markdown: its text; what UTF-8 cannot hold becomes a question mark.
    """
    metadata = text_metadata.create_summary_metadata(display_name="", description="")
    return _string_value(tag, markdown.encode(errors="replace"), metadata)


def summarise_trials(packed: bytes) -> summary_pb2.Summary.Value:
    """Trials of remedies.

    Args:
        packed: as ``pack_trials`` makes them.
    """
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME)
    return _string_value(TRIALS_TAG, packed, summary_pb2.SummaryMetadata(plugin_data=plugin))


def summarise_mark(mark: Mark) -> summary_pb2.Summary.Value:
    """A start, an end or a gap.

    Args:
        mark: goes into the tag of its class.
    """
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME)
    metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
    return _string_value(MARK_TAGS[type(mark)], pack_mark(mark), metadata)


def _string_value(
    tag: str, content: bytes, metadata: summary_pb2.SummaryMetadata
) -> summary_pb2.Summary.Value:
    metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(
            dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)]
        ),
        string_val=[content],
    )
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
