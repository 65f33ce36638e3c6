"""Every example runs as its own first lines say, and says what it is there to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradwatch.log.writer import read_runs

EXAMPLES = Path(__file__).parents[1] / "examples"

# Example and arguments, exit status, what its output holds.
RUNS = [
    ("plain_loop.py", ["--activation", "sigmoid"], 0, "vanishing"),
    ("plain_loop.py", ["--activation", "relu"], 0, "every one of 12 weights learns"),
    ("cnn.py", [], 0, "healthy: True"),
    ("lightning_module.py", [], 0, "vanishing"),
    ("lightning_module.py", ["--fail"], 1, "UnhealthyGradients"),
]


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env=surroundings
    )


@pytest.mark.parametrize(("example", "arguments", "status", "shown"), RUNS)
def test_example(
    example: str, arguments: list[str], status: int, shown: str, tmp_path: Path
) -> None:
    logdir = tmp_path / "logs"
    done = _run([str(EXAMPLES / example), "--logdir", str(logdir), *arguments], tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode == status, output
    assert shown.lower() in output.lower()
    (run,) = read_runs(logdir)
    assert any(True for _ in run.records())


def test_example_of_a_test_in_ci(tmp_path: Path) -> None:
    example = EXAMPLES / "test_gradients.py"
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    done = _run([*arguments, str(example)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_every_example_is_run() -> None:
    run_here = {name for name, *_ in RUNS} | {"test_gradients.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == run_here
