"""What docs/architecture.md says of the rooms is what the rooms are."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradwatch"
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = dict(re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", TEXT, re.MULTILINE))
HOMES = re.findall(r"\| `(gradwatch[\w.]*):(\w+)` \|$", TEXT, re.MULTILINE)
EXISTING = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
STATEMENTS = {
    "Capture and evidence never import each other": (
        "tests/test_architecture.py::test_capture_and_evidence_do_not_know_each_other",
    ),
    "The reading side never imports torch": ("tests/test_architecture.py::test_what_loads_torch",),
    "Judging has one home": (
        "tests/test_architecture.py::test_one_doctor_judges_everywhere",
        "tests/log/test_marks.py::test_live_and_log_and_tab_and_page_agree",
    ),
    "Before forward, the schedule says": (
        "tests/capture/test_cost.py::test_between_samples_there_is_one_hook_on_the_optimizer",
    ),
    "Forward reaches the layers": (
        "tests/capture/test_functions.py::test_every_spelling_is_seen_once_and_harmless",
        "tests/capture/test_plan.py::test_a_network_gives_the_same_records",
        "tests/capture/test_plan.py::test_another_way_costs_one_record_and_is_followed",
    ),
    "Backward reaches the output tensors": (
        "tests/capture/test_statistics.py::test_norms",
        "tests/capture/test_cost.py::test_nothing_waits_for_the_device",
    ),
    "The optimizer's step hook reads": (
        "tests/capture/test_loss_change.py::test_loss_change_and_loss",
        "tests/capture/test_statistics.py::test_updates_leave_decay_out",
    ),
    "All values go to the host in one copy": (
        "tests/capture/test_cost.py::test_one_transfer_for_each_sampled_step",
        "tests/capture/test_sampling_budget.py::test_unsampled_steps_stay_free_of_hooks",
    ),
    "The `Doctor` observes the record": (
        "tests/test_words_on_the_way.py::test_a_finding_that_begins_is_said_once",
        "tests/log/test_writer.py::test_every_number_and_name_comes_back",
    ),
}
"""The tests that execute what the page says besides its tables, by how each statement begins."""

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


LOADING = """
import json, pkgutil, sys
from importlib import import_module
from importlib.machinery import ModuleSpec


class Refusal:
    # A loader of torch that notes being asked and loads nothing.
    asked = False

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition(".")[0] == "torch" else None

    def create_module(self, spec):
        self.asked = True
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    def exec_module(self, module):
        pass


def loads(name):
    refusal.asked = False
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "gradwatch"]:
        del sys.modules[loaded]
    try:
        room = import_module("gradwatch." + name)
        for found in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
            import_module(found.name)
    except Exception:
        if not refusal.asked:
            raise
    return "yes" if refusal.asked else "no"


refusal = Refusal()
sys.meta_path.insert(0, refusal)
print(json.dumps({name: loads(name) for name in sys.argv[1:]}))
"""
"""For the rooms named on its command line: whether importing them and all in them loads torch.

Those that do not come first: what they import of others is loaded for the first time then.
"""


@pytest.fixture(scope="module")
def loading() -> dict[str, str]:
    """By room, in an interpreter of their own."""
    rooms = [room for room in ROOMS if find_spec(NEEDS.get(room, "numpy"))]
    rooms.sort(key=lambda room: ROOMS[room])
    command = [sys.executable, "-c", LOADING, *rooms]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("room", "loads"), ROOMS.items())
def test_what_loads_torch(room: str, loads: str, loading: dict[str, str]) -> None:
    if room not in loading:
        pytest.skip(f"needs {NEEDS[room]}")
    assert loading[room] == loads


def list_statements() -> list[str]:
    """What stands in bold, and the items of numbered lists."""
    return re.findall(r"^(?:\*\*|\d\. )(.*)", TEXT, re.MULTILINE)


def test_each_statement_is_executed_by_a_test() -> None:
    said = list_statements()
    assert len(said) == len(STATEMENTS)
    for statement, beginning in zip(said, STATEMENTS, strict=True):
        assert statement.startswith(beginning)


@pytest.mark.parametrize("test", [test for tests in STATEMENTS.values() for test in tests])
def test_the_test_of_a_statement_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_one_doctor_judges_everywhere() -> None:
    callers = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\b(Doctor|diagnose)\(", path.read_text(encoding="utf-8"))
    }
    assert callers == {"run_judgement", "live_judgement", "tensorboard_plugin", "verdict"}


@pytest.mark.parametrize(("module", "name"), HOMES)
def test_what_is_added_has_the_home_that_is_said(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)


def test_the_table_of_homes_was_found() -> None:
    assert len(HOMES) == 9
