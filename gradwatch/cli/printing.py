"""What a command says: results to stdout or a file, everything else to stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch.errors import GradWatchError

if TYPE_CHECKING:
    from rich.console import RenderableType

_PLAIN_WIDTH = 100  # columns where the output is no terminal, as in a CI log


def draw(views: Iterable[RenderableType], to_stdout: bool = True) -> str:
    """What rich makes of it for stdout or for a file, with an empty line between the pieces.

    Args:
        views: in the order in which they are shown.
        to_stdout: with the terminal's width and colours; otherwise plain, 100 columns.
    """
    from rich.console import Console

    file = sys.stdout if to_stdout else io.StringIO()
    console = Console(file=file, width=None if file.isatty() else _PLAIN_WIDTH, highlight=False)
    with console.capture() as captured:
        for place, view in enumerate(views):
            if place:
                console.print()
            console.print(view)
    text = captured.get()
    return text if file.isatty() else "\n".join(line.rstrip() for line in text.split("\n"))


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
    """
    if not text:
        return
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
