"""The page of public models is that of the stored runs, and says what has hardly learned."""

from __future__ import annotations

import json

from benchmarks.public_models import PAGE, RESULTS, Row, write_page


def test_the_page_is_that_of_the_stored_runs() -> None:
    rows = [Row(**row) for row in json.loads(RESULTS.read_text(encoding="utf-8"))]
    assert PAGE.read_text(encoding="utf-8") == write_page(rows)
    assert len({row.model for row in rows}) >= 30


def test_a_loss_that_hardly_fell_is_said_to_have() -> None:
    row = Row("Net", "package", "1.0", 50, 100, 2.3, 2.2, "healthy")
    assert not row.learned
    assert "hardly learned" in write_page([row])
    assert Row("Flow", "package", "1.0", 50, 100, -1.0, -1.2, "healthy").learned
