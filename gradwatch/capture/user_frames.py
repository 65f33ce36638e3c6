"""Calls made on a user's behalf, so that a warning in them names the user's line and module.

``warnings.warn(..., stacklevel=2)`` in a function of torch means whoever called it. With gradwatch
in between that would be a line of ours, which no filter of the user's by module fits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FrameType, FunctionType
from typing import Any

from torch.overrides import handle_torch_function

DEPTH_OF_MODULES = 3
"""``nn.Softmax`` has its function warn of the line that calls the module, two frames further up."""

_LINES_KEPT = 4096
_HANDLER: CodeType = handle_torch_function.__code__
_CALL: CodeType = (lambda function, args, kwargs: function(*args, **kwargs)).__code__


@lru_cache(_LINES_KEPT)
def _make_code(filename: str, line: int, name: str) -> CodeType:
    """One line of code, which stands at that line of the file."""
    return _CALL.replace(co_filename=filename, co_firstlineno=line, co_name=name)


def find_caller(frame: FrameType) -> FrameType:
    """Who has called the function of torch that a function mode was handed.

    Args:
        frame: that called the mode: the user's, or torch's own way from a function in Python.
    """
    if frame.f_code is not _HANDLER:
        return frame
    function = frame.f_back
    return function.f_back or frame if function is not None else frame


def stand_in(frame: FrameType, depth: int = 1) -> Callable[[Callable[..., Any], Any, Any], Any]:
    """``call(function, args, kwargs)`` that looks as if this frame made the call.

    Args:
        frame: whose file, line and module it has.
        depth: so many of its callers, itself included, are there too.
    """
    code = frame.f_code
    line = _make_code(code.co_filename, frame.f_lineno, code.co_name)
    call = FunctionType(line, frame.f_globals)
    if depth == 1 or frame.f_back is None:
        return call
    outer = stand_in(frame.f_back, depth - 1)
    return lambda function, args, kwargs: outer(call, (function, args, kwargs), {})
