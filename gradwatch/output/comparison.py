"""A comparison for a terminal and for a machine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from rich.text import Text

from gradwatch.display.layer_table import make_printable
from gradwatch.gate.comparison import Comparison, Regression

_MOST_LINES = 30


def render_comparison(comparison: Comparison) -> Iterator[Text]:
    """The result in one line, and one line for each regression.

    Args:
        comparison: of two log directories; at most 30 regressions are shown.
    """
    steps = comparison.steps
    window = f"{len(steps)} steps from {steps[0]:,} to {steps[-1]:,}"
    sides = f"{comparison.n_after} against {comparison.n_before} runs"
    layers = len({regression.fqn for regression in comparison.regressions})
    if comparison.regressions:
        words = f"✗ {layers} of {comparison.n_layers} layers learn less"
    elif comparison.is_whole:
        words = f"✓ No layer of {comparison.n_layers} learns less"
    else:
        words = f"! Not compared whole; of what was, no layer of {comparison.n_layers} learns less"
    yield Text(f"{words}  ({window}, {sides})")
    shown = comparison.regressions[:_MOST_LINES]
    lines = [f"  {make_printable(str(regression))}" for regression in shown]
    if len(comparison.regressions) > len(shown):
        lines.append(f"  ... and {len(comparison.regressions) - len(shown)} more")
    if lines:
        yield Text("\n".join(lines))


def write_comparison_json(comparison: Comparison) -> str:
    """One strict JSON object.

    Args:
        comparison: of two log directories.
    """
    return json.dumps(describe_comparison(comparison), indent=2, ensure_ascii=False)


def describe_comparison(comparison: Comparison) -> dict[str, object]:
    """Plain data, for JSON or a page.

    Args:
        comparison: of two log directories.

    Returns:
        Only types that JSON has; a distance that is not finite is ``None``.
    """
    return {
        "schema_version": 1,
        "status": comparison.status,
        "steps": list(comparison.steps),
        "layers": comparison.n_layers,
        "runs_before": comparison.n_before,
        "runs_after": comparison.n_after,
        "regressions": [_write_row(regression) for regression in comparison.regressions],
        "warnings": list(comparison.warnings),
    }


def _write_row(row: Regression) -> dict[str, object]:
    return {
        "layer": row.fqn,
        "measure": row.measure.name,
        "before": row.before,
        "after": row.after,
        "distance": row.distance if math.isfinite(row.distance) else None,
        "tolerance": row.tolerance,
        "unit": "share" if row.measure.is_share else "decades",
        "words": str(row),
    }
