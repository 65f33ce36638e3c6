"""What of an event is gradwatch's: tensors, texts, marks and trials, by their tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tensorboard.compat.proto import event_pb2, tensor_pb2
from tensorboard.plugins.text import metadata as text_metadata

from gradwatch.errors import UnreadableLog
from gradwatch.log.summaries import (
    END_TAG,
    GAP_TAG,
    RECORD_PREFIX,
    START_TAG,
    TAG_PREFIX,
    TRIALS_TAG,
    UNITS_PREFIX,
)
from gradwatch.run_marks import Mark, unpack_end, unpack_gap, unpack_header
from gradwatch.schema.packing import Float32


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

    Args:
        event: of an event file.

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
    """Tag and Markdown of gradwatch's own text summaries in an event.

    Args:
        event: of an event file.
    """
    for value in event.summary.value:
        is_text = value.metadata.plugin_data.plugin_name == text_metadata.PLUGIN_NAME
        if is_text and value.tag.startswith(TAG_PREFIX):
            yield value.tag, _join(value.tensor.string_val)


def read_mark(event: event_pb2.Event) -> Mark | None:
    """The mark in an event; ``None`` in any other.

    Args:
        event: of an event file.

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
    """The packed trials of remedies in an event.

    Args:
        event: of an event file.
    """
    for value in event.summary.value:
        if value.tag == TRIALS_TAG:
            yield from value.tensor.string_val[:1]


def _join(parts: Sequence[bytes]) -> str:
    return "\n".join(part.decode(errors="replace") for part in parts)
