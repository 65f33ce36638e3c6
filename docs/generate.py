"""Writes the pages that are made from the package itself: docs/rules/*.md and docs/cli.md.

    python docs/generate.py            # rewrite them
    python docs/generate.py --check    # exit 1 when one is out of date

The text of a page is ``Rule.doc``, the same that ``gradwatch explain CODE`` prints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gradwatch.cli import build_parser
from gradwatch.pytest_plugin.settings import add_options
from gradwatch.verdict.rule import Rule
from gradwatch.verdict.rules import DEFAULT_RULES

DOCS = Path(__file__).parent
FIXTURE = """`gradwatch_check.check(model, batches, loss_fn, ...)` trains a copy of the model for
some steps, and `gradwatch_check.watch(model, optimizer)` watches a training of the test's own. The
test fails when layers get no gradient, or when nothing can be judged. Arguments are those of
`gradwatch.check` and `gradwatch.watch`. `gradwatch` is an older name of the same fixture."""
CLI_MADE = "% Made by docs/generate.py from the commands themselves; change them, not this page.\n"
MADE = "% Made by docs/generate.py from the rule itself; change the rule, not this page.\n\n"


def build_pages(rules: Sequence[Rule] = DEFAULT_RULES) -> dict[str, str]:
    """Every generated page: path below ``docs/`` -> text."""
    pages = {f"rules/{rule.code}.md": _write_page(rule) for rule in rules}
    index = _write_index(sorted(rules, key=lambda rule: rule.code))
    return {"rules/index.md": index, "cli.md": _write_cli(), **pages}


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


def _write_cli() -> str:
    """Every command and its options, and the fixture's settings; the same on every Python."""
    parser = build_parser()
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    parts = [
        CLI_MADE,
        "# Command line and fixture",
        "",
        "`gradwatch COMMAND --help` says the same.",
    ]
    for name, command in sorted(commands.choices.items()):
        parts += ["", f"## gradwatch {name}", "", _plain(command.description or "")]
        parts += ["", "| Argument | |", "|---|---|", *_list_arguments(command)]
        parts += ["", command.epilog] if command.epilog else []
    return "\n".join([*parts, "", *_write_fixture()]) + "\n"


def _list_arguments(command: argparse.ArgumentParser) -> Iterator[str]:
    for one in command._actions:
        if one.dest != "help":
            names = ", ".join(one.option_strings) or str(one.metavar or one.dest)
            takes = "" if one.nargs == 0 or not one.option_strings else f" {_name_value(one)}"
            words = (one.help or "") % {"default": one.default}
            yield f"| `{names}{takes}` | {_plain(words)} |"


def _name_value(action: argparse.Action) -> str:
    return (
        "/".join(action.choices) if action.choices else str(action.metavar or action.dest).upper()
    )


def _plain(words: str) -> str:
    return words.replace("|", "\\|").replace("\n", " ")


def _write_fixture() -> list[str]:
    parser = _Settings()
    add_options(parser)  # type: ignore[arg-type]
    rows = [f"| `{name}` | {_plain(words)} |" for name, words in parser.rows]
    return ["## The pytest fixture", "", FIXTURE, "", "| Setting | |", "|---|---|", *rows]


class _Settings:
    """Stands in for pytest's parser, and remembers what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def getgroup(self, *_: str) -> _Settings:
        return self

    def addoption(self, name: str, **how: Any) -> None:
        self.rows.append((name, how["help"]))

    def addini(self, name: str, words: str, **_: Any) -> None:
        self.rows.append((f"{name} (ini)", words))


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
