"""``gradwatch explain [CODE]``: what a rule looks for."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from typing import Any

from gradwatch.cli.printing import show, write
from gradwatch.errors import GradWatchError


def add_explain(commands: Any) -> None:
    """The command and its options.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    text = "Tell what a rule looks for and what to do; without CODE, list rules and thresholds."
    explain = commands.add_parser("explain", help=text, description=text)
    explain.add_argument("code", nargs="?", metavar="CODE", help="such as GW101")
    explain.set_defaults(run=_run_explain)


def _run_explain(options: argparse.Namespace) -> int:
    from rich.markdown import Markdown

    from gradwatch.verdict.own_rules import list_rules

    if options.code is None:
        write(_list_rules())
        return 0
    for rule in list_rules():
        if rule.code == options.code.upper():
            title = f"# {rule.code}: {rule.title}\n\n{rule.doc}\n"
            show(Markdown(title)) if sys.stdout.isatty() else write(title)
            return 0
    codes = ", ".join(rule.code for rule in list_rules())
    raise GradWatchError(
        f"Expected the code of a rule ({codes}), got {options.code!r}. "
        '"gradwatch explain" lists them.'
    )


def _list_rules() -> str:
    from gradwatch.thresholds import Thresholds
    from gradwatch.verdict.own_rules import list_rules

    lines = ["Rules (gradwatch explain CODE):"]
    lines += [f"  {rule.code}  {rule.kind:<13} {rule.title}" for rule in list_rules()]
    lines += ["", "Thresholds (gradwatch check LOGDIR --threshold NAME=VALUE):"]
    for row in fields(Thresholds):
        default = f"{row.default:.3g}" if isinstance(row.default, float) else row.default or "none"
        lines.append(f"  {row.name} = {default}")
    return "\n".join(lines) + "\n"
