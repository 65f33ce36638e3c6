"""A report as one HTML file, and a verdict as a piece of HTML for a notebook.

The page is the TensorBoard tab's own, with its data and plotly.js inside (both gzipped, unpacked by
the browser), so it opens from disk without a network. The fragment needs no script at all, so that
a notebook shows it trusted or not: words, and the cards as small pictures.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gradwatch.display import assets
from gradwatch.display.figures import build_payload, series_of_verdict
from gradwatch.display.figures.events import find_events
from gradwatch.display.figures.series import MAX_DRAWN_COLUMNS
from gradwatch.display.headline import Sentence, headline, say_region, since
from gradwatch.display.page_data import write_brief, write_rules
from gradwatch.display.run_facts import RunFacts
from gradwatch.display.sampling_words import describe_trained
from gradwatch.display.static_cards import draw_cards
from gradwatch.schema.kinds import describe_cause, find_kind
from gradwatch.verdict.findings import Finding, Verdict
from gradwatch.verdict.trials import Trial

MAX_PAGE_BYTES = 6_000_000
"""A report larger than this is drawn with fewer columns per run, so that it can be mailed."""

_TONES = {"unhealthy": "#a61b1b", "well": "#0b6b50", "none": "#808a94"}
_FEWEST_COLUMNS = 40
_IMPORT = re.compile(r"^import .*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def write_page(
    verdicts: Sequence[Verdict],
    title: str = "gradwatch report",
    trials: Mapping[str, Sequence[Trial]] | None = None,
    facts: Mapping[str, RunFacts] | None = None,
) -> str:
    """One file with the words, tables and charts of these runs; needs no network.

    Without plotly installed it has the words and tables only, and says what to install.

    Args:
        verdicts: of the runs.
        title: of the page.
        trials: the remedies that were tried, by the name of the run.
        facts: what the logs say besides the records, by the name of the run.
    """
    fixed = _write_frame(verdicts, title, trials or {}, facts or {})
    columns = MAX_DRAWN_COLUMNS
    figures = _write_figures(verdicts, columns)
    while len(fixed) + sum(map(len, figures)) > MAX_PAGE_BYTES and columns > _FEWEST_COLUMNS:
        columns //= 2
        figures = _write_figures(verdicts, columns)
    return fixed.replace("<!--figures-->", "\n".join(figures), 1)


def write_fragment(verdict: Verdict) -> str:
    """Words, findings and the cards of one run, styled inline and without scripts.

    Args:
        verdict: of one run.
    """
    tone = _TONES["unhealthy" if verdict.findings else "well" if verdict.healthy else "none"]
    style = f"border-left:6px solid {tone};padding:6px 14px;max-width:960px;line-height:1.45"
    title = f'<div style="font-size:1.15em;font-weight:600">{_title(verdict)}</div>'
    parts = [f'<div style="{style}">', title]
    parts += [_write_finding(finding, verdict) for finding in verdict.findings]
    if not verdict.findings:
        parts.append(f"<div>{escape(write_brief(verdict)['summary'])}</div>")
    if verdict.trains.all_tensors:
        parts.append(f"<div>{escape(describe_trained(verdict.trains))}.</div>")
    return "\n".join([*parts, draw_cards(series_of_verdict(verdict)), "</div>"])


def _title(verdict: Verdict) -> str:
    said = _dress(headline(verdict))
    if not verdict.findings:
        return said
    return f"{escape(find_kind(verdict.findings[0].kind).title)}: {said}"


def _write_finding(finding: Finding, verdict: Verdict) -> str:
    when = since(finding, verdict).rstrip(".")
    title = find_kind(finding.kind).title
    cause = describe_cause(finding.cause)
    lines = [
        f"{escape(title)} ({escape(finding.code)}, {escape(finding.severity)}). "
        f"{escape(when)}, in {_dress(say_region(verdict, finding))}.",
        f"<strong>Cause:</strong> {_prose(': '.join(filter(None, (cause, finding.message))))}",
        f"<strong>Remedy:</strong> {_prose(finding.remedy)}",
    ]
    return f'<p style="margin:6px 0">{"<br>".join(lines)}</p>'


def _prose(text: str) -> str:
    """A sentence; what stands between backticks is a name."""
    parts = enumerate(text.split("`"))
    return "".join(
        f"<code>{escape(piece)}</code>" if place % 2 else escape(piece) for place, piece in parts
    )


def _dress(sentence: Sentence) -> str:
    return "".join(
        f"<code>{escape(piece.text)}</code>" if piece.is_name else escape(piece.text)
        for piece in sentence
    )


def _write_frame(
    verdicts: Sequence[Verdict],
    title: str,
    trials: Mapping[str, Sequence[Trial]],
    facts: Mapping[str, RunFacts],
) -> str:
    """The page without its figures."""
    named = _name_runs(verdicts)
    runs: list[dict[str, Any]] = []
    for name, verdict in zip(named, verdicts, strict=True):
        events = find_events(series_of_verdict(verdict))
        tried, known = trials.get(verdict.run, ()), facts.get(verdict.run)
        brief = {**write_brief(verdict, tried, events, known), "run": name}
        runs.append({key: value for key, value in brief.items() if key != "layers"})
    plotly = assets.read_plotly()
    data = {"runs": runs, "settled": True, "plotly": plotly is not None, "rules": write_rules()}
    pieces = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{assets.read_asset(assets.STYLE).decode()}</style></head>",
        '<body><div id="gradwatch"></div>',
        f"<noscript>{''.join(write_fragment(verdict) for verdict in verdicts)}</noscript>",
        _store("gradwatch-runs", "application/json", _json(data)),
        "<!--figures-->",
        _store("gradwatch-plotly", "text/plain", _base64(plotly) if plotly else ""),
        f'<script type="module">{_bundle()}\nrender();</script>',
        "</body></html>",
    ]
    return "\n".join(pieces)


def _name_runs(verdicts: Sequence[Verdict]) -> list[str]:
    """Names that differ, so that the page can tell the runs apart."""
    names: list[str] = []
    for index, verdict in enumerate(verdicts):
        name = verdict.run or "run"
        names.append(name if name not in names else f"{name} ({index + 1})")
    return names


def _write_figures(verdicts: Sequence[Verdict], columns: int) -> list[str]:
    return [
        _store(f"gradwatch-figures-{index}", "text/plain", _pack(verdict, columns))
        for index, verdict in enumerate(verdicts)
    ]


def _pack(verdict: Verdict, columns: int) -> str:
    payload = build_payload(series_of_verdict(verdict, columns))
    payload["layers"] = write_brief(verdict)["layers"]
    text = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    return _base64(gzip.compress(text.encode(), 9, mtime=0))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _json(data: Any) -> str:
    """JSON that cannot end its script element: names are untrusted."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _store(name: str, kind: str, content: str) -> str:
    return f'<script type="{kind}" id="{name}">{content}</script>'


def _bundle() -> str:
    """Our modules as one: in order of their imports, without the imports themselves."""
    entry, *others = assets.MODULES
    sources = [assets.read_asset(name).decode() for name in (*others, entry)]
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", source)) for source in sources)
