"""What loads torch and what must not: proven in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from gradwatch.log.writer import EventLog
from tests.display.trainings import make_training

HEAVY = ("torch", "lightning", "pytorch_lightning", "transformers", "tensorflow", "plotly")


def find_heavy(code: str) -> str:
    """Run code in a fresh interpreter; answers the heavy packages that it loaded."""
    report = f"import sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def call_main(*arguments: str) -> str:
    return (
        f"from gradwatch.cli import main\ntry: main({list(arguments)!r})\nexcept SystemExit: pass"
    )


@pytest.fixture(scope="module")
def logdir(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("logs")
    log = EventLog(path)
    for record in make_training(0.22):
        log.write_record(record)
    log.close()
    return str(path)


def test_the_probe_sees_torch() -> None:
    if find_spec("torch") is None:
        pytest.skip("needs torch")
    assert find_heavy("import torch") == "torch"


@pytest.mark.parametrize(
    "code",
    [
        "import gradwatch",
        "import gradwatch; gradwatch.Finding, gradwatch.Thresholds, gradwatch.Report",
        "import gradwatch, gradwatch.display.trial_table; gradwatch.Trial",
        "import gradwatch.log.writer, gradwatch.display.terminal, gradwatch.display.markdown",
        call_main("--help"),
        call_main("--version"),
        call_main("explain"),
    ],
)
def test_start_up_loads_nothing_heavy(code: str) -> None:
    assert find_heavy(code) == ""


@pytest.mark.parametrize("layout", ["text", "json", "markdown", "github", "sarif", "junit"])
def test_check_loads_nothing_heavy(logdir: str, layout: str) -> None:
    assert find_heavy(call_main("check", logdir, "--format", layout)) == ""


def test_help_loads_no_numpy_either() -> None:
    code = call_main("--help") + "\nimport sys; assert 'numpy' not in sys.modules"
    assert find_heavy(code) == ""


def test_python_m_gradwatch() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gradwatch", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "usage: gradwatch" in done.stdout
