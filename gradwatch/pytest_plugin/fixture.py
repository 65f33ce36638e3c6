"""What the fixture gives: ``check`` and ``watch``, whose reports are judged at the test's end."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradwatch.pytest_plugin.settings import Settings

if TYPE_CHECKING:
    from gradwatch import model_check, watcher
    from gradwatch.live_watch import Watch
    from gradwatch.report import Report

_LONGEST_NAME = 80


@dataclass(frozen=True)
class Failure:
    """Why a test fails.

    Attributes:
        message: three lines for each report.
        details: the layer tables, and the findings beyond the first.
        reports: the unhealthy ones.
    """

    message: str
    details: str = ""
    reports: tuple[Report, ...] = ()


class GradWatchFixture:
    """``check`` and ``watch``, whose reports are kept; calling it is ``check``.

    At its end, a test fails when one of them is unhealthy, holds no record or is incomplete.

    Args:
        settings: of this test.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._reports: list[Callable[[], Report]] = []
        self._is_over = False
        self._watches: list[Watch] = []

    if TYPE_CHECKING:  # the arguments stand in one place: those of gradwatch.check and watch
        check = staticmethod(model_check.check)
        watch = staticmethod(watcher.watch)
    else:

        def check(self, *args: Any, **kwargs: Any) -> Report:
            """``gradwatch.check``, whose report counts for this test."""
            from gradwatch.model_check import check

            settings = self.settings
            agreed = {"steps": settings.steps, "seeds": settings.seeds}
            report = check(**self._complete(check, args, kwargs, agreed))
            self._reports.append(lambda: report)
            return report

        def watch(self, *args: Any, **kwargs: Any) -> Watch:
            """``gradwatch.watch``, whose report counts for this test; detached at its end."""
            from gradwatch.watcher import watch

            watching = watch(**self._complete(watch, args, kwargs, {"log_findings": False}))
            self._watches.append(watching)
            self._reports.append(watching.report)
            return watching

    __call__ = check

    def _complete(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        agreed: Mapping[str, object],
    ) -> dict[str, Any]:
        """A call's arguments by name, and this test's settings where it gives none."""
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        given["thresholds"] = self.settings.choose_thresholds(given.get("thresholds"))
        return {**given, **{k: v for k, v in agreed.items() if given.get(k) is None}}

    def take_reports(self) -> list[Callable[[], Report]]:
        """Those of now, which count no more: what is made later, as in a teardown, is apart."""
        taken, self._reports, self._is_over = self._reports, [], True
        return taken

    @property
    def has_later_reports(self) -> bool:
        """Whether one was made after the test itself; of a test that never ran none counts."""
        return self._is_over and bool(self._reports)

    def judge(self) -> Failure | None:
        """Why the test fails, if it does.

        A test that asks for the fixture and judges nothing fails too: no data is no pass.
        """
        from gradwatch.errors import NothingToJudge

        try:
            reports = [give() for give in self.take_reports()]
            if not reports:
                raise NothingToJudge(
                    "Expected gradwatch_check(...) or its watch(...) in a test that asks for the "
                    "fixture gradwatch_check, got neither. Call one, or drop the fixture."
                )
            return _describe(list(filter(None, map(self._find_unhealthy, reports))))
        except NothingToJudge as error:
            return Failure(str(error))

    def _find_unhealthy(self, report: Report) -> Report | None:
        from gradwatch.errors import UnhealthyGradients

        agreed = self.settings.configuration
        report = agreed.silence(report)
        try:
            report.raise_if(*(self.settings.fail_on or agreed.fail_on))
        except UnhealthyGradients:
            return report
        return None

    def write_page(self, nodeid: str, failure: Failure) -> str:
        """The HTML report of a failing test, where one was asked for; answers where it is.

        Args:
            nodeid: of the test, from which the file's name is made.
            failure: whose reports are written.

        Returns:
            ``"Report: PATH"``, why there is none, or ``""`` where none was asked for.
        """
        folder = self.settings.report
        if folder is None or not failure.reports:
            return ""
        from gradwatch.display.html import write_page

        path = folder / f"{_name_file(nodeid)}.html"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(write_page(failure.reports, title=nodeid), encoding="utf-8")
        except OSError as error:
            return f"No HTML report: {error}"
        return f"Report: {path}"

    def close(self) -> None:
        """Detach what the test left attached."""
        for watching in self._watches:
            watching.detach()


def _describe(reports: Sequence[Report]) -> Failure | None:
    if not reports:
        return None
    message = "\n".join(map(_write_three_lines, reports))
    return Failure(message, "\n\n".join(map(_write_details, reports)), tuple(reports))


def _write_three_lines(report: Report) -> str:
    """What, why and what to do, of the worst finding."""
    from gradwatch.display.headline import write_headline
    from gradwatch.display.layer_table import make_printable
    from gradwatch.schema.kinds import describe_cause

    worst, more = report.findings[0], len(report.findings) - 1
    others = f", and {more} more" if more else ""
    vote = f" {report.vote}" if report.vote else ""
    cause = describe_cause(worst.cause) or "unknown"
    lines = (
        f"{write_headline(report)} [{worst.code} {worst.kind}, {worst.severity}{others}].{vote}",
        f"Cause: {cause}. {worst.message}",
        f"Remedy: {worst.remedy}",
    )
    return "\n".join(make_printable(line) for line in lines)


def _write_details(report: Report) -> str:
    """The layer table; before it the findings that the three lines leave out."""
    from gradwatch.display.layer_table import make_printable
    from gradwatch.display.terminal import write_layers
    from gradwatch.verdict.findings import describe_findings

    others = (
        describe_findings(report.findings[1:]).partition("\n")[2] if report.findings[1:] else ""
    )
    parts = ["\n".join(map(make_printable, others.splitlines())), write_layers(report)]
    return "\n".join(filter(None, parts))


def _name_file(nodeid: str) -> str:
    """A name that every file system takes, and that no other test has."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", nodeid).strip("-")[-_LONGEST_NAME:]
    return f"{plain}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"
