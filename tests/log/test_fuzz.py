"""A few hundred mutated logs: one line, a status that is right, never a traceback."""

from __future__ import annotations

import pytest

from benchmarks.fuzz_log import MUTATIONS, craft_files, fuzz, judge

SLOW = ("600,000", "40,000", "20 layer", "a layer set", "60,000 small", "ten million")


def test_mutated_logs(tmp_path) -> None:
    counts = fuzz(240, 7, tmp_path, every_apart=10**9)
    assert {name for name in counts if name.startswith("FAULT")} == set()
    assert all(counts[mutation.__name__] > 10 for mutation in MUTATIONS)
    assert min(counts["status 0"], counts["status 1"], counts["status 2"]) > 10


@pytest.mark.parametrize(
    ("name", "content"),
    [pair for pair in craft_files() if not pair[0].startswith(SLOW)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_crafted_files(tmp_path, name: str, content: bytes) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(content)
    status, err, _ = judge(tmp_path)
    assert status == 2, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2
