"""What docstrings show is run: every example in the package, with the output that it claims."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import gradwatch

HOME = Path(gradwatch.__file__).parent
MODULES = [
    ".".join(path.relative_to(HOME.parent).with_suffix("").parts)
    for path in sorted(HOME.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_show_what_comes_out(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted
    assert not result.failed, "see what is printed above"
