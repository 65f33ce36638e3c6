"""What the docs say of the package is what the package says of itself."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from gradwatch.cli import main
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rule import Rule
from gradwatch.verdict.rules import DEFAULT_RULES

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> dict[str, Any]:
    return run_path(str(DOCS / "generate.py"))


def test_rule_pages_are_up_to_date(generate: dict[str, Any]) -> None:
    assert generate["find_stale"]() == [], "run: python docs/generate.py"


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.code)
def test_explain_prints_the_page(
    rule: Rule, generate: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    page = generate["build_pages"]()[f"rules/{rule.code}.md"]
    assert main(["explain", rule.code]) == 0
    assert page.endswith(f"\n\n{capsys.readouterr().out.strip()}\n")


def test_each_threshold_is_documented_once() -> None:
    docs = "\n".join(topic.__doc__ or "" for topic in Thresholds.__mro__)
    heads = re.findall(r"^ {8}(\w+(?:, \w+)*): ", docs, re.MULTILINE)
    names = sorted(name for head in heads for name in head.split(", "))
    assert names == sorted(["InvalidInput", *(field.name for field in fields(Thresholds))])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_in_the_docs_is_python(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        compile(block, str(page), "exec")


def test_arrows_are_drawn_as_the_contract_has_them() -> None:
    drawing = run_path(str(DOCS / "draw.py"))["draw_architecture"]()
    assert drawing == (DOCS / "images" / "architecture.svg").read_text(encoding="utf-8")
