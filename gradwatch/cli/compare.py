"""``gradwatch compare A B``: which layers learn less in B than in A."""

from __future__ import annotations

import argparse
import math
from typing import Any

from gradwatch.cli.arguments import add_allow_unfinished, add_output, add_thresholds
from gradwatch.cli.printing import draw, print_warning, write, write_file


def add_compare(commands: Any) -> None:
    """The command and its options.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    compare = commands.add_parser(
        "compare",
        help="Tell which layers learn less in one log directory than in another.",
        description="Compare the runs under B with those under A, layer by layer, over the later "
        "half of the steps that all of them sampled. Several runs under A (seeds of the same "
        "training) tell how far two may lie apart; for a single one a factor of ten is allowed.",
        epilog="Exit status: 0 no layer learns less; 1 some do; 2 they cannot be compared, "
        "or a run is damaged or unfinished.",
    )
    compare.add_argument("before", metavar="A", help="log directory of the runs to hold against")
    compare.add_argument("after", metavar="B", help="log directory of the runs in question")
    compare.add_argument(
        "--fail-on-worse",
        type=_parse_factor,
        metavar="FACTOR",
        help="fail from this factor on, such as 10x, whatever the spread of A",
    )
    compare.add_argument("--format", choices=("text", "json"), default="text", help="(%(default)s)")
    add_allow_unfinished(compare)
    add_output(compare)
    add_thresholds(compare)
    compare.set_defaults(run=_run_compare)


def _parse_factor(text: str) -> float:
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = math.nan
    if not 1 < factor < math.inf:
        raise argparse.ArgumentTypeError(f"expected a factor above 1, such as 10x, got {text!r}")
    return factor


def _run_compare(options: argparse.Namespace) -> int:
    from gradwatch.cli.judging import choose_overrides
    from gradwatch.configuration import find_configuration
    from gradwatch.gate.comparison import compare_logdirs
    from gradwatch.output.comparison import render_comparison, write_comparison_json
    from gradwatch.thresholds import Thresholds

    thresholds = Thresholds().replace(**choose_overrides(options, find_configuration()))
    comparison = compare_logdirs(
        options.before,
        options.after,
        thresholds,
        options.fail_on_worse,
        options.allow_unfinished,
    )
    for words in comparison.warnings:
        print_warning(words)
    if options.format == "json":
        text = write_comparison_json(comparison)
    else:
        text = draw(render_comparison(comparison), to_stdout=options.output is None)
    write(text) if options.output is None else write_file(options.output, text)
    return comparison.status
