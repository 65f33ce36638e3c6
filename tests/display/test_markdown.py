"""Markdown for pull requests and the Text tab: complete, and safe with any name."""

from __future__ import annotations

import dataclasses

import pytest

from gradwatch.display.markdown import escape_prose, write_finding, write_name, write_report
from gradwatch.verdict.findings import Verdict
from tests.display.samples import HOSTILE_NAMES, make_finding, make_layers, make_verdict


def test_report_says_what_why_and_what_to_do() -> None:
    text = write_report(make_verdict())
    assert text.startswith("## gradwatch `sigmoid`\n")
    for part in (
        "**`net.0` gets 3.8 million",
        "`activation_derivative`",
        "**Remedy:** Replace",
        "(critical, GW101)",
        "still so at step 450",
        "| `net.23` |",
    ):
        assert part in text


def test_healthy_report_is_short() -> None:
    text = write_report(make_verdict(24, 0, run="relu"))
    assert "✅ **No finding**" in text
    assert len(text.splitlines()) <= 5


def test_nothing_recorded_has_no_green_mark() -> None:
    assert "✅" not in write_report(Verdict())


def test_notes_are_listed() -> None:
    note = make_finding(severity="note", code="GW402")
    text = write_report(make_verdict(4, 0, notes=(note,), unseen=("attention",)))
    assert "- GW402: `net.0` gets" in text
    assert "- Not measured: attention" in text


def test_many_notes_are_counted() -> None:
    notes = tuple(make_finding(severity="note", code="GW401") for _ in range(40))
    text = write_report(make_verdict(4, 0, notes=notes))
    assert text.count("- GW401") == 5
    assert "- and 35 more" in text


def test_a_finding_alone() -> None:
    text = write_finding(make_finding(first_step=1200, last_step=3400))
    assert "**When:** Steps 1,200 to 3,400." in text


def test_a_finding_without_a_cause() -> None:
    assert "Cause" not in write_finding(make_finding(cause=None, kind="nonfinite"))


def test_a_long_list_of_layers_is_said_by_its_ends() -> None:
    names = tuple(f"net.{i}" for i in range(40))
    assert "**Layers:** 40 layers from `net.0` to `net.39`" in write_finding(make_finding(names))


@pytest.mark.parametrize("name", ["net.0", "block.0:tanh", "net.*.act", "cell#3", "[red]", "a_b_c"])
def test_a_plain_name_is_code(name: str) -> None:
    assert write_name(name) == f"`{name}`"


def test_prose_keeps_its_names_and_nothing_else() -> None:
    assert escape_prose("`a.b` is *bad* <b>") == "`a.b` is &#42;bad&#42; &#60;b&#62;"


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_becomes_markup_in_tensorboard(name: str) -> None:
    from tensorboard.plugin_util import markdown_to_safe_html

    layers = (dataclasses.replace(make_layers(1)[0], fqn=name, flagged=True),)
    finding = make_finding((name,), remedy=f"Change `{name}`, not {name}.")
    markdown = write_report(make_verdict(layers=layers, findings=(finding,), run=name))
    html = str(markdown_to_safe_html(markdown.encode()))
    assert "<script" not in html
    assert "<a " not in html
    (row,) = html.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    assert row.count("<td") == 6
