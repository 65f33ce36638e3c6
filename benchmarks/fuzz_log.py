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
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.crafted_logs import MAKERS
from gradwatch.cli import main as run_cli
from gradwatch.log.event_file import make_frame
from gradwatch.log.writer import EventLog
from gradwatch.run_marks import RunDescription
from gradwatch.thresholds import Thresholds
from tests.display.trainings import make_training

LIMIT_BYTES = 256 << 20
LIMIT_SECONDS = 10.0
HEALTHY, UNHEALTHY = 1.0, 0.22  # gain of the activation in the trainings of the seeds


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
    for name, make in MAKERS.items():
        content = make()
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
