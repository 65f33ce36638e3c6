"""The command line: ``gradwatch demo | check | report | explain``.

Exit status of ``check``: see ``Judgement.choose_status``. Nothing unread or unfinished ever passes.
Start-up and ``check`` load no torch.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch import __version__
from gradwatch.errors import GradWatchError, NothingToJudge
from gradwatch.schema.kinds import KINDS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gradwatch.judgement import Judgement

HEALTHY, NOTHING_TO_JUDGE = 0, 2  # and 1 for findings, see Judgement.choose_status
_INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended
_PLAIN_WIDTH = 100  # columns where the output is no terminal, as in a CI log
_FORMATS = ("text", "json", "markdown")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is returned."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except GradWatchError as error:
        _warn(str(error))
        return NOTHING_TO_JUDGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception:  # a fault of ours must not look like findings to a CI job
        traceback.print_exc()
        return NOTHING_TO_JUDGE


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="gradwatch",
        description="Finds vanishing gradients in a training run: where, since when, why, "
        "and what to change.",
    )
    parser.add_argument("--version", action="version", version=f"gradwatch {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_check(commands)
    _add_report(commands)
    _add_explain(commands)
    return parser


def _add_demo(commands: Any) -> None:
    text = "Train a sick and a healthy network on handwritten digits, and judge both."
    demo = commands.add_parser("demo", help=text, description=text)
    demo.add_argument("--logdir", default="runs/demo", help="where the logs go (%(default)s)")
    demo.add_argument(
        "--steps", type=_parse_count, default=600, help="optimizer steps per network (%(default)s)"
    )
    demo.set_defaults(run=_run_demo)


def _add_check(commands: Any) -> None:
    check = commands.add_parser(
        "check",
        help="Judge the runs under a log directory; the exit status tells the result.",
        description="Judge every run under LOGDIR from the records in its event files.",
        epilog="Exit status: 1 findings in any run; otherwise 2 nothing to judge, or a run that "
        "is damaged, unfinished or failed; otherwise 0.",
    )
    check.add_argument("logdir", metavar="LOGDIR", help="a log directory, or one event file")
    check.add_argument(
        "--fail-on",
        nargs="+",
        action="extend",
        choices=KINDS,
        default=[],
        metavar="KIND",
        help=f"only these kinds make it fail: {', '.join(KINDS)} (default: any)",
    )
    check.add_argument("--format", choices=_FORMATS, default="text", help="(%(default)s)")
    check.add_argument(
        "--allow-unfinished",
        action="store_true",
        help="judge a run that has no end, or that an exception ended, up to its last record",
    )
    _add_thresholds(check)
    check.set_defaults(run=_run_check)


def _add_report(commands: Any) -> None:
    text = "Write the runs under a log directory as one HTML page."
    report = commands.add_parser("report", help=text, description=text)
    report.add_argument("logdir", metavar="LOGDIR", help="a log directory, or one event file")
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="(%(default)s)"
    )
    _add_thresholds(report)
    report.set_defaults(run=_run_report)


def _add_explain(commands: Any) -> None:
    text = "Tell what a rule looks for and what to do; without CODE, list rules and thresholds."
    explain = commands.add_parser("explain", help=text, description=text)
    explain.add_argument("code", nargs="?", metavar="CODE", help="such as GW101")
    explain.set_defaults(run=_run_explain)


def _add_thresholds(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threshold",
        action="append",
        type=_parse_threshold,
        default=[],
        metavar="NAME=VALUE",
        help='change a threshold; "gradwatch explain" lists them',
    )


def _parse_count(text: str) -> int:
    count = int(text) if text.isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return count


def _parse_threshold(text: str) -> tuple[str, object]:
    from gradwatch.thresholds import Thresholds

    name, equals, value = text.partition("=")
    known = {one.name: one.default for one in fields(Thresholds)}
    if not equals or name not in known:
        raise argparse.ArgumentTypeError(
            f"expected NAME=VALUE with a name among {', '.join(known)}; got {text!r}"
        )
    return name, _convert(value, known[name])


def _convert(value: str, default: object) -> object:
    """A threshold's value, of the same type as its default."""
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


