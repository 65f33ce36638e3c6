"""Processes that judge: the same words as one alone, and one that dies is never a pass."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from gradwatch import judgement, plugins
from gradwatch.cli import main
from gradwatch.gate.outcome import FINDINGS, NOTHING_TO_JUDGE
from gradwatch.judgement import judge_logdir
from gradwatch.log.reader import find_logs
from gradwatch.schema import kinds
from gradwatch.workers import pool
from gradwatch.workers.pool import Workers
from tests.display.trainings import make_training
from tests.gate.runs import HEALTHY, UNHEALTHY, damage, write_records, write_run

RULE = """
import os, sys
from gradwatch.verdict.rule import Rule

def examine(history, thresholds):
    if history.count == 1:
        step = history.latest.record.global_step
        print("judging prints", step)
        print("and complains", step, file=sys.stderr)
        if step == 5:
            os._exit(3)
    if history.count == 2:
        raise ValueError("not mine")
    return []

rule = Rule(code="ACME1", kind="acme", title="Acme", examine=examine, doc="What it does.")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with a rule that prints, fails, and dies where it is asked to."""
    home = tmp_path / "site"
    (home / "acme-1.0.dist-info").mkdir(parents=True)
    (home / "acme-1.0.dist-info" / "METADATA").write_text("Name: acme\nVersion: 1.0\n")
    (home / "acme-1.0.dist-info" / "entry_points.txt").write_text(
        "[gradwatch.rules]\nacme = acme_rules:rule\n"
    )
    (home / "acme_rules.py").write_text(RULE)
    monkeypatch.syspath_prepend(home)
    plugins.load_plugins.cache_clear()
    monkeypatch.setattr(plugins, "_warned", set())


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    """Runs of every sort."""
    home = tmp_path / "runs"
    for name, gain in (("a", HEALTHY), ("b", UNHEALTHY), ("c", HEALTHY), ("d/e", UNHEALTHY)):
        write_run(home / name, gain)
    damage(home / "c")
    (home / "foreign").mkdir()
    (home / "foreign" / "events.out.tfevents.1").write_bytes(b"")
    return home


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What this process remembers of the package."""
    known = dict(kinds.KINDS)
    yield
    plugins.load_plugins.cache_clear()
    kinds.KINDS.clear()
    kinds.KINDS.update(known)


@pytest.mark.usefixtures("package")
def test_the_words_and_their_order_are_the_same(
    logdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for jobs in "12":
        monkeypatch.setattr(plugins, "_warned", set())
        status = main(["check", str(logdir), "--jobs", jobs])
        said.append((status, *capsys.readouterr()))
    assert said[0] == said[1]
    status, out, err = said[0]
    assert status == FINDINGS
    assert out.startswith("judging prints 0\n" * 4)
    assert err.count("and complains") == 4
    assert err.count("the rule ACME1 (Acme) has failed and judges no further") == 1


def describe(found: judgement.Judgement) -> str:
    """All of it but the histories; not a number is as good as another."""
    runs = [
        replace(row, verdict=row.verdict and replace(row.verdict, history=None))
        for row in found.outcomes
    ]
    return repr([astuple(row) for row in runs])


def test_outcomes_are_the_same_and_hold_no_history(logdir: Path) -> None:
    with Workers(1) as none, Workers(2) as two:
        alone, shared, whole = (
            judge_logdir(str(logdir), workers=workers) for workers in (none, two, None)
        )
    assert describe(alone) == describe(shared) == describe(whole)
    assert {verdict.history for verdict in (*alone.verdicts, *shared.verdicts)} == {None}
    assert all(verdict.history is not None for verdict in whole.verdicts)


@pytest.mark.usefixtures("package")
def test_a_run_that_a_process_dies_of_is_named_and_never_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, first in (("a", 0), ("b", 5), ("c", 0)):
        write_records(tmp_path / "runs" / name, make_training(HEALTHY)[first:])
    assert main(["check", str(tmp_path / "runs"), "--jobs", "2"]) == NOTHING_TO_JUDGE
    out, err = capsys.readouterr()
    assert "run 'b' is not judged: the process that was at it ended with status 3" in err
    assert [sign in out for sign in ("✓ a: ", "✓ b: ", "✓ c: ")] == [True, False, True]


def test_the_program_that_asks_is_not_run_again(tmp_path: Path) -> None:
    """As ``multiprocessing`` would, which here may be a training."""
    for name in "ab":
        write_run(tmp_path / "runs" / name, HEALTHY)
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nprint('trains')\nfrom gradwatch.cli import main\n"
        "sys.exit(main(['check', 'runs', '--jobs', '2']))\n"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout.count("trains")) == (0, 1), done.stderr
    assert done.stdout.count("✓") == 2


