"""Event files that were made to do harm, by name; each is made when it is asked for."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2

from gradwatch.log import summaries
from gradwatch.log.checksums import crc32c, masked
from gradwatch.log.event_file import make_frame
from gradwatch.records import (
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    STEP_STATISTICS,
    LayerSet,
    StepRecord,
)
from gradwatch.run_marks import RunEnd, RunGap, RunHeader

DIGEST = "0" * 8
BEGIN = make_frame(event_pb2.Event(file_version="brain.Event:2", wall_time=1.0).SerializeToString())


def make_event(step: int, *values: summary_pb2.Summary.Value) -> bytes:
    """One frame.

    Args:
        step: of the event.
        *values: of its summary.
    """
    summary = summary_pb2.Summary(value=values)
    return make_frame(
        event_pb2.Event(wall_time=1e9, step=step, summary=summary).SerializeToString()
    )


def make_record_event(text: bytes, vector: object, step: int = 0, digest: str = DIGEST) -> bytes:
    """A record with any layer set and any numbers.

    Args:
        text: JSON of the layer set.
        vector: what the record packs.
        step: of the event.
        digest: name of the layer set.
    """
    values = np.asarray(vector, dtype=np.float32)
    content = zlib.compress(text)
    return make_event(
        step, summaries._tensor_value(summaries.RECORD_PREFIX + digest, values, content)
    )


def make_set(n_layers: int, **changes: object) -> bytes:
    """JSON of a layer set of plain layers.

    Args:
        n_layers: how many.
        **changes: fields of each layer that are otherwise.
    """
    layers = [{"fqn": f"n.{i}", "role": "weight", "inputs": [], **changes} for i in range(n_layers)]
    return json.dumps({**json.loads(LayerSet().to_json()), "layers": layers}).encode()


def pack_equal(text: bytes) -> np.ndarray:
    """The shortest record of a layer set: all rows of equal numbers.

    Args:
        text: JSON of the layer set.
    """
    layer_set = LayerSet.from_json(text.decode())
    layers = np.ones((len(LAYER_STATISTICS), len(layer_set.layers)))
    params, step = np.ones((len(PARAM_STATISTICS), 0)), np.ones(len(STEP_STATISTICS))
    return StepRecord(0, layer_set, layers, params, step).to_vector()


SMALL = make_set(2)


def _put(text: bytes, key: str, value: object) -> bytes:
    """JSON with one entry changed."""
    return json.dumps(json.loads(text) | {key: value}).encode()


def _make_small(text: bytes = SMALL, step: int = 0) -> bytes:
    """The record of two layers, beside another layer set or at another step."""
    return BEGIN + make_record_event(text, pack_equal(SMALL), step)


def _make_changed(**changes: object) -> bytes:
    return _make_small(make_set(2, **changes))


def _make_masked(mask: float) -> bytes:
    """The number that says which rows a record leaves out is none."""
    vector = pack_equal(SMALL)
    vector[1] = mask
    return BEGIN + make_record_event(SMALL, vector)


def repeat_packed(n_layers: int, n_records: int) -> bytes:
    """Records of some bytes each that unpack to ``n_layers`` numbers a row."""
    text = make_set(n_layers)
    packed = pack_equal(text)
    events = (make_record_event(text if i == 0 else b"", packed, i) for i in range(n_records))
    return BEGIN + b"".join(events)


def _repeat_sets(n_layers: int, n_records: int, has_steps: bool) -> bytes:
    """Records each with the layer set again, under another name."""
    text = make_set(n_layers)
    packed = pack_equal(text)
    events = (
        make_record_event(text, packed, i if has_steps else 0, f"{i:08x}") for i in range(n_records)
    )
    return BEGIN + b"".join(events)


def _make_marks(*marks: RunHeader | RunGap | RunEnd) -> bytes:
    return BEGIN + b"".join(make_event(0, summaries.summarise_mark(mark)) for mark in marks)


def _make_starts(count: int) -> bytes:
    return _make_marks(*(RunHeader(f"{i:08x}", 1e9) for i in range(count)))


def _make_negative_thresholds() -> bytes:
    mark = summaries.summarise_mark(RunHeader(DIGEST, 1e9))
    text = mark.tensor.string_val[0]
    thresholds = json.loads(text)["thresholds"] | {"persistence": -3}
    mark.tensor.string_val[0] = _put(text, "thresholds", thresholds)
    return BEGIN + make_event(0, mark) + make_record_event(SMALL, pack_equal(SMALL))


def _make_length(n_bytes: int) -> bytes:
    length = struct.pack("<Q", n_bytes)
    return length + struct.pack("<I", masked(crc32c(length)))


MAKERS: dict[str, Callable[[], bytes]] = {
    "empty": bytes,
    "zeros": partial(bytes, 1 << 20),
    "length of 2^63": partial(_make_length, 2**63),
    "600,000 empty frames": lambda: BEGIN + make_frame(b"") * 600_000,
    "NaN as mask": partial(_make_masked, np.nan),
    "infinite mask": partial(_make_masked, np.inf),
    "negative mask": partial(_make_masked, -5),
    "deep JSON": lambda: _make_small(b"[" * 5_000_000),
    "ten million brackets": lambda: _make_small(b"[" + b"{}," * 3_000_000 + b"{}]"),
    "a bomb of 100 MB": lambda: _make_small(b" " * (100 << 20)),
    "a layer set of a megabyte": partial(repeat_packed, 15_000, 200),
    "40,000 layers in 5,000 records": partial(repeat_packed, 40_000, 5_000),
    "text as version": lambda: _make_small(_put(SMALL, "schema_version", "x")),
    "negative inputs": partial(_make_changed, inputs=[-1]),
    "inputs beyond the end": partial(_make_changed, inputs=[2**70]),
    "a number as name": partial(_make_changed, fqn=3),
    "negative counts": partial(_make_changed, output_numel=-7),
    "a step of 2^62": partial(_make_small, step=2**62),
    "a step below 0": partial(_make_small, step=-(2**40)),
    "3,000 layer sets": partial(_repeat_sets, 2, 3_000, has_steps=False),
    "20 layer sets of a megabyte": partial(_repeat_sets, 10_000, 20, has_steps=True),
    "3,000 starts": partial(_make_starts, 3_000),
    "an end of 2^47 records": partial(
        _make_marks,
        RunHeader(DIGEST, 1e9),
        RunGap(DIGEST, 0, 2**46),
        RunEnd(DIGEST, records=2**47),
    ),
    "negative thresholds": _make_negative_thresholds,
    "60,000 small records": partial(repeat_packed, 1, 60_000),
}
"""What makes each file, below 10 MB."""

SLOW = {
    "600,000 empty frames",
    "ten million brackets",
    "a layer set of a megabyte",
    "40,000 layers in 5,000 records",
    "20 layer sets of a megabyte",
    "60,000 small records",
}
"""Those that take seconds to make or to judge."""
