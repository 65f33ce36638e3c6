"""The terminal's view: what it says first, at any width, whatever the names."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from gradwatch.display.terminal import render_report, write_text
from gradwatch.report import Report
from gradwatch.verdict.findings import Verdict, announce
from tests.display.samples import HOSTILE_NAMES, make_finding, make_layers, make_verdict


def draw(
    verdict: Verdict, width: int = 80, encoding: str = "utf-8", color: bool = False, **options
):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, width=width, force_terminal=color, legacy_windows=False)
    console.print(render_report(verdict, **options))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_the_headline_comes_first_then_cause_remedy_and_table() -> None:
    text = write_text(make_verdict())
    lines = text.splitlines()
    assert lines[0].startswith("✗ sigmoid: net.0 gets 3.8 million times less gradient than net.22")
    order = ["CRITICAL", "Cause", "Remedy", "Gradient", "net.23"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert "activation_derivative" in text
    assert "by ReLU and initialise with He" in text


def test_a_healthy_run_is_one_line() -> None:
    text = write_text(make_verdict(24, 0, run="relu"))
    assert text == "✓ relu: No finding  (19 recorded, steps 0 to 450)"


def test_a_healthy_run_shows_its_table_when_asked() -> None:
    text = draw(make_verdict(20, 0), table=True)
    assert all(f"net.{i} " in text for i in range(20))
    assert "what the layer multiplies it by" in text.replace("\n", " ")  # what the columns mean


def test_a_table_has_twenty_rows_unless_more_are_asked_for() -> None:
    verdict = make_verdict(60, 5)
    assert write_text(verdict).count("net.") < write_text(verdict, max_rows=60).count("net.")
    assert all(f"net.{i} " in write_text(verdict, max_rows=60) for i in range(60))


def test_a_report_is_short_and_says_who_speaks_and_where_to_look() -> None:
    report = dataclasses.replace(Report.from_verdict(make_verdict(60, 5)), logdir="runs/a")
    assert len(repr(report)) < 200
    assert "unhealthy" in repr(report)
    assert str(report).endswith("gradwatch: see the gradwatch tab: tensorboard --logdir runs/a")
    said = announce(report.findings, 40, "runs")
    assert said.startswith("gradwatch: 1 finding at step 40: ")
    assert said.endswith("See the gradwatch tab: tensorboard --logdir runs")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("name", ["编码器.层", "שכבה", "[bold]<b>`x`", "a\x1b[31m"])
def test_any_name_can_be_printed_in_any_encoding(encoding: str, name: str) -> None:
    finding = make_finding(layers=(name,), message=f"`{name}` gets no gradient.")
    verdict = Verdict((finding,), records=9, last_step=9, run=name)
    for width in (60, 100):
        text = Report.from_verdict(verdict).to_text(encoding=encoding)
        assert text.encode(encoding)
        assert "\x1b" not in write_text(verdict, width=width, encoding=encoding)


def test_nothing_recorded_is_no_pass() -> None:
    text = write_text(Verdict())
    assert text == "! No training step has been recorded yet"


def test_notes_and_blind_spots_are_said() -> None:
    note = make_finding(severity="note", code="GW402", message="10 % of `net.3` are dead.")
    text = write_text(make_verdict(4, 0, notes=(note,), unseen=("attention in `block`",)))
    assert "Note (GW402): 10 % of net.3 are dead." in text
    assert "Not measured: attention in `block`" in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("n_layers", [3, 24, 500])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width, n_layers) -> None:
    text = draw(make_verdict(n_layers, n_layers // 2 + 1), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "1.0e-08" in text
    assert "1.2e-03" in text
    assert len(text.splitlines()) < 50


def test_many_findings_are_counted_not_printed() -> None:
    verdict = make_verdict(findings=tuple(make_finding() for _ in range(40)))
    text = write_text(verdict)
    assert text.count("CRITICAL") == 12
    assert "28 more findings" in text


def test_many_notes_are_counted_not_printed() -> None:
    notes = tuple(make_finding(severity="note", code="GW401") for _ in range(40))
    text = write_text(make_verdict(4, 0, notes=notes))
    assert text.count("Note (GW401)") == 5
    assert "35 more notes" in text


def test_hostile_names_are_shown_as_they_are() -> None:
    layers = tuple(
        dataclasses.replace(layer, fqn=name, flagged=True)
        for layer, name in zip(make_layers(len(HOSTILE_NAMES)), HOSTILE_NAMES, strict=True)
    )
    verdict = make_verdict(layers=layers, findings=(make_finding(HOSTILE_NAMES),))
    text = draw(verdict, 120)
    for name in ("[red]bold[/red]", "<script>alert(1)</script>", "naïve.層.слой", "two\\nlines"):
        assert name in text
    assert "\x1b" not in text


def test_ascii_terminal_gets_ascii() -> None:
    text = draw(make_verdict(), 120, encoding="ascii")
    assert text.startswith("X sigmoid: net.0")
    assert "####" in text


def test_colour_only_where_there_is_any() -> None:
    assert "\x1b[1;31m" in draw(make_verdict(), color=True)
    assert "\x1b[" not in write_text(make_verdict())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_the_text_fits_any_stream(encoding: str) -> None:
    """A terminal or a file of an older code page must not raise at the end of a training."""
    verdict = make_verdict(run="模型 ✓")
    text = write_text(verdict, encoding=encoding)
    text.encode(encoding)
    assert ("✗" in text) == (encoding == "utf-8")
    assert "net.0" in text
