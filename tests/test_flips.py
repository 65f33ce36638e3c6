"""What seeds change in the result of ``gradwatch.check``, as docs/ci.md claims it."""

from __future__ import annotations

from benchmarks.flips import MODELS, PAGE, SEEDS, fill_page, judge, read_rows


def test_stored_results_cover_the_models() -> None:
    assert [(row.name, row.label) for row in read_rows()] == [
        (model.name, model.label) for model in MODELS
    ]


def test_page_is_made_from_the_stored_results() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert fill_page(text, read_rows()) == text, "run: python -m benchmarks.flips --save"


def test_stored_results_show_what_is_claimed() -> None:
    for row in read_rows():
        flips = row.count_flips(row.red), row.count_flips(row.red_by_vote)
        assert flips == (0, 0) if row.label else max(flips) <= SEEDS // 5, row


def test_one_row_is_as_it_is_stored() -> None:
    """The one that used to flip: units that biases have silenced by chance."""
    model = next(model for model in MODELS if "ReLU, torch's init; Adam" in model.name)
    assert judge(model, 1, 1).healthy
