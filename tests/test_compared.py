"""What ``gradwatch compare`` says of seeds and of planted changes, as docs/ci.md claims it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.compared import (
    CHANGES,
    NETWORKS,
    PAGE,
    SEEDS,
    compare,
    fill_page,
    read_rows,
    train,
)


def test_stored_results_cover_the_changes_and_are_on_the_page() -> None:
    rows = read_rows()
    assert [row.change for row in rows if row.change] == [change.name for change in CHANGES]
    assert sum(row.compared for row in rows if not row.change) == len(NETWORKS) * (SEEDS - 1)
    text = PAGE.read_text(encoding="utf-8")
    assert fill_page(text, rows) == text, "run: python -m benchmarks.compared --save"


def test_stored_results_show_what_is_claimed() -> None:
    for row in read_rows():
        expected = row.compared if row.change else 0
        assert (row.red, row.right) == (expected, expected), row


def test_a_cut_is_red_as_it_is_stored(tmp_path: Path) -> None:
    change = CHANGES[0]
    network = NETWORKS[change.network]
    train(network, 0, tmp_path / "before")
    train(network, 100, tmp_path / "after", change)
    row = compare([(tmp_path / "before", tmp_path / "after")], network, change)
    assert (row.red, row.right) == (1, 1)
