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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
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
    unpack_end,
    unpack_gap,
    unpack_header,
)

PLUGIN_NAME = "gradwatch"
TAG_PREFIX = "gradwatch/"
RECORD_PREFIX = "gradwatch/record/"
UNITS_PREFIX = "gradwatch/units/"
TRIALS_TAG = "gradwatch/trials"
START_TAG, END_TAG, GAP_TAG = "gradwatch/start", "gradwatch/end", "gradwatch/gap"
MARK_TAGS = {RunHeader: START_TAG, RunEnd: END_TAG, RunGap: GAP_TAG}
MAX_LAYER_SET_BYTES = 10 << 20
"""A layer set larger than this (60,000 calls) is not read: a few bytes can inflate to any size."""

Float32 = npt.NDArray[np.float32]


def pack_layer_set(layer_set: LayerSet) -> bytes:
    """The layer set as the plugin content of a tag's first summary."""
    return zlib.compress(layer_set.to_json().encode())


def unpack_layer_set(content: bytes) -> LayerSet:
    """Read back what ``pack_layer_set`` made.

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
    """Histograms by layer key as ``(n, 1 + bins)``, each row led by the layer's index."""
    index = {layer.key: place for place, layer in enumerate(layer_set.layers)}
    rows = [(index[key], *counts) for key, counts in histograms.items() if key in index]
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), -1)


def unpack_units(layer_set: LayerSet, units: Float32) -> dict[str, Array]:
    """Read back what ``pack_units`` made; a row that names no layer is left out."""
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
    """One value per scalar; NaN means "not measured" and is left out."""
    for tag, number in scalars.items():
        if not math.isnan(number):
            yield summary_pb2.Summary.Value(tag=tag, simple_value=number)


def summarise_text(tag: str, markdown: str) -> summary_pb2.Summary.Value:
    """Markdown for TensorBoard's Text tab."""
    metadata = text_metadata.create_summary_metadata(display_name="", description="")
    return _string_value(tag, markdown.encode(errors="replace"), metadata)


def summarise_trials(packed: bytes) -> summary_pb2.Summary.Value:
    """Trials of remedies, as ``pack_trials`` makes them."""
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME)
    return _string_value(TRIALS_TAG, packed, summary_pb2.SummaryMetadata(plugin_data=plugin))


def summarise_mark(mark: Mark) -> summary_pb2.Summary.Value:
    """A start, an end or a gap."""
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


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of gradwatch's own, as it stands in an event.

    Attributes:
        digest: of the layer set, from the tag.
        content: the packed layer set, or empty.
        is_units: histograms, not a record.
        values: float32, of the shape that was written.
    """

    digest: str
    content: bytes
    is_units: bool
    values: Float32


def read_tensors(event: event_pb2.Event) -> Iterator[StoredTensor]:
    """The tensors of gradwatch's own in an event; none in anyone else's.

    Raises:
        UnreadableLog: a tensor whose shape and content do not fit each other.
    """
    for value in event.summary.value:
        for prefix in (RECORD_PREFIX, UNITS_PREFIX):
            if value.tag.startswith(prefix):
                yield StoredTensor(
                    digest=value.tag[len(prefix) :],
                    content=value.metadata.plugin_data.content,
                    is_units=prefix == UNITS_PREFIX,
                    values=_read_values(value.tensor, event.step),
                )


def _read_values(tensor: tensor_pb2.TensorProto, step: int) -> Float32:
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    try:
        if tensor.tensor_content:
            flat = np.frombuffer(tensor.tensor_content, dtype="<f4")
        else:  # a tool that rewrites event files may have unpacked it
            flat = np.asarray(tensor.float_val, dtype=np.float32)
        return flat.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise UnreadableLog(
            f"Expected a float32 tensor of shape {shape} at step {step}, got "
            f"{len(tensor.tensor_content)} bytes. The event file is damaged; train again."
        ) from error


def read_texts(event: event_pb2.Event) -> Iterator[tuple[str, str]]:
    """Tag and Markdown of gradwatch's own text summaries in an event."""
    for value in event.summary.value:
        is_text = value.metadata.plugin_data.plugin_name == text_metadata.PLUGIN_NAME
        if is_text and value.tag.startswith(TAG_PREFIX):
            yield value.tag, _join(value.tensor.string_val)


def read_mark(event: event_pb2.Event) -> Mark | None:
    """The mark in an event; ``None`` in any other.

    Raises:
        UnreadableLog: it is damaged.
    """
    readers: dict[str, Callable[[bytes], Mark]] = {
        START_TAG: unpack_header,
        END_TAG: unpack_end,
        GAP_TAG: unpack_gap,
    }
    for value in event.summary.value:
        if value.tag in readers:
            return readers[value.tag](b"".join(value.tensor.string_val[:1]))
    return None


def read_trials(event: event_pb2.Event) -> Iterator[bytes]:
    """The packed trials of remedies in an event."""
    for value in event.summary.value:
        if value.tag == TRIALS_TAG:
            yield from value.tensor.string_val[:1]


def _join(parts: Sequence[bytes]) -> str:
    return "\n".join(part.decode(errors="replace") for part in parts)
