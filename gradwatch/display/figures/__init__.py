"""The pictures as plain Plotly dictionaries: one builder each, for the tab, the page and notebooks.

Nothing here imports plotly: a figure is ``{"data": [...], "layout": {...}}`` with arrays as base64.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from gradwatch.display.figures.card import Card
from gradwatch.display.figures.events import find_events
from gradwatch.display.figures.hover import add_words
from gradwatch.display.figures.palette import Figure
from gradwatch.display.figures.profile import build_profile
from gradwatch.display.figures.series import MAX_DRAWN_COLUMNS, Series, series_of
from gradwatch.errors import GradWatchError, InvalidInput, NothingToJudge
from gradwatch.verdict.findings import Verdict

__all__ = [
    "CARDS",
    "FIGURES",
    "Figure",
    "Series",
    "build_figures",
    "build_payload",
    "draw_figure",
    "series_of_verdict",
]

_MAX_WORDED_CELLS = 100_000  # some 5 MB of words in a notebook; more are drawn with fewer steps
_LEAST_COLUMNS = 50

_FILES = (
    "who_learns",
    "loss",
    "shares",
    "units",
    "updates",
)
"""Files here with ``CARDS``, in the order in which the page shows them."""

CARDS: tuple[Card, ...] = tuple(
    card for name in _FILES for card in import_module(f"{__name__}.{name}").CARDS
)
"""The pictures beside the profile of the gradient, which has the slider."""

FIGURES: dict[str, Callable[[Series], Figure | None]] = {
    "profile": build_profile,
    **{card.name: card.build for card in CARDS},
}
"""Name of a picture to its builder; a builder answers ``None`` where there is nothing to draw."""


def build_figures(series: Series) -> dict[str, Figure | None]:
    """All pictures of one run; empty when nothing was recorded.

    Args:
        series: of one run.

    Returns:
        Figures by name, in the order of ``FIGURES``; ``None`` for what was not measured.
    """
    if not series.steps or not series.names:
        return {}
    return {name: build(series) for name, build in FIGURES.items()}


def build_payload(series: Series) -> dict[str, Any]:
    """What the page fetches of one run: the pictures, and the cards in order with their words.

    Args:
        series: of one run.

    Returns:
        Plain data for JSON, arrays as base64; NaN occurs inside these only.
    """
    figures = build_figures(series)
    cards = [
        {
            "name": card.name,
            "title": card.title,
            "description": card.description,
            "first": card.is_first,
            "empty": "" if figures.get(card.name) else card.explain_empty(series),
        }
        for card in CARDS
    ]
    events = [event.to_dict() for event in find_events(series)]
    limits = series.thresholds
    compare = {"factor": limits.compare_worse, "records": limits.compare_records}
    return {"figures": figures, "cards": cards, "events": events, "compare": compare}


def series_of_verdict(verdict: Verdict, limit: int = MAX_DRAWN_COLUMNS) -> Series:
    """What is drawn of a verdict: the records that its history kept.

    Args:
        verdict: without records when it came from JSON: then the series is empty.
        limit: most columns; the records between are left out evenly.
    """
    records = verdict.history.records if verdict.history is not None else ()
    limits = verdict.history.thresholds if verdict.history is not None else None
    return series_of(records, limit, limits)


def draw_figure(verdict: Verdict, name: str = "profile") -> Any:
    """A ``plotly.graph_objects.Figure`` of one picture, for notebooks.

    Args:
        verdict: with its history.
        name: a key of ``FIGURES``.

    Raises:
        InvalidInput: no picture of that name.
        NothingToJudge: no record, or nothing of this kind was measured.
        GradWatchError: plotly is not installed.
    """
    build = FIGURES.get(name)
    if build is None:
        raise InvalidInput(
            f"Expected a picture among {', '.join(FIGURES)}, got {name!r}. Choose one of these."
        )
    columns = _MAX_WORDED_CELLS // max(len(verdict.layers), 1)
    series = series_of_verdict(verdict, min(MAX_DRAWN_COLUMNS, max(columns, _LEAST_COLUMNS)))
    figure = build(series) if series.steps and series.names else None
    if figure is None:
        raise NothingToJudge(
            f"Expected a run with something to draw as {name!r}, got none in {verdict.records} "
            "records. Train some steps, or choose another picture."
        )
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise GradWatchError(
            "Expected plotly for a figure, got no such package. Run: pip install 'gradwatch[plots]'"
        ) from error
    from gradwatch.display.static_cards import draw_card

    return _add_picture(graph_objects.Figure, draw_card(name, series))(add_words(figure))


def _add_picture(base: type[Any], html: str) -> type[Any]:
    """A figure that is no blank where an exported notebook has no script: it has a picture too."""

    class PicturedFigure(base):  # type: ignore[misc]
        def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            bundle: dict[str, Any] = super()._repr_mimebundle_(*args, **kwargs)
            return {"text/html": html, **bundle} if html else bundle

    return PicturedFigure
