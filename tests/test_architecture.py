"""What docs/architecture.md says of the rooms is what the rooms are."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradwatch"
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = dict(re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", TEXT, re.MULTILINE))
HOMES = re.findall(r"\| `(gradwatch[\w.]*):(\w+)` \|$", TEXT, re.MULTILINE)
EXISTING = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
NEEDS = {"lightning": "lightning", "transformers": "transformers"}


@cache
def read_rows() -> list[list[str]]:
    """Rooms by row of the contract, the outermost first."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["importlinter:contract:arrows"]["layers"].split("\n")
    return [re.findall(r"\w+", line) for line in lines if line.strip()]


def find_imports(room: str) -> set[str]:
    """Rooms that a room's files import anywhere, under TYPE_CHECKING and in functions too."""
    path = PACKAGE / room
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[1] for name in names if name.startswith("gradwatch.")}
    return found - {room}


def test_every_room_is_in_the_table() -> None:
    assert set(ROOMS) == EXISTING - {"__init__", "__main__", "__pycache__", "py"}


def test_the_table_follows_the_contract() -> None:
    assert set(ROOMS) == {name for row in read_rows() for name in row} - {"__main__"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_stands_below(room: str) -> None:
    rows = read_rows()
    own = next(place for place, row in enumerate(rows) if room in row)
    assert find_imports(room) <= {name for row in rows[own + 1 :] for name in row}


def test_capture_and_evidence_do_not_know_each_other() -> None:
    assert "evidence" not in find_imports("capture")
    assert "capture" not in find_imports("evidence")


@pytest.mark.parametrize(("room", "loads"), ROOMS.items())
def test_what_loads_torch(room: str, loads: str) -> None:
    pytest.importorskip(NEEDS.get(room, "numpy"))
    code = (
        "import pkgutil, sys\nfrom importlib import import_module\n"
        f"room = import_module('gradwatch.{room}')\n"
        "for one in pkgutil.walk_packages(getattr(room, '__path__', []), room.__name__ + '.'):\n"
        "    import_module(one.name)\n"
        "print('yes' if 'torch' in sys.modules else 'no')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == loads


def test_one_doctor_judges_everywhere() -> None:
    callers = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\b(Doctor|diagnose)\(", path.read_text(encoding="utf-8"))
    }
    assert callers == {"judgement", "live_judgement", "tensorboard_plugin", "verdict"}


@pytest.mark.parametrize(("module", "name"), HOMES)
def test_what_is_added_has_the_home_that_is_said(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)


def test_the_table_of_homes_was_found() -> None:
    assert len(HOMES) == 9
