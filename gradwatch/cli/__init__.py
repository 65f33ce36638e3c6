"""The command line: ``gradwatch demo | check | compare | baseline | report | explain``.

Exit status of those that judge: 1 when something fails; otherwise 2 when a run could not be judged
whole, or none could be judged; otherwise 0. So nothing unread ever passes. Start-up and what reads
logs load no torch, and each command's module is loaded when it is run.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from gradwatch import __version__
from gradwatch.cli.arguments import join_kinds
from gradwatch.cli.baseline import add_baseline
from gradwatch.cli.check import add_check
from gradwatch.cli.compare import add_compare
from gradwatch.cli.demo import add_demo
from gradwatch.cli.explain import add_explain
from gradwatch.cli.printing import open_closed_streams, print_warning
from gradwatch.cli.report import add_report
from gradwatch.errors import GradWatchError

_NOTHING_TO_JUDGE = 2
_INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is returned.

    Args:
        arguments: words after ``gradwatch``; ``None`` takes those of the process.

    Returns:
        0 healthy, 1 findings, 2 not judged or an error of ours, 130 after Ctrl-C.

    Raises:
        SystemExit: what argparse ends with, for ``--help``, ``--version`` and unknown options.
    """
    given = sys.argv[1:] if arguments is None else arguments
    open_closed_streams()
    options = build_parser().parse_args(join_kinds(given))
    try:
        return int(options.run(options))
    except GradWatchError as error:
        print_warning(str(error))
        return _NOTHING_TO_JUDGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception:  # a fault of ours must not look like findings to a CI job
        traceback.print_exc()
        return _NOTHING_TO_JUDGE


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="gradwatch",
        description="Finds vanishing gradients in a training run: where, since when, why, "
        "and what to change.",
    )
    parser.add_argument("--version", action="version", version=f"gradwatch {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_demo(commands)
    add_check(commands)
    add_compare(commands)
    add_baseline(commands)
    add_report(commands)
    add_explain(commands)
    return parser
