"""What a suite may choose: by command line, marker, ini file, or ``[tool.gradwatch]``.

What comes first in this list wins, and what a test passes itself wins over all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradwatch.configuration import Configuration
    from gradwatch.thresholds import Thresholds

MARKER = "gradwatch"
MARKER_HELP = (
    "gradwatch(fail_on=..., steps=..., seeds=..., thresholds=...): "
    "settings of the fixture gradwatch_check for this test"
)
_FAIL_ON, _STEPS, _SEEDS, _THRESHOLDS, _REPORT = (
    "gradwatch_fail_on",
    "gradwatch_steps",
    "gradwatch_seeds",
    "gradwatch_thresholds",
    "gradwatch_report",
)


@dataclass(frozen=True)
class Settings:
    """Settings of one test.

    Attributes:
        fail_on: kinds of finding to fail on; all when empty.
        steps, seeds: of ``check``; ``None``: the repository's, or the defaults.
        thresholds: changed thresholds by name, or whole ones.
        report: directory for an HTML page per failing test.
        start: directory from which the configuration is searched.
    """

    fail_on: tuple[str, ...] = ()
    steps: int | None = None
    seeds: int | None = None
    thresholds: Mapping[str, object] | Thresholds = field(default_factory=dict)
    report: Path | None = None
    start: Path | None = None

    @property
    def configuration(self) -> Configuration:
        """The repository's."""
        from gradwatch.configuration import find_configuration

        return find_configuration(self.start)

    def choose_thresholds(self, given: Thresholds | None) -> Thresholds:
        """Those of the call; else the repository's with this test's changes.

        Args:
            given: what the test passed itself; wins when it is not ``None``.
        """
        from gradwatch.thresholds import Thresholds

        if given is not None:
            return given
        if isinstance(self.thresholds, Thresholds):
            return self.thresholds
        return self.configuration.choose_thresholds().replace(**self.thresholds)


def add_options(parser: pytest.Parser) -> None:
    """Options of the command line and of the ini file.

    Args:
        parser: pytest's, gets the options.
    """
    kinds = "kind of finding that fails a test with the fixture gradwatch_check (default: all)"
    group = parser.getgroup("gradwatch", "gradients that do not reach every layer")
    group.addoption(
        "--gradwatch-fail-on", action="append", dest=_FAIL_ON, metavar="KIND[,KIND]", help=kinds
    )
    parser.addini(_FAIL_ON, f"{kinds}, several separated by spaces", type="args", default=[])
    for name, text in ((_STEPS, "training steps of a check"), (_SEEDS, "trainings of a check")):
        flag = f"--{name.replace('_', '-')}"
        group.addoption(flag, dest=name, type=int, metavar="COUNT", help=text)
        parser.addini(name, text, default="")
    report = "directory for an HTML report of every test that fails by its gradients"
    group.addoption("--gradwatch-report", dest=_REPORT, metavar="DIR", help=report)
    parser.addini(_REPORT, report, default="")
    parser.addini(_THRESHOLDS, "NAME = VALUE, one a line", type="linelist", default=[])


def check_options(config: pytest.Config) -> None:
    """Refuse what means nothing.

    Args:
        config: pytest's, with the command line and the ini file.

    Raises:
        pytest.UsageError: an unknown kind or threshold, or a count that is none.
    """
    names = (_FAIL_ON, _STEPS, _SEEDS)
    given = any(config.getoption(name) is not None or config.getini(name) for name in names)
    if given or config.getini(_THRESHOLDS):  # else nothing is imported in vain
        try:
            _read(config)
        except ValueError as error:
            raise pytest.UsageError(f"gradwatch: {error}") from None


def read_settings(config: pytest.Config, node: pytest.Item) -> Settings:
    """The settings of one test.

    Args:
        config: pytest's, with the command line and the ini file.
        node: the test, whose nearest marker wins.

    Raises:
        pytest.UsageError: its marker says something that means nothing.
    """
    command_line, ini = _read(config)
    marked: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers(MARKER))):
        try:
            marked.update(_read_marker(marker))
        except ValueError as error:
            raise pytest.UsageError(f"{node.nodeid}, marker gradwatch: {error}") from None
    start = config.invocation_params.dir
    return Settings(**{**ini, **marked, **command_line, "start": start})


def _read(config: pytest.Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command line and the ini file give, under the names of ``Settings``."""
    command_line = {name: config.getoption(name) for name in (_FAIL_ON, _STEPS, _SEEDS, _REPORT)}
    ini = {name: config.getini(name) for name in (_FAIL_ON, _THRESHOLDS)}
    for given in (command_line, ini):
        given[_FAIL_ON] = _split_kinds(given[_FAIL_ON])
    ini |= {name: _read_int(name, config.getini(name)) for name in (_STEPS, _SEEDS)}
    ini[_REPORT] = config.getini(_REPORT)
    ini[_THRESHOLDS] = dict(map(_split_threshold, ini[_THRESHOLDS]))
    return _parse(command_line), _parse(ini)


def _split_kinds(texts: Sequence[str] | None) -> list[str]:
    """As ``gradwatch check`` takes them: one or several, with commas between them."""
    return [kind.strip() for text in texts or () for kind in text.split(",")]


def _read_int(name: str, text: str) -> int | None:
    if text and not text.isdecimal():
        raise ValueError(f"Expected a whole number for {name}, got {text!r}. Write for instance 3.")
    return int(text) if text else None


def _split_threshold(line: str) -> tuple[str, object]:
    from gradwatch.thresholds import Thresholds

    name, _, value = (part.strip() for part in line.partition("="))
    default = next((row.default for row in fields(Thresholds) if row.name == name), None)
    if isinstance(default, tuple):
        return name, [part.strip() for part in value.split(",")]
    try:
        return name, int(value) if isinstance(default, int) else float(value)
    except ValueError:
        return name, value  # refused, with its name, where thresholds are parsed


def _parse(given: Mapping[str, Any]) -> dict[str, Any]:
    from gradwatch.setting_values import parse_count, parse_kinds, parse_thresholds

    parsers: dict[str, Callable[[Any], Any]] = {
        "fail_on": parse_kinds,
        "steps": parse_count,
        "seeds": parse_count,
        "thresholds": parse_thresholds,
        "report": Path,
    }
    short = {name.removeprefix("gradwatch_"): value for name, value in given.items()}
    return {name: parsers[name](value) for name, value in short.items() if value not in EMPTY}


EMPTY: tuple[object, ...] = (None, "", [], {}, ())


def _read_marker(marker: pytest.Mark) -> dict[str, Any]:
    from gradwatch.setting_values import refuse_unknown
    from gradwatch.thresholds import Thresholds

    if marker.args:
        raise ValueError(f"Expected keywords only, got {marker.args[0]!r}. {MARKER_HELP}.")
    refuse_unknown(marker.kwargs, ("fail_on", "steps", "seeds", "thresholds"), "the marker")
    given = dict(marker.kwargs)
    whole = given.pop("thresholds") if isinstance(given.get("thresholds"), Thresholds) else None
    return _parse(given) | ({} if whole is None else {"thresholds": whole})