EVIL = "__import__('os')._exit(3)"


def start_two() -> Workers:
    workers = Workers()
    workers.start(2)
    return workers


def _interrupt(workers: Workers, asks: list[str]) -> None:
    """As Ctrl-C would, when the first answer has come."""
    with workers:
        next(workers.map(eval, asks, str))
        raise KeyboardInterrupt


class TestWorkers:
    def test_only_what_it_dies_of_is_lost(self) -> None:
        items = [*map(str, range(12)), EVIL, *map(str, range(12, 20)), EVIL]
        with start_two() as workers:
            found = list(workers.map(eval, items, lambda item, reason: reason))
        lost = "the process that was at it ended with status 3"
        assert found == [*range(12), lost, *range(12, 20), lost]

    @pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
    def test_a_signal_is_named(self) -> None:
        kill = "__import__('os').kill(__import__('os').getpid(), 9)"
        with start_two() as workers:
            (reason,) = workers.map(eval, [kill], lambda item, reason: reason)
        assert reason == "the process that was at it was ended by SIGKILL"

    def test_they_load_no_torch(self) -> None:
        asks = ["__import__('gradwatch.judgement')", "'torch' in __import__('sys').modules"]
        with start_two() as workers:
            found = list(workers.map(eval, [" or ".join(asks[1:]), asks[1]], str))
        assert found == [False, False]

    def test_an_exception_is_an_error_with_its_traceback(self) -> None:
        with start_two() as workers, pytest.raises(RuntimeError, match="ZeroDivisionError"):
            list(workers.map(eval, ["1", "1 / 0"], str))

    def test_none_is_left_when_something_interrupts(self) -> None:
        asks = ["1"] * 9 + ["__import__('time').sleep(60)"] * 20
        workers = start_two()
        with pytest.raises(KeyboardInterrupt):
            _interrupt(workers, asks)
        assert all(worker._process.poll() is not None for worker in workers._processes)

    @pytest.mark.parametrize("program", ["", "/nowhere/python", sys.executable + "3.99"])
    def test_without_an_interpreter_it_happens_here(
        self, monkeypatch: pytest.MonkeyPatch, program: str
    ) -> None:
        monkeypatch.setattr(sys, "executable", program)
        with start_two() as workers:
            assert list(workers.map(eval, ["__import__('os').getpid()"], str)) == [os.getpid()]


def test_there_are_as_many_as_pay(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = find_logs(logdir)
    assert judgement._count_workers(folders, None) == 0
    assert judgement._count_workers(folders, 3) == 3
    assert judgement._count_workers(folders, 100) == len(folders)
    monkeypatch.setattr(judgement, "BYTES_A_WORKER", 1000)
    monkeypatch.setattr(judgement, "count_cores", lambda: 4)
    assert judgement._count_workers(folders, None) == 4


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 1), ("300000 100000", 3), ("max 100000", 4), (None, 4)]
)
def test_a_container_s_share_of_the_cores_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str | None, cores: int
) -> None:
    monkeypatch.setattr(pool, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    assert pool.count_cores() == cores
