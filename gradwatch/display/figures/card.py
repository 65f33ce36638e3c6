"""Card: a picture on the page, with the words around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gradwatch.display.figures.palette import Figure
from gradwatch.display.figures.series import Series


@dataclass(frozen=True)
class Card:
    """A picture and its words; tab, report and notebook show it as it is here.

    Attributes:
        name: as in ``Report.figure(name)``.
        title: of the card.
        description: one line below the title: what is drawn.
        build: the figure; ``None`` where there is nothing to draw. A figure with layers as rows
            has ``axis_meta(names)`` and ``steps`` in ``layout.meta``, so that the page can filter
            its rows and draw a line at the chosen step.
        explain_empty: one sentence: why there is nothing to draw.
        is_first: it stands above the profile of the gradient.
    """

    name: str
    title: str
    description: str
    build: Callable[[Series], Figure | None]
    explain_empty: Callable[[Series], str]
    is_first: bool = False
