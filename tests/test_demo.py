"""The demo: real data, an unhealthy and a healthy run, what it prints and what it leaves behind."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from gradwatch.cli import main
from gradwatch.demo import run_demo
from gradwatch.errors import GradWatchError, InvalidInput
from gradwatch.log.writer import read_runs

pytest.importorskip("sklearn")

STEPS = 150


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("demo") / "two runs"
    out = io.StringIO()
    reports = run_demo(str(logdir), STEPS, Console(file=out, width=80))
    return logdir, reports, out.getvalue()


def test_the_sigmoid_run_vanishes_because_of_its_activation(demo) -> None:
    _, (sigmoid, _), _ = demo
    worst = sigmoid.findings[0]
    assert (worst.kind, worst.cause, worst.first_step) == ("vanishing", "activation_derivative", 0)
    assert {"fc1", "fc2", "fc3"} <= set(worst.layers)
    assert "fc12" not in worst.layers


def test_the_relu_run_is_healthy(demo) -> None:
    _, (_, relu), _ = demo
    assert relu.healthy


def test_it_shows_tables_verdicts_remedy_and_the_command(demo) -> None:
    logdir, _, out = demo
    for part in ("✗ sigmoid: fc1 gets", "activation_derivative", "Remedy", "✓ relu: ", "act11"):
        assert part in out
    assert out.count(" fc12 ") == 2
    assert f"tensorboard --logdir '{logdir}'" in out


def test_it_tries_remedies_on_the_unhealthy_network_only(demo) -> None:
    _, _, out = demo
    assert out.count("Best of what was tried, 40 steps each: ") == 1
    assert "Replace the 11 Sigmoid" in out
    assert out.index("Best of what was tried") < out.index("relu: ")


def test_the_logs_tell_the_same_afterwards(demo, capsys) -> None:
    logdir, (sigmoid, _), _ = demo
    assert [run.name for run in read_runs(logdir)] == ["relu", "sigmoid"]
    assert main(["check", str(logdir / "sigmoid")]) == 1
    assert sigmoid.findings[0].message.split(":")[0] in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(logdir / "relu")]) == 0
    assert main(["check", str(logdir)]) == 1


def test_without_scikit_learn_it_says_what_to_install(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(GradWatchError, match=r"pip install 'gradwatch\[demo\]'"):
        run_demo(str(tmp_path), STEPS)
    assert main(["demo", "--logdir", str(tmp_path)]) == 2
    assert "scikit-learn" in capsys.readouterr().err


def test_a_logdir_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="logdir"):
        run_demo(str(tmp_path / "file"), STEPS, Console(file=io.StringIO()))
