"""Mutated and crafted event files through ``gradwatch check``: counts what must never happen.

    python -m benchmarks.fuzz_log --mutations 5000

Each file is judged in this process, whose memory is limited and whose peak is read; a sample goes
through the command line in a process of its own. Wrong are: a traceback or another status than 0,
1 or 2; status 0 for a file that lost or gained anything of gradwatch's (a file that the mutation
left whole, or whose unfinished rest was cut, is known from the seed's own status); more than one
line per run on stderr; more than 256 MB; more than 10 s.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2

from gradwatch.cli import main as run_cli
from gradwatch.log import summaries
from gradwatch.log.checksums import crc32c, masked
from gradwatch.log.event_file import make_frame
from gradwatch.log.writer import EventLog
from gradwatch.records import LayerSet, StepRecord
from gradwatch.run_marks import RunDescription, RunEnd, RunGap, RunHeader
from gradwatch.thresholds import Thresholds
from tests.display.trainings import make_training

LIMIT_BYTES = 256 << 20
LIMIT_SECONDS = 10.0
HEALTHY, UNHEALTHY = 1.0, 0.22  # gain of the activation in the trainings of the seeds
EVENT = event_pb2.Event(file_version="brain.Event:2", wall_time=1.0)


def write_seed(folder: Path, gain: float = HEALTHY, steps: int = 30, marks: bool = True) -> Path:
    """A small log as gradwatch writes it."""
    log = EventLog(folder)
    if marks:
        log.begin(Thresholds(), RunDescription(model="Sequential"))
    for record in list(make_training(gain))[:steps]:
        log.write_record(record)
        log.write_scalars(record.global_step, {"gradwatch/log10_attenuation": -1.0})
    log.write_text(29, "gradwatch/verdict", "**a verdict**")
    if marks:
        log.end("detached", "", steps)
    log.close()
    (path,) = folder.glob("*tfevents*")
    return path


# Mutations ----------------------------------------------------------------------------------------


def split_frames(content: bytes) -> list[bytes]:
    """The frames of a sound file."""
    found, position = [], 0
    while position < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        found.append(content[position : position + length + 16])
        position += length + 16
    return found


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    """One to four bits the other way."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(content: bytes, rng: random.Random) -> bytes:
    """The end cut off."""
    return content[: rng.randrange(len(content))]


def splice(content: bytes, rng: random.Random) -> bytes:
    """A piece taken out, or put elsewhere."""
    first, second = sorted(rng.randrange(len(content)) for _ in range(2))
    piece = content[first:second]
    rest = content[:first] + content[second:]
    place = rng.randrange(len(rest) + 1)
    return rest if rng.random() < 0.5 else rest[:place] + piece + rest[place:]


def drop_frame(content: bytes, rng: random.Random) -> bytes:
    """One whole frame taken out."""
    frames = split_frames(content)
    del frames[rng.randrange(len(frames))]
    return b"".join(frames)


def duplicate_frame(content: bytes, rng: random.Random) -> bytes:
    """One whole frame twice."""
    frames = split_frames(content)
    frames.insert(rng.randrange(len(frames)), rng.choice(frames))
    return b"".join(frames)


def forge(content: bytes, rng: random.Random) -> bytes:
    """Bytes of one frame changed, with a checksum that fits: what no checksum can tell."""
    frames = split_frames(content)
    place = rng.randrange(len(frames))
    data = bytearray(frames[place][12:-4])
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    frames[place] = make_frame(bytes(data))
    return b"".join(frames)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    truncate,
    splice,
    drop_frame,
    duplicate_frame,
    forge,
)


def may_pass(seed: bytes, content: bytes, mutation: str) -> bool:
    """Whether the status of the untouched log is right for this one too."""
    if mutation == "forge":  # a forged file may be a sound log of something else
        return True
    keep = {frame for frame in split_frames(seed) if is_evidence(frame)}
    try:
        found = set(split_frames(content))
    except struct.error:
        found = set()
    return keep <= found


def is_evidence(frame: bytes) -> bool:
    """Whether a frame holds a record or a mark, and not words or scalars beside them."""
    return any(
        word in frame for word in (b"gradwatch/record", b"gradwatch/start", b"gradwatch/end")
    )


# Crafted files ------------------------------------------------------------------------------------


def make_event(step: int, *values: summary_pb2.Summary.Value) -> bytes:
    """One frame."""
    summary = summary_pb2.Summary(value=values)
    return make_frame(
        event_pb2.Event(wall_time=1e9, step=step, summary=summary).SerializeToString()
    )