def _judge(options: argparse.Namespace, allow_unfinished: bool) -> Judgement:
    from gradwatch.judgement import judge_logdir

    overrides = dict(options.threshold)
    judgement = judge_logdir(options.logdir, overrides, allow_unfinished)
    if overrides:
        _warn("thresholds given here: " + ", ".join(f"{k} = {v}" for k, v in overrides.items()))
    for run, reason in judgement.unreadable.items():
        is_shown = any(verdict.run == run for verdict in judgement.verdicts)
        _warn(f"run {run!r} is {'judged in part' if is_shown else 'not judged'}: {reason}")
    for run, note in judgement.notes.items():
        _warn(f"run {run!r}: {note}")
    if allow_unfinished:
        for outcome in judgement.outcomes:
            if outcome.unfinished and not outcome.problem:
                _warn(f"run {outcome.run!r} is judged up to its last record: {outcome.unfinished}")
    if judgement.without_records and judgement.verdicts:
        _warn(f"no gradwatch records in {', '.join(map(repr, judgement.without_records))}")
    if not judgement.verdicts and not judgement.unreadable:
        raise NothingToJudge(
            f"Expected records of gradwatch under {options.logdir!r}, got event files without any "
            f"({', '.join(judgement.without_records)}). Train with gradwatch.watch(...), or with "
            "GradWatchCallback(), for at least one step."
        )
    return judgement


def _run_check(options: argparse.Namespace) -> int:
    judgement = _judge(options, options.allow_unfinished)
    status = judgement.choose_status(options.fail_on)
    if options.format == "json":
        _write(judgement.write_json(status))
    elif options.format == "markdown":
        from gradwatch.display.markdown import write_report

        _write("\n".join(write_report(one) for one in judgement.verdicts))
    else:
        _show(*judgement.render())
    return status


def _run_report(options: argparse.Namespace) -> int:
    judgement = _judge(options, allow_unfinished=True)
    if not judgement.verdicts:
        return NOTHING_TO_JUDGE
    from gradwatch.display.html import write_page

    page = write_page(judgement.verdicts, trials=judgement.trials)
    try:
        options.output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise GradWatchError(
            f"Expected an output file that can be written, got {str(options.output)!r} ({error}). "
            "Choose another with -o."
        ) from error
    _write(f"{options.output}\n")
    return HEALTHY


def _run_explain(options: argparse.Namespace) -> int:
    from rich.markdown import Markdown

    from gradwatch.verdict.rules import DEFAULT_RULES

    if options.code is None:
        _write(_list_rules())
        return HEALTHY
    for rule in DEFAULT_RULES:
        if rule.code == options.code.upper():
            title = f"# {rule.code}: {rule.title}\n\n{rule.doc}\n"
            _show(Markdown(title)) if sys.stdout.isatty() else _write(title)
            return HEALTHY
    codes = ", ".join(rule.code for rule in DEFAULT_RULES)
    raise GradWatchError(
        f"Expected the code of a rule ({codes}), got {options.code!r}. "
        '"gradwatch explain" lists them.'
    )


def _list_rules() -> str:
    from gradwatch.thresholds import Thresholds
    from gradwatch.verdict.rules import DEFAULT_RULES

    lines = ["Rules (gradwatch explain CODE):"]
    lines += [f"  {rule.code}  {rule.kind:<13} {rule.title}" for rule in DEFAULT_RULES]
    lines += ["", "Thresholds (gradwatch check LOGDIR --threshold NAME=VALUE):"]
    for one in fields(Thresholds):
        default = f"{one.default:.3g}" if isinstance(one.default, float) else one.default or "none"
        lines.append(f"  {one.name} = {default}")
    return "\n".join(lines) + "\n"


def _run_demo(options: argparse.Namespace) -> int:
    from gradwatch.demo import run_demo

    run_demo(options.logdir, options.steps)
    return HEALTHY


def _show(*views: RenderableType) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    with console.capture() as captured:
        for place, view in enumerate(views):
            if place:
                console.print()
            console.print(view)
    _write(captured.get())


def _write(text: str) -> None:
    """Write to stdout; a reader that went away (``| head``) does not change the exit status."""
    if not text:
        return
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn(message: str) -> None:
    line = " ".join(message.split())
    encoding = sys.stderr.encoding or "utf-8"
    line = line.encode(encoding, "backslashreplace").decode(encoding)
    print(f"gradwatch: {line}", file=sys.stderr)
