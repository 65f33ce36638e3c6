"""The fixture ``gradwatch`` and its options; torch is imported only where the fixture is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import os

    from torch import nn

    from gradwatch.model_check import LossFunction, OptimizerLike
    from gradwatch.report import Report
    from gradwatch.thresholds import Thresholds
    from gradwatch.watcher import OnChange, OnScalars, Optimizers, Watch

INI_FAIL_ON = "gradwatch_fail_on"
OPTION_FAIL_ON = "--gradwatch-fail-on"


class GradWatchFixture:
    """What the fixture ``gradwatch`` gives: ``check`` and ``watch``, whose reports are kept.

    At its end, a test fails when one of them is unhealthy, holds no record or is incomplete.

    Args:
        fail_on: kinds of finding to fail on; all when empty.
    """

    def __init__(self, fail_on: tuple[str, ...] = ()) -> None:
        self.fail_on = fail_on
        self._reports: list[Callable[[], Report]] = []
        self._watches: list[Watch] = []

    def check(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFunction,
        optimizer: OptimizerLike = None,
        steps: int | None = None,
        *,
        thresholds: Thresholds | None = None,
    ) -> Report:
        """``gradwatch.check``, whose report counts for this test."""
        from gradwatch.model_check import check

        report = check(model, batches, loss_fn, optimizer, steps, thresholds=thresholds)
        self._reports.append(lambda: report)
        return report

    def watch(
        self,
        model: nn.Module,
        optimizer: Optimizers = None,
        *,
        logdir: str | os.PathLike[str] | None = None,
        every_n_steps: int = 50,
        budget: float | None = None,
        writer: object = None,
        thresholds: Thresholds | None = None,
        per_layer_scalars: bool = False,
        run: str = "",
        global_step: int = 0,
        on_change: OnChange | None = None,
        on_scalars: OnScalars | None = None,
    ) -> Watch:
        """``gradwatch.watch``, whose report counts for this test; detached at its end."""
        from gradwatch.watcher import watch

        watching = watch(
            model,
            optimizer,
            logdir=logdir,
            every_n_steps=every_n_steps,
            budget=budget,
            writer=writer,
            thresholds=thresholds,
            per_layer_scalars=per_layer_scalars,
            run=run,
            global_step=global_step,
            on_change=on_change,
            on_scalars=on_scalars,
        )
        self._watches.append(watching)
        self._reports.append(watching.report)
        return watching

    def explain_failure(self) -> str:
        """Why the test fails, as text with the reports; ``""`` when it does not.

        A test that asks for the fixture and judges nothing fails too: no data is no pass.
        """
        from gradwatch.errors import NothingToJudge

        try:
            reports = [give() for give in self._reports]
            if not reports:
                raise NothingToJudge(
                    "Expected gradwatch.check(...) or gradwatch.watch(...) in a test that asks for "
                    "the fixture gradwatch, got neither. Call one, or drop the fixture."
                )
            return "\n\n".join(filter(None, map(self._explain, reports)))
        except NothingToJudge as error:
            return str(error)

    def _explain(self, report: Report) -> str:
        from gradwatch.errors import UnhealthyGradients

        try:
            report.raise_if(*self.fail_on)
        except UnhealthyGradients:
            return str(report)
        return ""

    def close(self) -> None:
        """Detach what the test left attached."""
        for watching in self._watches:
            watching.detach()


_KEY = pytest.StashKey[GradWatchFixture]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say which kinds of finding fail a test."""
    help_text = "kind of finding that fails a test with the fixture gradwatch (default: all)"
    group = parser.getgroup("gradwatch", "gradients that do not reach every layer")
    group.addoption(
        OPTION_FAIL_ON, action="append", dest=INI_FAIL_ON, metavar="KIND", help=help_text
    )
    parser.addini(INI_FAIL_ON, f"{help_text}, several separated by spaces", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an unknown kind at once, and not in the middle of a run."""
    chosen = _read_fail_on(config)
    if chosen:
        from gradwatch.schema.kinds import KINDS

        unknown = [kind for kind in chosen if kind not in KINDS]
        if unknown:
            raise pytest.UsageError(
                f"{OPTION_FAIL_ON}: expected one of {', '.join(KINDS)}, got {unknown[0]!r}."
            )


def _read_fail_on(config: pytest.Config) -> tuple[str, ...]:
    return tuple(config.getoption(INI_FAIL_ON) or config.getini(INI_FAIL_ON))


@pytest.fixture
def gradwatch(request: pytest.FixtureRequest) -> Generator[GradWatchFixture]:
    """``gradwatch.check(...)`` and ``gradwatch.watch(...)`` that fail the test when unhealthy."""
    fixture = GradWatchFixture(_read_fail_on(request.config))
    request.node.stash[_KEY] = fixture
    yield fixture
    fixture.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail the test itself, and not its teardown, where it saw an unhealthy report."""
    result = yield
    fixture = item.stash.get(_KEY, None)
    if fixture is not None:
        text = fixture.explain_failure()
        if text:
            pytest.fail(text, pytrace=False)
    return result
