"""Writes the pages that are made from the package itself: docs/rules/*.md, docs/cli.md and
docs/measured.md; and puts the measured figures into those that quote them.

    python docs/generate.py            # rewrite them
    python docs/generate.py --check    # exit 1 when one is out of date

The text of a page is ``Rule.doc``, the same that ``gradwatch explain CODE`` prints.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from gradwatch.cli import build_parser
from gradwatch.pytest_plugin.settings import add_options
from gradwatch.schema.activations import ACTIVATIONS
from gradwatch.schema.statistics import STATISTICS, Scope
from gradwatch.verdict.rule import Rule
from gradwatch.verdict.rules import DEFAULT_RULES

DOCS = Path(__file__).parent
FIXTURE = """`gradwatch_check.check(model, batches, loss_fn, ...)` trains a copy of the model for
some steps, and `gradwatch_check.watch(model, optimizer)` watches a training of the test's own. The
test fails when layers get no gradient, or when nothing can be judged. Arguments are those of
`gradwatch.check` and `gradwatch.watch`. `gradwatch` is an older name of the same fixture."""
TOOLS = {
    "**gradwatch**, default settings": "gradwatch@50",
    "**gradwatch**, every step sampled": "gradwatch@1",
    "`torchmortem`": "torchmortem",
    "AutoTrainer's rules": "autotrainer",
    "DeepDiagnosis's rules": "deepdiagnosis",
    "SageMaker Debugger's rules": "sagemaker",
}
"""Rows of the README's table, and what docs/detection.md calls them."""

COSTS = {
    "**gradwatch**, default settings": "**gradwatch, default schedule**",
    "**gradwatch**, every step sampled": "**gradwatch, every step**",
    "`torchmortem`": "`torchmortem`",
    "`wandb.watch`, default settings": "`wandb.watch`, default",
    "Lightning `grad_norm`": "Lightning `grad_norm`",
}
"""The same, and what docs/overhead.md calls them."""

SCOPES = {
    "layer": "Each call of a layer",
    "activation": "Each call of an activation",
    "param": "Each parameter",
    "step": "The step",
}

ROWS_MADE = """% Made by docs/generate.py from gradwatch.schema; change its rows, not this page.

# What is measured

A record of one sampled step has one number per layer, parameter or step of each statistic below:
float64 in memory, float32 in a log, NaN where it was not measured. `StepRecord.layer(name)`,
`.param(name)` and `.step(name)` answer them. A formula is a Python expression of tensors, which a
test evaluates beside a training: `output`, `grad_output` and `grad_input` of a call, `slope`
(the activation's derivative) and its largest value, `steepest`; `grad`, `weight` (before the step)
and `update` of a parameter.

"""

CLI_MADE = "% Made by docs/generate.py from the commands themselves; change them, not this page.\n"
MADE = "% Made by docs/generate.py from the rule itself; change the rule, not this page.\n\n"


def build_pages(rules: Sequence[Rule] = DEFAULT_RULES) -> dict[str, str]:
    """Every generated page: path below ``docs/`` -> text."""
    pages = {f"rules/{rule.code}.md": _write_page(rule) for rule in rules}
    figures = {"../README.md": _quote_figures(DOCS.parent / "README.md")}
    figures["accuracy.md"] = _quote_figures(DOCS / "accuracy.md")
    index = _write_index(sorted(rules, key=lambda rule: rule.code))
    made = {"rules/index.md": index, "cli.md": _write_cli(), "measured.md": _write_rows()}
    return {**made, **figures, **pages}


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


