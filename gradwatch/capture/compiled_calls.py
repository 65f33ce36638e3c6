"""What a call of compiled code is going to run, and whether that is the watched model."""

from __future__ import annotations

import gc
from collections.abc import Container, Iterable, Iterator
from functools import partial
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

MAX_OBJECTS = 1_000
"""What a compiled function refers to is looked at so far; behind more, anything may be."""

_LEAVES = (Tensor, type, ModuleType, str, bytes, int, float, complex, type(None))
"""Lead nowhere."""


def find_compiled(frame: FrameType) -> tuple[Any, bool]:
    """The function behind a call of compiled code.

    Args:
        frame: inside the call, that asks dynamo for its stance.

    Returns:
        The function, or ``None`` where torch does not say; whether it would run compiled at all,
        unlike what ``torch.compiler.disable`` has made.
    """
    entry: FrameType | None = frame
    if "callback" in frame.f_locals and frame.f_code.co_name == "_callback_from_stance":
        if frame.f_locals["callback"] is None:
            return None, False
        entry = frame.f_back
    return (None if entry is None else entry.f_locals.get("fn")), True


def leads_to(function: Any, goals: Container[int]) -> bool:
    """Whether a function refers to something: bound to it, in its closure, by a global name.

    Args:
        function: that is about to be called.
        goals: ``id`` of each thing that is looked for.

    Returns:
        ``True`` also where there is too much to look at.

    Example:
        >>> layer, other = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> leads_to(lambda x: layer(x), {id(layer)}), leads_to(lambda x: layer(x), {id(other)})
        (True, False)
    """
    waiting, seen = [function], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in goals:
            return True
        if isinstance(value, _LEAVES) or id(value) in seen:
            continue
        if len(seen) >= MAX_OBJECTS:
            return True
        seen.add(id(value))
        waiting.extend(_list_references(value))
    return False


def _list_references(value: Any) -> Iterable[Any]:
    if isinstance(value, nn.Module):
        return _list_parts(value)
    if isinstance(value, FunctionType):
        return _list_of_function(value)
    if isinstance(value, MethodType):
        return value.__self__, value.__func__
    if isinstance(value, partial):
        return value.func, *value.args, *value.keywords.values()
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    return list(getattr(value, "__dict__", {}).values())


def _list_parts(module: nn.Module) -> Iterator[Any]:
    """Submodules, and what plain attributes of its own hold."""
    yield from module._modules.values()
    for name, value in list(vars(module).items()):
        if isinstance(value, (list, tuple, dict)) and value and name != "_modules":
            yield value


def _list_of_function(function: FunctionType) -> Iterator[Any]:
    compiled = getattr(function, "_torchdynamo_orig_callable", None)
    if compiled is not None:
        yield compiled
        return
    yield from gc.get_referents(*(function.__closure__ or ()))  # an empty cell has no contents
    yield from (function.__defaults__, function.__kwdefaults__, function.__dict__)
    if not function.__module__.startswith("torch."):
        names = _list_names(function.__code__)
        yield from (function.__globals__[name] for name in names if name in function.__globals__)


def _list_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _list_names(constant)
