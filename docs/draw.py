"""Draws the pictures of the README and the docs that need no browser.

python docs/draw.py architecture    # the arrows, from the import contract in setup.cfg
python docs/draw.py verdict         # what the terminal shows of a real unhealthy training
python docs/draw.py loss_change     # who learns in a healthy and in an unhealthy training
"""

from __future__ import annotations

import configparser
import io
import math
import re
import runpy
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from gradwatch.report import Report
from gradwatch.thresholds import Thresholds
from gradwatch.wording.phrases import name_number

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"

ROW_HEIGHT, ROW_GAP, WIDTH, MARGIN = 36, 22, 720, 12
PADDING_CHARS = 4  # of a box, on top of its name
STYLE = """
text { font: 15px system-ui, sans-serif; text-anchor: middle; fill: #1f2933; }
rect { fill: #e8eef7; stroke: #4a6fa5; rx: 6px; }
path { stroke: #6b7785; fill: none; marker-end: url(#tip); }
marker path { fill: #6b7785; stroke: none; }
"""


def read_layers() -> list[list[str]]:
    """Rows of the contract, the outermost first; the modules of a row do not know each other."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["importlinter:contract:arrows"]["layers"].split("\n")
    return [re.findall(r"\w+", line) for line in lines if line.strip()]


def draw_architecture() -> str:
    """An SVG with one row per layer and an arrow from each row to the one that it may import."""
    rows = read_layers()
    height = len(rows) * (ROW_HEIGHT + ROW_GAP) - ROW_GAP + 2 * MARGIN
    parts = [_draw_row(names, MARGIN + i * (ROW_HEIGHT + ROW_GAP)) for i, names in enumerate(rows)]
    arrows = [_draw_arrow(MARGIN + i * (ROW_HEIGHT + ROW_GAP)) for i in range(1, len(rows))]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}">\n<style>{STYLE}</style>\n'
        f'<rect x="0" y="0" width="{WIDTH}" height="{height}" style="fill:#fff;stroke:none"/>\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>\n'
        + "\n".join([*parts, *arrows])
        + "\n</svg>\n"
    )


def _draw_row(names: list[str], top: int) -> str:
    room = WIDTH - 2 * MARGIN - ROW_GAP * (len(names) - 1)
    shares = [len(name) + PADDING_CHARS for name in names]
    boxes, left = [], float(MARGIN)
    for name, share in zip(names, shares, strict=True):
        width = room * share / sum(shares)
        boxes.append(
            f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{ROW_HEIGHT}"/>'
            f'<text x="{left + width / 2:.0f}" y="{top + ROW_HEIGHT / 2 + 5:.0f}">'
            f"{escape(name)}</text>"
        )
        left += width + ROW_GAP
    return "\n".join(boxes)


def _draw_arrow(top: int) -> str:
    return f'<path d="M{WIDTH // 2} {top - ROW_GAP + 3} V{top - 3}"/>'


def draw_verdict() -> str:
    """The report of examples/plain_loop.py's sigmoid network after one epoch, as the terminal."""
    from rich.console import Console

    report = _train_example("sigmoid", every_n_steps=10)
    if report.healthy:
        raise SystemExit("Expected a verdict with a finding to draw, got a healthy one.")
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(report)
    picture = console.export_svg(title="gradwatch", unique_id="gradwatch")
    # The picture has to stand without a network: a font of the reader's machine does.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def _train_example(activation: str, every_n_steps: int) -> Report:
    """One epoch of examples/plain_loop.py's network."""
    import torch

    import gradwatch

    example = runpy.run_path(str(ROOT / "examples" / "plain_loop.py"))
    torch.manual_seed(0)
    model, loss_fn = example["build_model"](activation), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with gradwatch.watch(model, optimizer, every_n_steps=every_n_steps) as watch:
        for x, y in example["load_data"]():
            loss_fn(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    return watch.report()


def draw_loss_change() -> str:
    """Each layer's share of the loss change in two trainings of one depth, averaged over steps."""
    import numpy as np

    from gradwatch.display.figures import series_of_verdict

    panels = []
    for place, activation in enumerate(("relu", "sigmoid")):
        series = series_of_verdict(_train_example(activation, every_n_steps=5))
        shares = np.nanmean(series.learning, axis=1)
        panels.append(_draw_shares(activation, series.names, shares, 10 + 370 * place))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 750 330" width="750" height="330">\n'
        "<style>text { font: 13px system-ui, sans-serif; fill: #1f2933; }</style>\n"
        '<rect width="750" height="330" fill="#fff"/>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _draw_shares(title: str, names: Sequence[str], shares: Any, left: int) -> str:
    """A bar per layer, eight decades long; blue down to the limit of the rule, red below."""
    limit, rows = Thresholds().loss_share, []
    for row, (name, share) in enumerate(zip(names, shares, strict=True)):
        width = 200 * (1 + math.log10(min(max(share, 1e-8), 1.0)) / 8)
        said = f"{100 * share:.2g} %" if share >= 1e-3 else f"1 in {name_number(1 / share)}"
        hue, top = ("#2f7fb8" if share >= limit else "#c0352b"), 52 + 21 * row
        rows.append(
            f'<text x="{left + 40}" y="{top}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left + 48}" y="{top - 12}" width="{width:.1f}" height="15" fill="{hue}"/>'
            f'<text x="{left + 54 + width:.1f}" y="{top}">{said}</text>'
        )
    heading = f"{title}: share of the loss change, log scale"
    return f'<text x="{left}" y="24" font-weight="600">{heading}</text>' + "".join(rows)


DRAWINGS = {
    "architecture": draw_architecture,
    "verdict": draw_verdict,
    "loss_change": draw_loss_change,
}


def main(names: list[str]) -> int:
    unknown = set(names) - set(DRAWINGS)
    if unknown:
        print(f"Expected names among {', '.join(DRAWINGS)}, got {', '.join(sorted(unknown))}.")
        return 2
    IMAGES.mkdir(exist_ok=True)
    for name in names or list(DRAWINGS):
        (IMAGES / f"{name}.svg").write_text(DRAWINGS[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
