"""What a worker process does: it calls what it is asked to, until nobody asks any more."""

from __future__ import annotations

import io
import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, BinaryIO, NamedTuple

READY = b"gradwatch serves\n"
"""A worker's first words."""


class Warned(NamedTuple):
    """A warning, with the line that it was said to come from."""

    text: str
    category: type[Warning]
    filename: str
    lineno: int


class Printed(NamedTuple):
    """What was written to ``"stdout"`` or ``"stderr"``."""

    text: str
    stream: str


class Answer(NamedTuple):
    """What came of some items.

    Attributes:
        results: one for each item.
        said: meanwhile, in order.
        fault: the traceback of an exception, and then there are no results; else empty.
    """

    results: Sequence[Any] = ()
    said: Sequence[Warned | Printed] = ()
    fault: str = ""


def serve() -> None:
    """Answer until the other end is closed; the process's own stdin and stdout are taken."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    requests, answers = _take_pipes()
    answers.write(READY)
    answers.flush()
    while True:
        try:
            function, items = pickle.load(requests)
        except EOFError:
            return
        answers.write(_pack(_call(function, items)))
        answers.flush()


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Whatever else reads or prints, such as a rule of another package, cannot get between."""
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return pipes


def _call(function: Callable[[Any], Any], items: Sequence[Any]) -> Answer:
    said: list[Warned | Printed] = []
    out, err = _Listener(said, "stdout"), _Listener(said, "stderr")
    with warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        warnings.simplefilter("always")  # whoever asks has filters of its own
        warnings.showwarning = lambda text, kind, filename, lineno, *_: said.append(
            Warned(str(text), kind, filename, lineno)
        )
        try:
            return Answer([function(item) for item in items], said)
        except Exception:
            return Answer((), said, traceback.format_exc())


class _Listener(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, said: list[Warned | Printed], stream: str) -> None:
        self._said, self._stream = said, stream

    def write(self, text: str) -> int:
        self._said.append(Printed(text, self._stream))
        return len(text)


def _pack(answer: Answer) -> bytes:
    try:
        return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return pickle.dumps(Answer(fault=traceback.format_exc()))