def make_record_event(
    text: bytes, vector: np.ndarray, step: int = 0, digest: str = "0" * 8
) -> bytes:
    """A record with any layer set and any numbers."""
    values = np.asarray(vector, dtype=np.float32)
    content = zlib.compress(text)
    return make_event(
        step, summaries._tensor_value(summaries.RECORD_PREFIX + digest, values, content)
    )


def make_set(n_layers: int, **changes: object) -> bytes:
    """JSON of a layer set of plain layers, with fields changed."""
    layers = [{"fqn": f"n.{i}", "role": "weight", "inputs": [], **changes} for i in range(n_layers)]
    return json.dumps({**json.loads(LayerSet().to_json()), "layers": layers}).encode()


def repeat_packed(n_layers: int, n_records: int) -> bytes:
    """Records of some bytes each that unpack to ``n_layers`` numbers a row."""
    text = make_set(n_layers)
    packed = pack_equal(text)
    return b"".join(make_record_event(text if i == 0 else b"", packed, i) for i in range(n_records))


def pack_equal(text: bytes) -> np.ndarray:
    """The shortest record of a layer set: all rows of equal numbers."""
    layer_set = LayerSet.from_json(text.decode())
    sizes = (len(summaries_sizes()[0]), len(layer_set.layers)), (summaries_sizes()[1], 0)
    blank = StepRecord(
        0,
        layer_set,
        np.ones(sizes[0]),
        np.ones(sizes[1]),
        np.ones(summaries_sizes()[2]),
    )
    return blank.to_vector()


def summaries_sizes() -> tuple[tuple[str, ...], int, int]:
    """Rows of layers, of parameters, and of steps."""
    from gradwatch import records

    names = records.LAYER_STATISTICS
    return names, len(records.PARAM_STATISTICS), len(records.STEP_STATISTICS)


def craft_files() -> Iterator[tuple[str, bytes]]:
    """Name and content of files that were made to do harm; each below 10 MB."""
    begin = make_frame(EVENT.SerializeToString())
    small = make_set(2)
    good = pack_equal(small)
    yield "empty", b""
    yield "zeros", bytes(1 << 20)
    yield (
        "length of 2^63",
        struct.pack("<Q", 2**63) + struct.pack("<I", masked(crc32c(struct.pack("<Q", 2**63)))),
    )
    yield "600,000 empty frames", begin + make_frame(b"") * 600_000
    yield "NaN as mask", begin + make_record_event(small, [good[0], np.nan, *good[2:]])
    yield "infinite mask", begin + make_record_event(small, [good[0], np.inf, *good[2:]])
    yield "negative mask", begin + make_record_event(small, [good[0], -5, *good[2:]])
    yield "deep JSON", begin + make_record_event(b"[" * 5_000_000, good)
    yield (
        "ten million brackets",
        begin + make_record_event(b"[" + b"{}," * 3_000_000 + b"{}]", good),
    )
    yield "a bomb of 100 MB", begin + make_record_event(b" " * (100 << 20), good)
    yield "a layer set of a megabyte", begin + repeat_packed(15_000, 200)
    yield "40,000 layers in 5,000 records", begin + repeat_packed(40_000, 5_000)
    yield (
        "text as version",
        begin
        + make_record_event(small.replace(b'"schema_version": 3', b'"schema_version": "x"'), good),
    )
    yield "negative inputs", begin + make_record_event(make_set(2, inputs=[-1]), good)
    yield "inputs beyond the end", begin + make_record_event(make_set(2, inputs=[2**70]), good)
    yield "a number as name", begin + make_record_event(make_set(2, fqn=3), good)
    yield "negative counts", begin + make_record_event(make_set(2, output_numel=-7), good)
    yield "a step of 2^62", begin + make_record_event(small, good, 2**62)
    yield "a step below 0", begin + make_record_event(small, good, -(2**40))
    yield (
        "3,000 layer sets",
        begin + b"".join(make_record_event(small, good, 0, f"{i:08x}") for i in range(3_000)),
    )
    yield (
        "20 layer sets of a megabyte",
        begin
        + b"".join(
            make_record_event(make_set(10_000), pack_equal(make_set(10_000)), i, f"{i:08x}")
            for i in range(20)
        ),
    )
    marks = [RunHeader(f"{i:08x}", 1e9) for i in range(3_000)]
    yield (
        "3,000 starts",
        begin + b"".join(make_event(0, summaries.summarise_mark(m)) for m in marks),
    )
    yield (
        "an end of 2^47 records",
        begin
        + b"".join(
            make_event(0, summaries.summarise_mark(mark))
            for mark in (
                RunHeader("0" * 8, 1e9),
                RunGap("0" * 8, 0, 2**46),
                RunEnd("0" * 8, records=2**47),
            )
        ),
    )
    negative = summaries.summarise_mark(RunHeader("0" * 8, 1e9))
    negative.tensor.string_val[0] = negative.tensor.string_val[0].replace(
        b'"persistence":3', b'"persistence":-3'
    )
    yield "negative thresholds", begin + make_event(0, negative) + make_record_event(small, good)
    yield (
        "60,000 small records",
        begin
        + b"".join(
            make_record_event(make_set(1) if i == 0 else b"", pack_equal(make_set(1)), i)
            for i in range(60_000)
        ),
    )


