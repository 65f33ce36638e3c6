"""``gradwatch demo``: an unhealthy and a healthy training, judged."""

from __future__ import annotations

import argparse
from typing import Any

from gradwatch.cli.arguments import parse_positive


def add_demo(commands: Any) -> None:
    """The command and its options.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    text = "Train an unhealthy and a healthy network on handwritten digits, and judge both."
    demo = commands.add_parser("demo", help=text, description=text)
    demo.add_argument("--logdir", default="runs/demo", help="where the logs go (%(default)s)")
    demo.add_argument(
        "--steps",
        type=parse_positive,
        default=600,
        help="optimizer steps per network (%(default)s)",
    )
    demo.set_defaults(run=_run_demo)


def _run_demo(options: argparse.Namespace) -> int:
    from gradwatch.demo import run_demo

    run_demo(options.logdir, options.steps)
    return 0
