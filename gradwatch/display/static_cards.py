"""The page's cards as pictures that need no script: for notebooks, exports and mail.

Heatmaps are small PNGs, curves are SVG; colours and limits are those of the interactive figures.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from gradwatch.display.figures import palette
from gradwatch.display.figures.names import shorten
from gradwatch.display.figures.palette import Matrix, Scale
from gradwatch.display.figures.series import Series, thin
from gradwatch.display.static_heatmap import colour, write_png

_ROW_PIXELS, _TALLEST, _LEAST = 14, 320, 28
_MOST_ROWS, _MOST_COLUMNS = 160, 280  # a picture of tens of kilobytes at most
_WIDTH, _CURVE = 400, (400, 120)
_WORTH_DRAWING = 0.05


def draw_cards(series: Series) -> str:
    """All cards that have something to draw, side by side where there is room; ``""`` without.

    Args:
        series: of the run.

    Returns:
        HTML with inline styles, pictures as data URIs.
    """
    if not series.steps or not series.names:
        return ""
    cards = [draw_card(name, series) for name in _CARDS]
    flow = "display:flex;flex-wrap:wrap;gap:6px 28px;align-items:flex-start"
    return f'<div style="{flow}">{"".join(cards)}</div>'


def draw_card(name: str, series: Series) -> str:
    """One of the cards; ``""`` where it is not known here or has nothing to draw.

    Args:
        name: as in ``Report.figure(name)``.
        series: of the run.
    """
    draw = _CARDS.get(name)
    picture = draw(series) if draw is not None and series.steps else ""
    if not picture:
        return ""
    return f'<div style="margin-top:10px;font-size:0.85em;max-width:100%">{picture}</div>'


def _draw_profile(series: Series) -> str:
    logs = palette.log10(series.relative)
    finite = logs[np.isfinite(logs)]
    scale = palette.gradient_scale(bool(finite.size and finite.max() > 1), series.thresholds)
    title = "Gradient against the last layers"
    return _draw(title, series, series.names, logs, *scale, "1e-8", "full")


def _draw_who_learns(series: Series) -> str:
    rows = np.flatnonzero(series.has_weight)
    logs = palette.log10(series.learning[rows])
    if not np.isfinite(logs).any():
        return ""
    scale, names = palette.fade_below(series.thresholds.loss_share), [series.names[i] for i in rows]
    return _draw("Who learns: share of the loss change", series, names, logs, scale,
                 -palette.FULL_DECADES, 0.0, "1e-8", "all")  # fmt: skip


def _draw_units(kind: str) -> Callable[[Series], str]:
    def draw(series: Series) -> str:
        values: Matrix = getattr(series, kind)
        known = values[np.isfinite(values)]
        if not known.size or known.max() < _WORTH_DRAWING:
            return ""
        limit = getattr(series.thresholds, f"{kind}_fraction")
        scale: Scale = [[0.0, "#ffffff"], [limit, "#a4abb2"], [limit, "#f08a4b"], [1.0, "#7a2500"]]
        title = f"{kind.capitalize()} units"
        return _draw(title, series, series.activations, values, scale, 0.0, 1.0, "0", "100 %")

    return draw


def _draw(
    title: str,
    series: Series,
    names: Sequence[str],
    values: Matrix,
    scale: Scale,
    low: float,
    high: float,
    least: str,
    most: str,
) -> str:
    rows, columns = thin(range(len(names)), _MOST_ROWS), thin(series.steps, _MOST_COLUMNS)
    png = write_png(colour(values[np.ix_(rows, columns)], (scale, low, high)))
    data = base64.b64encode(png).decode()
    height = max(_LEAST, min(_TALLEST, len(names) * _ROW_PIXELS))
    first, last = f"{series.steps[0]:,}", f"{series.steps[-1]:,}"
    about = f"{title}, by layer (top: {names[0]}, bottom: {names[-1]}), steps {first} to {last}"
    style = f"width:{_WIDTH}px;max-width:100%;height:{height}px;image-rendering:pixelated"
    ends = shorten(names)
    column = "display:flex;flex-direction:column;justify-content:space-between;text-align:right"
    stops = ", ".join(f"{hue} {100 * float(at):.0f}%" for at, hue in scale)
    bar = f"display:inline-block;width:90px;height:10px;background:linear-gradient(90deg, {stops})"
    return (
        f'<div><strong>{escape(title)}</strong>, steps {first} to {last}: {least} '
        f'<span style="{bar}" aria-hidden="true"></span> {most}</div>'
        f'<div style="display:flex;gap:8px;margin-top:3px"><div aria-hidden="true" '
        f'style="{column}"><span>{escape(ends[0])}</span><span>{escape(ends[-1])}</span></div>'
        f'<img src="data:image/png;base64,{data}" style="{style}" alt="{escape(about)}"></div>'
    )  # fmt: skip


def _draw_loss(series: Series) -> str:
    known = np.isfinite(series.loss)
    if known.sum() < 2:
        return ""
    steps, losses = np.array(series.steps)[known].astype(float), series.loss[known].astype(float)
    wide, tall = _CURVE
    span, low, high = max(steps[-1] - steps[0], 1.0), min(losses.min(), 0.0), losses.max()
    across = (steps - steps[0]) / span * (wide - 8) + 4
    down = tall - 4 - (losses - low) / max(high - low, 1e-30) * (tall - 8)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
    about = f"Loss from {losses[0]:.3g} at step {steps[0]:,.0f} to {losses[-1]:.3g}"
    return (
        f"<div><strong>Loss</strong>, {losses[0]:.3g} at step {steps[0]:,.0f}, "
        f"{losses[-1]:.3g} at step {steps[-1]:,.0f}</div>"
        f'<svg role="img" aria-label="{about}" viewBox="0 0 {wide} {tall}" width="{wide}" '
        f'style="max-width:100%;border:1px solid #808a9455">'
        f'<polyline points="{points}" fill="none" stroke="{palette.WEIGHT}" stroke-width="2"/>'
        "</svg>"
    )


_CARDS: dict[str, Callable[[Series], str]] = {
    "who_learns": _draw_who_learns,
    "loss": _draw_loss,
    "profile": _draw_profile,
    "saturated": _draw_units("saturated"),
    "dead": _draw_units("dead"),
}
