"""What compilation, parallelism, DeepSpeed and Fabric put around a module: no part of its name."""

from __future__ import annotations

from typing import Any

from torch import nn

from gradwatch.capture.parameters import strip_wrappers

_INNER = {
    "DeepSpeedEngine": "module",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "_FabricModule": "_forward_module",
}
"""By class of a wrapper, the attribute that holds what it wraps."""

_ALONE = {"DataParallel", "DeepSpeedEngine"}
"""Wrappers whose ranks are judged each by itself: the first has none, and gradients are read before
the second reduces them."""


def unwrap(model: nn.Module) -> tuple[nn.Module, bool]:
    """The model inside a parallel wrapper, and whether there was one whose ranks work together.

    Args:
        model: compiled or not.

    Returns:
        Itself and ``False`` where nothing is around it; ``DataParallel`` has one process only.
    """
    inner = getattr(model, "_orig_mod", model)
    if isinstance(inner, nn.parallel.DistributedDataParallel):
        return inner.module, True
    names = {each.__name__ for each in type(inner).__mro__}
    inside: Any = inner.module if names & _ALONE else model
    return inside, False


def name_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Distinct modules and their names, as they are without wrappers around any of them.

    Args:
        model: itself a wrapper or not.

    Returns:
        In the order of ``named_modules``; the model itself is named ``""``.
    """
    names, modules = {"": ""}, dict(model.named_modules())
    for fqn in modules:
        if fqn:
            parent, _, leaf = fqn.rpartition(".")
            is_inner = _find_inner(modules.get(parent)) == leaf
            names[fqn] = names.get(parent, parent) if is_inner else f"{names[parent]}.{leaf}"
    return [(strip_wrappers(names[fqn]).lstrip("."), module) for fqn, module in modules.items()]


def list_parallel_parts(model: nn.Module) -> list[nn.Module]:
    """Parts of the model on which ranks work together.

    Args:
        model: itself included.
    """
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.parallel.DistributedDataParallel)
    ]


def _find_inner(module: nn.Module | None) -> str | None:
    found = (_INNER.get(base.__name__) for base in type(module).__mro__)
    return next((name for name in found if name is not None), None)
