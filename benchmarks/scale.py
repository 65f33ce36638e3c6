"""What a sampled step sends between ranks, and what it costs them: ``python -m benchmarks.scale``.

Made records of a chain with activations are exchanged by 2, 4 and 8 gloo processes as those of a
training are, one sampled step after another. Printed are the bytes of a message and the processor
time of a sampled step on rank 0, which merges, and on the others; and a line through the times by
the number of ranks. Processor time, because the processes may outnumber the cores.
``--save`` keeps the figures for ``docs/scale.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.results import fill_between
from gradwatch.capture.rank_messages import LayerSets
from gradwatch.capture.ranks import RankMerger
from gradwatch.log.writer import EventLog
from gradwatch.records import StepRecord
from tests.pages.synthetic import make_layer_set, make_records

RESULTS = Path(__file__).parent / "results" / "scale.json"
BEGIN, END = "<!-- benchmarks.scale -->", "<!-- end -->"
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
WORLDS = (2, 4, 8)
LAYERS = (50, 500)
STEPS = 40
"""Sampled steps; the first is left out, in which the sets of layers travel too."""


def exchange_records(rank: int, world: int, port: int, n_layers: int, folder: str) -> None:
    """One process: exchanges made records, and writes its seconds of each step."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    merger = RankMerger()
    merger.is_wanted = True
    assert merger.connect(["model.weight"])
    records = list(make_records(make_layer_set(n_layers), list(range(STEPS))))
    seconds = []
    for step, record in enumerate(records):
        began = time.process_time()
        merger.put(step, record, (1,) * n_layers)
        list(merger.collect(is_last=False))
        seconds.append(time.process_time() - began)
        dist.barrier()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(statistics.median(seconds[1:])))
    dist.barrier()
    dist.destroy_process_group()


def measure_exchange(world: int, n_layers: int) -> tuple[float, float]:
    """Milliseconds of a sampled step: on rank 0, and on the slowest of the others."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(exchange_records, (world, port, n_layers, folder), nprocs=world)
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world)]
    return 1e3 * found[0], 1e3 * max(found[1:])


class Unsent:
    """Takes what would be sent, for its size."""

    def put(self, key: str, content: bytes) -> None:
        """Nothing is sent.

        Args:
            key: of the message.
            content: of the message.
        """


def weigh_message(record: StepRecord) -> int:
    """Bytes that a rank sends for a sampled step, once its set of layers is known."""
    sets = LayerSets()
    sets.encode(record, Unsent())  # type: ignore[arg-type]
    return len(sets.encode(record, Unsent()))  # type: ignore[arg-type]


def weigh_log(records: list[StepRecord]) -> float:
    """Bytes of the event log for each record beyond the first."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder))
        log.write_record(records[0])
        log.flush()
        before = sum(file.stat().st_size for file in Path(folder).iterdir())
        for record in records[1:]:
            log.write_record(record)
        log.close()
        after = sum(file.stat().st_size for file in Path(folder).iterdir())
    return (after - before) / (len(records) - 1)


def measure() -> list[dict[str, float]]:
    """A row for each number of layers."""
    rows = []
    for n_layers in LAYERS:
        records = list(make_records(make_layer_set(n_layers), list(range(10))))
        row: dict[str, float] = {
            "layers": n_layers,
            "calls": len(records[0].layer_set.layers),
            "message_bytes": weigh_message(records[0]),
            "log_bytes": round(weigh_log(records)),
        }
        times = {world: measure_exchange(world, n_layers) for world in WORLDS}
        for world, (first, other) in times.items():
            row[f"first_ms_{world}"] = round(first, 2)
            row[f"other_ms_{world}"] = round(other, 2)
        slope, level = np.polyfit(
            [world - 1 for world in WORLDS], [first for first, _ in times.values()], 1
        )
        row |= {"first_ms_per_rank": round(float(slope), 3), "first_ms": round(float(level), 2)}
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def write_rows(rows: list[dict[str, float]]) -> str:
    """The table of ``docs/scale.md``."""
    heads = ["layers", "watched calls", "a message", "a record in the log"]
    heads += [f"rank 0 of {world}" for world in WORLDS]
    heads += ["rank 0, fitted", f"others of {WORLDS[-1]}"]
    lines = [heads, ["---:"] * len(heads)]
    lines += [
        [
            f"{row['layers']:,}",
            f"{row['calls']:,}",
            f"{row['message_bytes'] / 1e3:,.0f} kB",
            f"{row['log_bytes'] / 1e3:,.1f} kB",
            *(f"{row[f'first_ms_{world}']:.1f} ms" for world in WORLDS),
            f"{row['first_ms']:.1f} ms + {row['first_ms_per_rank']:.2f} ms per further rank",
            f"{row[f'other_ms_{WORLDS[-1]}']:.1f} ms",
        ]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, print, and save where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name} and the page")
    options = parser.parse_args()
    rows = measure()
    table = write_rows(rows)
    print(table)
    if options.save:
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        page = fill_between(PAGE.read_text(encoding="utf-8"), BEGIN, END, table)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
