"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from gradwatch.schema.kinds import KINDS

_FAIL_ON = "--fail-on"


def add_logdir(command: argparse.ArgumentParser) -> None:
    """Where the runs are.

    Args:
        command: gets the positional argument ``LOGDIR``.
    """
    command.add_argument("logdir", metavar="LOGDIR", help="a log directory, or one event file")


def add_output(command: argparse.ArgumentParser, default: Path | None = None) -> None:
    """Where the result goes.

    Args:
        command: gets the option ``-o``.
        default: file that is written when the option is missing; ``None`` is the terminal.
    """
    words = "(%(default)s)" if default else "write it there instead of to the terminal"
    command.add_argument("-o", "--output", type=Path, metavar="FILE", default=default, help=words)


def add_allow_unfinished(command: argparse.ArgumentParser) -> None:
    """Whether a training that broke off counts.

    Args:
        command: gets ``--allow-unfinished``.
    """
    command.add_argument(
        "--allow-unfinished",
        action="store_true",
        help="judge a run that has no end, or that an exception ended, up to its last record",
    )


def add_selection(command: argparse.ArgumentParser) -> None:
    """Which runs, and up to which step.

    Args:
        command: gets ``--run``, ``--last`` and ``--until``.
    """
    group = command.add_argument_group("selection")
    group.add_argument(
        "--run",
        dest="runs",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only runs whose name matches, such as 'exp/*'; may be repeated",
    )
    group.add_argument("--last", action="store_true", help="only the run written last")
    group.add_argument(
        "--until", type=parse_step, metavar="STEP", help="as if the training had ended there"
    )


def add_jobs(command: argparse.ArgumentParser) -> None:
    """How many processes judge.

    Args:
        command: gets ``--jobs``.
    """
    command.add_argument(
        "--jobs",
        type=parse_positive,
        metavar="N",
        help="processes that judge; 1: this one alone (with many runs, one for each core)",
    )


def add_thresholds(command: argparse.ArgumentParser) -> None:
    """When a measurement counts.

    Args:
        command: gets ``--threshold``, which may be repeated.
    """
    command.add_argument(
        "--threshold",
        action="append",
        type=parse_threshold,
        default=[],
        metavar="NAME=VALUE",
        help='change a threshold; "gradwatch explain" lists them',
    )


def add_fail_on(command: argparse.ArgumentParser) -> None:
    """Which kinds of finding count.

    Args:
        command: gets ``--fail-on``, for an ``arguments`` list that went through ``join_kinds``.
    """
    command.add_argument(
        _FAIL_ON,
        action="extend",
        type=parse_kind_list,
        default=[],
        metavar="KIND[,KIND]",
        help=f"only these kinds make it fail: {', '.join(KINDS)}, or one of an installed "
        "package's rules (default: any)",
    )


def join_kinds(arguments: Sequence[str]) -> list[str]:
    """``--fail-on a b runs/x`` as ``--fail-on=a,b runs/x``: the kinds end where no kind follows.

    Args:
        arguments: of the command line, before argparse sees them.

    Example:
        >>> join_kinds(["check", "--fail-on", "dead", "vanishing", "runs/x"])
        ['check', '--fail-on=dead,vanishing', 'runs/x']
    """
    joined: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":
            return [*joined, word, *words]
        if word == _FAIL_ON and words and not words[0].startswith("-"):
            kinds = [words.pop(0)]
            while words and set(words[0].split(",")) <= set(_list_kinds()):
                kinds.append(words.pop(0))
            word = f"{_FAIL_ON}={','.join(kinds)}"
        joined.append(word)
    return joined


def parse_kind_list(text: str) -> list[str]:
    """Kinds with commas between them.

    Args:
        text: of one ``--fail-on``; spaces around commas do not matter.

    Raises:
        argparse.ArgumentTypeError: no kind, or one that no rule here has.

    Example:
        >>> parse_kind_list("vanishing, dead")
        ['vanishing', 'dead']
    """
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    known = _list_kinds()
    unknown = [kind for kind in kinds if kind not in known]
    if unknown or not kinds:
        raise argparse.ArgumentTypeError(
            f"expected kinds among {', '.join(known)}, got {', '.join(unknown) or repr(text)}"
            f"{_suggest(unknown, known)}"
        )
    return kinds


def _list_kinds() -> tuple[str, ...]:
    from gradwatch.verdict.own_rules import list_kinds  # packages are loaded when a kind is named

    return list_kinds()


def _suggest(given: Sequence[str], known: Sequence[str]) -> str:
    from gradwatch.setting_values import find_nearest

    near = dict.fromkeys(find_nearest(name, known) for name in given)
    return f"; did you mean {', '.join(near)}?" if near else ""


def parse_positive(text: str) -> int:
    """A whole number from 1.

    Args:
        text: decimal digits.

    Raises:
        argparse.ArgumentTypeError: 0, or no whole number.
    """
    count = int(text) if text.isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return count


def parse_step(text: str) -> int:
    """A global step, from 0.

    Args:
        text: decimal digits.

    Raises:
        argparse.ArgumentTypeError: no whole number.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a step, a whole number from 0, got {text!r}")
    return int(text)


def parse_threshold(text: str) -> tuple[str, object]:
    """``NAME=VALUE``, of the type of the threshold's default.

    Args:
        text: of one ``--threshold``; a tuple's parts are separated by commas.

    Returns:
        Name and value.

    Raises:
        argparse.ArgumentTypeError: an unknown name, or a value that is no finite number.

    Example:
        >>> parse_threshold("dead_fraction=0.9")
        ('dead_fraction', 0.9)
    """
    from gradwatch.thresholds import Thresholds

    name, equals, value = text.partition("=")
    known = {field.name: field.default for field in fields(Thresholds)}
    if not equals or name not in known:
        raise argparse.ArgumentTypeError(
            'expected NAME=VALUE with a name that "gradwatch explain" lists, '
            f"got {text!r}{_suggest([name], list(known))}"
        )
    return name, _convert(value, known[name])


def _convert(value: str, default: object) -> object:
    if isinstance(default, tuple):
        return tuple(part for part in value.split(",") if part)
    kind = int if isinstance(default, int) else float
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite {kind.__name__}, got {value!r}")
    return number
