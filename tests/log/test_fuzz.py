"""A few hundred mutated logs: one line, a status that is right, never a traceback."""

from __future__ import annotations

import pytest

from benchmarks.crafted_logs import MAKERS, SLOW
from benchmarks.fuzz_log import MUTATIONS, fuzz, judge


def test_mutated_logs(tmp_path) -> None:
    counts = fuzz(240, 7, tmp_path, every_apart=10**9)
    assert {name for name in counts if name.startswith("FAULT")} == set()
    assert all(counts[mutation.__name__] > 10 for mutation in MUTATIONS)
    assert min(counts["status 0"], counts["status 1"], counts["status 2"]) > 10


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in SLOW])
def test_crafted_files(tmp_path, name: str) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(MAKERS[name]())
    status, err, _ = judge(tmp_path)
    assert status == 2, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2
