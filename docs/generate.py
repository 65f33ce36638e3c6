"""Writes the pages that are made from the package itself: docs/rules/*.md.

    python docs/generate.py            # rewrite them
    python docs/generate.py --check    # exit 1 when one is out of date

The text of a page is ``Rule.doc``, the same that ``gradwatch explain CODE`` prints.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gradwatch.verdict.rule import Rule
from gradwatch.verdict.rules import DEFAULT_RULES

DOCS = Path(__file__).parent
MADE = "% Made by docs/generate.py from the rule itself; change the rule, not this page.\n\n"


def build_pages(rules: Sequence[Rule] = DEFAULT_RULES) -> dict[str, str]:
    """Every generated page: path below ``docs/`` -> text."""
    pages = {f"rules/{rule.code}.md": _write_page(rule) for rule in rules}
    return {"rules/index.md": _write_index(sorted(rules, key=lambda rule: rule.code)), **pages}


def find_stale(docs: Path = DOCS) -> list[str]:
    """Pages that are missing, out of date, or of a rule that is no more."""
    pages = build_pages()
    stale = [name for name, text in pages.items() if _read(docs / name) != text]
    present = {f"rules/{path.name}" for path in (docs / "rules").glob("*.md")}
    return sorted({*stale, *(present - set(pages))})


def _write_page(rule: Rule) -> str:
    return f"{MADE}# {rule.code}: {rule.title}\n\n{rule.doc.strip()}\n"


def _write_index(rules: Sequence[Rule]) -> str:
    rows = [f"| [{r.code}]({r.code}.md) | `{r.kind}` | {r.title} |" for r in rules]
    toctree = ["```{toctree}", ":hidden:", "", *(rule.code for rule in rules), "```"]
    table = ["| Rule | Kind | Finds |", "|---|---|---|", *rows]
    intro = "`gradwatch explain CODE` prints the same pages in the terminal."
    return MADE + "\n".join(["# Rules", "", intro, "", *table, "", *toctree]) + "\n"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main(arguments: Sequence[str]) -> int:
    stale = find_stale()
    if "--check" in arguments:
        print("\n".join(f"out of date: docs/{name}" for name in stale) or "up to date")
        return int(bool(stale))
    pages = build_pages()
    for name in stale:
        if name in pages:
            (DOCS / name).parent.mkdir(exist_ok=True)
            (DOCS / name).write_text(pages[name], encoding="utf-8")
        else:
            (DOCS / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
