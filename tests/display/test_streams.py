"""What ``gradwatch check`` prints where somebody reads it: any encoding, width, colour or pipe."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from gradwatch.cli import main
from tests.pages.conftest import write_run

NAMES = {"chinese": "编码器层", "hebrew": "שכבה", "markup": "[bold]<b>`x`</b>"}


class Stream(io.TextIOWrapper):
    """Stdout of some encoding that is a terminal or a pipe."""

    def __init__(self, encoding: str, is_terminal: bool) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding=encoding, write_through=True)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("named")
    for kind, name in NAMES.items():
        write_run(root, kind, 5, 12, gain=0.02, naming=lambda index, name=name: f"{name}{index}")
    return root


def check(
    run: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, *, terminal: bool, **environment: str
) -> str:
    for name in ("NO_COLOR", "COLUMNS", "TERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "60", **environment}.items():
        monkeypatch.setenv(name, value)
    stream = Stream(encoding, terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["check", str(run)]) == 1
    return stream.raw_bytes.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("kind", list(NAMES))
def test_a_terminal_of_sixty_columns(
    logs: Path, monkeypatch: pytest.MonkeyPatch, kind: str, encoding: str
) -> None:
    text = check(logs / kind, monkeypatch, encoding, terminal=True, NO_COLOR="1")
    assert "\x1b[3" not in text  # no colour where somebody wants none
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "times less gradient than" in " ".join(plain.split())
    name = NAMES[kind].encode(encoding, "backslashreplace").decode(encoding)
    assert name in plain
    if encoding == "utf-8":
        assert max(map(len, plain.splitlines())) <= 60


def test_a_pipe_gets_plain_lines(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = check(logs / "markup", monkeypatch, "utf-8", terminal=False)
    assert "\x1b" not in text
    assert not any(line.endswith(" ") for line in text.splitlines())
    assert max(map(len, text.splitlines())) > 60
    assert "\x1b[" in check(logs / "markup", monkeypatch, "utf-8", terminal=True)
