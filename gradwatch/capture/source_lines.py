"""Where in the user's code a call stands: file, line, function."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

_LIBRARIES = tuple(
    f"{path}{os.sep}" for path in (Path(torch.__file__).parent, Path(__file__).parents[1])
)
"""What stands between the user's code and us on the stack: torch, and this package."""

_COMMANDS = f"{sysconfig.get_path('scripts')}{os.sep}"
"""Where installed commands stand, such as ``gradwatch`` or ``pytest``: pip wrote their lines."""

_APPLY = (torch.autograd.Function.apply.__func__.__code__,)  # type: ignore[attr-defined]
"""What calls the forward of an ``autograd.Function``."""


@dataclass(frozen=True)
class SourceLine:
    """A line of the user's code.

    Attributes:
        source: ``"path/model.py:42"``; relative to the working directory where it lies below it.
        line: as written, without indentation; empty where the source is not at hand.
        caller: the function around it, such as ``"Encoder.forward"``.
        through: name of torch's own function that was called there, such as ``"sample"``; empty
            where the operation was called directly.
        in_function: the line is in the forward of an ``autograd.Function``.
    """

    source: str
    line: str
    caller: str
    through: str
    in_function: bool = False


def find_source_line() -> SourceLine | None:
    """The innermost line on the running thread's stack that is neither torch's nor ours.

    Returns:
        The line, or None where only an installed command is left.
    """
    frame: FrameType | None = sys._getframe(1)
    through = ""
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        is_ours = frame.f_code.co_filename.startswith(_LIBRARIES[1])
        through = through if is_ours else frame.f_code.co_name
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(_COMMANDS):
        return None
    path, number = frame.f_code.co_filename, frame.f_lineno
    line = linecache.getline(path, number).strip()
    source, around = f"{_shorten(path)}:{number}", frame.f_back
    in_function = around is not None and around.f_code in _APPLY
    return SourceLine(source, line, _name_function(frame), through, in_function)


def _shorten(path: str) -> str:
    full, here = Path(path), Path.cwd()
    return str(full.relative_to(here) if here in full.parents else Path(*full.parts[-3:]))


def _name_function(frame: FrameType) -> str:
    code = frame.f_code
    qualified = getattr(code, "co_qualname", "")  # from Python 3.11 on
    if qualified:
        return str(qualified).rpartition("<locals>.")[2]
    owner = frame.f_locals.get("self")
    return code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