def _write_rows() -> str:
    """Every statistic and every activation, as their rows have them."""
    parts = []
    for scope in get_args(Scope):
        rows = [row for row in STATISTICS.values() if row.scope == scope]
        parts += ["", f"## {SCOPES[scope]}: `{rows[0].shape}`", ""]
        parts += [
            "| Name | What | Formula | Over passes | Over ranks | Source |",
            "|---|---|---|---|---|---|",
        ]
        parts += [
            f"| `{row.name}` | {_plain(row.meaning)} | {row.formula and f'`{row.formula}`'} | "
            f"{row.over_calls} | {row.over_ranks} | {row.source} |"
            for row in rows
        ]
    parts += [
        "",
        "## Activations",
        "",
        "| Name | Derivative | Flat | Largest | Initialisation | Gain |",
    ]
    parts += ["|---|---|---|---|---|---|"]
    for act in ACTIVATIONS.values():
        formula = _plain((act.derivative.__doc__ or "\n").splitlines()[0].replace("``", "`"))
        gain = f"{act.maximum:.3g} | {act.scheme} | {act.gain:.3g}"
        parts.append(f"| `{act.name}` | {formula} | {act.flat} | {gain} |")
    return ROWS_MADE + "\n".join(parts[1:]) + "\n"


def _write_cli() -> str:
    """Every command and its options, and the fixture's settings; the same on every Python."""
    parser = build_parser()
    subparsers = argparse._SubParsersAction
    (commands,) = (action for action in parser._actions if isinstance(action, subparsers))
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
    for action in command._actions:
        if action.dest != "help":
            names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            takes = (
                "" if action.nargs == 0 or not action.option_strings else f" {_name_value(action)}"
            )
            words = (action.help or "") % {"default": action.default}
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


def _quote_figures(page: Path) -> str:
    """A page with the figures that docs/detection.md has now."""
    measured = (DOCS / "detection.md").read_text(encoding="utf-8")
    found = re.search(
        r"holds (\d+) small labelled training runs: (\d+) unhealthy ones\s+and (\d+)", measured
    )
    assert found, "docs/detection.md says how large the zoo is"
    runs, unhealthy, well = found.groups()
    text = page.read_text(encoding="utf-8")
    for label, name in TOOLS.items():
        row = re.search(rf"^\| {re.escape(name)} \| ([^|]*) \| [^|]* \| ([^|]*) \|", measured, re.M)
        assert row, f"docs/detection.md has a row of {name}"
        cells = f"| {label} | {row[1]} | {row[2]} |"
        text = re.sub(rf"^\| {re.escape(label)} \| [^|]* \| [^|]* \|", cells, text, flags=re.M)
    ours = re.search(r"^\| gradwatch@50 \| (\d+) of", measured, re.M)
    assert ours
    text = re.sub(r"\d+ labelled trainings", f"{runs} labelled trainings", text)
    text = re.sub(r"\d+ small labelled trainings", f"{runs} small labelled trainings", text)
    text = re.sub(
        r"\d+ unhealthy and \d+ healthy", f"{unhealthy} unhealthy and {well} healthy", text
    )

    text = re.sub(r"finds \d+ of the \d+", f"finds {ours[1]} of the {unhealthy}", text)
    text = re.sub(r"lasting alarm on the \d+", f"lasting alarm on the {well}", text)
    return _quote_costs(text)


def _quote_costs(text: str) -> str:
    """The last column of the README's table: a GPT's step against the bare one."""
    measured = (DOCS / "overhead.md").read_text(encoding="utf-8")
    ratio = r" \| [^|]* \| [^|]* \| ([\d.]+) (\[[^]]*\])"
    for label, name in COSTS.items():
        row = re.search(rf"^\| {re.escape(name)}{ratio}", measured, flags=re.MULTILINE)
        assert row, f"docs/overhead.md has a row of {name}"
        text = re.sub(
            rf"^(\| {re.escape(label)} \|.*\|) [\d.]+ \|$", rf"\g<1> {row[1]} |", text, flags=re.M
        )
    bare = re.search(rf"^\| bare step, again{ratio}", measured, flags=re.MULTILINE)
    assert bare
    return re.sub(r"stood at [\d.]+ \[[^]]*\]", f"stood at {bare[1]} {bare[2]}", text)


class _Settings:
    """Stands in for pytest's parser, and remembers what it is given."""

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
