"""What a command says: results to stdout or a file, everything else to stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from gradwatch.errors import GradWatchError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gradwatch.workers.pool import Workers

_PLAIN_WIDTH = 100  # columns where the output is no terminal, as in a CI log


def draw(views: Iterable[RenderableType], to_stdout: bool = True) -> str:
    """What rich makes of it for stdout or for a file, with an empty line between the pieces.

    Args:
        views: in the order in which they are shown.
        to_stdout: with the terminal's width and colours; otherwise plain, 100 columns.
    """
    file = sys.stdout if to_stdout else io.StringIO()
    text = _capture(_make_console(file), views)
    return text if file.isatty() else _strip(text)


def _make_console(file: TextIO, **settings: Any) -> Console:
    from rich.console import Console

    width = None if file.isatty() else _PLAIN_WIDTH
    return Console(file=file, width=width, highlight=False, **settings)


def _capture(console: Console, views: Iterable[RenderableType]) -> str:
    with console.capture() as captured:
        for place, view in enumerate(views):
            if place:
                console.print()
            console.print(view)
    return captured.get()


def _strip(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n"))


class _Part(Protocol):
    """What can be drawn without the others."""

    def render(self) -> Iterable[RenderableType]:
        """What rich prints, one piece after the other."""


@dataclass(frozen=True)
class _Paper:
    """What rich has to know of where the text goes, which a worker process cannot see."""

    encoding: str
    legacy_windows: bool

    def draw(self, part: _Part) -> str:
        return _capture(_open_paper(self), part.render())


@lru_cache(maxsize=1)
def _open_paper(paper: _Paper) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=paper.encoding)
    return _make_console(file, legacy_windows=paper.legacy_windows)


def draw_parts(parts: Sequence[_Part], workers: Workers, to_stdout: bool = True) -> str:
    """As ``draw``, of much: by several processes where it is not for a terminal.

    Args:
        parts: that can be pickled, in the order in which they are shown.
        workers: that draw them.
        to_stdout: as in ``draw``.
    """
    file = sys.stdout if to_stdout else io.StringIO()
    if file.isatty():
        return draw(chain.from_iterable(part.render() for part in parts))
    console = _make_console(file)
    paper = _Paper(console.encoding, console.legacy_windows)
    drawn = workers.map(paper.draw, parts, lambda part, reason: paper.draw(part))
    return _strip("\n".join(drawn))


def open_closed_streams() -> None:
    """Give a stdout or stderr that is closed (``>&-``) a place to write to: nobody reads there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def show(*views: RenderableType) -> None:
    """Print what rich draws.

    Args:
        views: what rich can render, with an empty line between each two.
    """
    write(draw(views))


def write(text: str) -> None:
    """Write to stdout; a reader that went away (``| head``) does not change the exit status.

    Args:
        text: characters that the terminal's encoding lacks are escaped; a line's end is added.

    Raises:
        GradWatchError: stdout takes nothing, as on a full disk.
    """
    if not text:
        return
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes stdout once more at exit, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise GradWatchError(
                f"Expected a stdout that can be written, got an error ({error}). "
                "Make room, or write to a file with -o."
            ) from error


def write_file(path: Path, text: str) -> None:
    """Write a result to a file, as UTF-8.

    Args:
        path: is overwritten; its folder must exist.
        text: lone surrogates are escaped.

    Raises:
        GradWatchError: it cannot be written.
    """
    try:
        path.write_bytes(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise GradWatchError(
            f"Expected an output file that can be written, got {str(path)!r} ({error}). "
            "Choose another with -o."
        ) from error


def print_warning(message: str) -> None:
    """One line to stderr.

    Args:
        message: line breaks in it become spaces.
    """
    line = " ".join(message.split())
    encoding = sys.stderr.encoding or "utf-8"
    line = line.encode(encoding, "backslashreplace").decode(encoding)
    print(f"gradwatch: {line}", file=sys.stderr)
