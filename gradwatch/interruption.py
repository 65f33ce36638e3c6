"""Exceptions that reach functions of ours and are not ours: a timer's or a signal's."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FrameType, TracebackType
from typing import Any


def is_foreign(error: BaseException) -> bool:
    """Whether a signal handler has raised it in the middle of a function of ours.

    Python runs a handler between two instructions of whatever is running, and hands it the frame
    that it has interrupted: no other call has that frame among its arguments.

    Args:
        error: that was caught, with its traceback.
    """
    if not isinstance(error, Exception):
        return True  # KeyboardInterrupt, SystemExit
    codes = set(_list_handler_codes())
    return any(_is_handler(frame, codes) for frame in _walk(error.__traceback__))


def find_uncaught() -> object:
    """The error that ends the process, as the interpreter keeps it; an interactive one goes on.

    Returns:
        ``None`` where there is none; ``sys.exit`` leaves none.
    """
    return None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)


def forget_frames(error: BaseException) -> BaseException:
    """The error without the frames that it passed, whose variables hold the model.

    What the training was handling already when this one was raised is its own, and stays whole.

    Args:
        error: that was caught; changed in place, and so are its causes and contexts.
    """
    running = set(_walk_callers(sys._getframe()))
    error.__traceback__ = None
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        if cause.__traceback__ is None or cause.__traceback__.tb_frame not in running:
            cause.__traceback__ = None
            waiting += [cause.__cause__, cause.__context__]
    return error


def _walk_callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _walk(traceback: TracebackType | None) -> Iterator[FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _is_handler(frame: FrameType, codes: set[CodeType]) -> bool:
    return frame.f_code in codes or (frame.f_back is not None and _is_given(frame, frame.f_back))


def _is_given(frame: FrameType, interrupted: FrameType) -> bool:
    """Whether a frame was called with its caller's."""
    for value in frame.f_locals.values():
        if value is interrupted:
            return True
        if type(value) is tuple and any(item is interrupted for item in value):
            return True
    return False


def _list_handler_codes() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        code = _find_code(signal.getsignal(number))
        if code is not None:
            yield code


def _find_code(handler: Callable[..., Any] | int | None) -> CodeType | None:
    if isinstance(handler, partial):
        return _find_code(handler.func)
    if handler is None or not callable(handler):
        return None
    owner = handler if hasattr(handler, "__code__") else type(handler).__call__
    code = getattr(owner, "__code__", None)  # of a function, a method, an object that is called
    return code if isinstance(code, CodeType) else None


def warn_of_failure(error: BaseException, global_step: int) -> None:
    """Say that an error of ours has ended the watching.

    Args:
        error: of ours.
        global_step: at which it was raised.
    """
    text = (
        f"gradwatch has switched itself off after an error of its own at step {global_step}: "
        f"{type(error).__name__}: {error}. The training goes on unchanged."
    )
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    except Warning:
        print(text, file=sys.stderr)  # warnings are errors here, and ours must stop nothing
