"""How large the rules are: lines of code, and places at which the code decides.

    python -m benchmarks.rule_size                   of the working tree
    git show COMMIT:FILE | python -m benchmarks.rule_size -    of a file as it was

Lines of code are those with a token that is neither a comment nor a documentation string. A place
that decides is an ``if``, a loop, a conditional expression, a part of ``and`` or ``or``, or a
comprehension with each of its conditions.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "gradwatch"

PARTS = {
    "vanishing: the criterion": ("verdict/rules/vanishing.py",),
    "vanishing: what it spares": ("verdict/vanishing_guards.py", "evidence/zero_gradients.py"),
    "vanishing: its causes": (
        "verdict/vanishing_causes.py", "evidence/attribution.py", "evidence/paths.py",
    ),
    "the other rules": (
        "verdict/diverging_steps.py",
        *(
            f"verdict/rules/{name}.py"
            for name in (
                "dead", "disconnected", "exploding", "nonfinite", "saturated", "through_time",
                "underflow",
            )
        ),
    ),
}  # fmt: skip
"""Files of gradwatch by what they are for."""

_BLANK = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.COMMENT,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Size:
    """Of some code.

    Attributes:
        lines: of code.
        decisions: places at which it decides.
    """

    lines: int = 0
    decisions: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.lines + other.lines, self.decisions + other.decisions)


def measure_source(source: str) -> Size:
    """Size of one file's text."""
    nodes = list(ast.walk(ast.parse(source)))
    documented = {
        line
        for node in nodes
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {
        line
        for token in tokens
        if token.type not in _BLANK
        for line in range(token.start[0], token.end[0] + 1)
    }
    return Size(len(lines - documented), sum(map(_count_decisions, nodes)))


def _count_decisions(node: ast.AST) -> int:
    if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.For)):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return 1 + len(node.ifs) if isinstance(node, ast.comprehension) else 0


def measure_files(names: Iterable[str]) -> Size:
    """Size of some files of gradwatch together."""
    texts = ((PACKAGE / name).read_text(encoding="utf-8") for name in names)
    return sum(map(measure_source, texts), Size())


def main() -> None:
    """Print the sizes."""
    if sys.argv[1:] == ["-"]:
        print(measure_source(sys.stdin.read()))
        return
    for part, names in PARTS.items():
        print(f"{part}: {measure_files(names)}")


if __name__ == "__main__":
    main()