# Judging ------------------------------------------------------------------------------------------


def judge(folder: Path) -> tuple[object, str, float]:
    """Status, stderr and seconds of ``check`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    began = time.perf_counter()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: object = run_cli(["check", str(folder)])
    except BaseException as error:
        status = type(error).__name__
    return status, err.getvalue(), time.perf_counter() - began


def judge_apart(folder: Path) -> tuple[object, str, float, int]:
    """Likewise in a process of its own, with its peak memory in bytes."""
    code = (
        "import sys; from gradwatch.cli import main; s = main(sys.argv[1:]); "
        "peak = [line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1]; "
        "print(int(peak) * 1024, file=sys.stderr); sys.exit(s)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "check", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    *lines, peak = done.stderr.splitlines() or ["0"]
    peak_bytes = int(peak) if peak.isdecimal() else 0
    return done.returncode, "\n".join(lines), time.perf_counter() - began, peak_bytes


def find_faults(status: object, err: str, seconds: float) -> Iterator[str]:
    """What must never happen."""
    if status not in (0, 1, 2):
        yield f"status {status}"
    if "Traceback" in err:
        yield "traceback"
    if seconds > LIMIT_SECONDS:
        yield "slow"


def fuzz(n_mutations: int, seed: int, root: Path, every_apart: int = 500) -> Counter[str]:
    """Judge mutated logs; counts faults, statuses and mutations."""
    rng = random.Random(seed)
    seeds = {
        gain: write_seed(root / f"seed{gain}", gain).read_bytes() for gain in (HEALTHY, UNHEALTHY)
    }
    counts: Counter[str] = Counter()
    folder = root / "mutated"
    for place in range(n_mutations):
        gain, mutation = rng.choice(tuple(seeds)), rng.choice(MUTATIONS)
        content = mutation(seeds[gain], rng)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "events.out.tfevents.1.host.1.gradwatch.0").write_bytes(content)
        status, err, seconds = judge(folder)
        faults = list(find_faults(status, err, seconds))
        is_right = gain == HEALTHY and may_pass(seeds[gain], content, mutation.__name__)
        if status == 0 and mutation is not forge and not is_right:
            faults.append("wrong status")
        if place % every_apart == 0:
            apart, err, seconds, peak = judge_apart(folder)
            faults += find_faults(apart, err, seconds)
            faults += ["memory"] * (peak > LIMIT_BYTES) + ["wrong status"] * (apart != status)
            counts["apart"] += 1
        counts.update(
            [f"status {status}", mutation.__name__, *(f"FAULT {fault}" for fault in faults)]
        )
        if faults:
            print(place, mutation.__name__, gain, status, faults, err[-300:], flush=True)
    return counts


def try_crafted(root: Path) -> Counter[str]:
    """Judge crafted files, each in a process of its own."""
    counts: Counter[str] = Counter()
    for name, content in craft_files():
        folder = root / "crafted"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "events.out.tfevents.1").write_bytes(content)
        status, err, seconds, peak = judge_apart(folder)
        faults = list(find_faults(status, err, seconds)) + ["memory"] * (peak > LIMIT_BYTES)
        faults += ["lines"] * (len(err.splitlines()) > 3)
        print(
            f"{name:<34} {len(content) / 1e6:6.2f} MB  status {status}  {seconds:5.1f} s  "
            f"{peak / 1e6:4.0f} MB  {err.splitlines()[-1][:90] if err else ''}  {faults or ''}",
            flush=True,
        )
        counts.update(["crafted", *(f"FAULT {fault}" for fault in faults)])
    return counts


def main() -> None:
    """Run both, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-crafted", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        counts = Counter() if options.skip_crafted else try_crafted(root)
        counts += fuzz(options.mutations, options.seed, root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak of this process: {peak / 1e6:.0f} MB", *sorted(counts.items()), sep="\n")
    os._exit(any(name.startswith("FAULT") for name in counts) or peak > LIMIT_BYTES)


if __name__ == "__main__":
    main()
