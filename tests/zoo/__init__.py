"""The zoo: small labelled training runs, half of them unhealthy, half of them healthy traps."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from tests.zoo.case import Case, Training, freeze_region


def _gather() -> tuple[Case, ...]:
    names = sorted(module.name for module in iter_modules(__path__))
    chosen = (name for name in names if name.startswith(("unhealthy_", "healthy_")))
    modules = (import_module(f"{__name__}.{name}") for name in chosen)
    return tuple(case for module in modules for case in getattr(module, "CASES", ()))


CASES: tuple[Case, ...] = _gather()

__all__ = ["CASES", "Case", "Training", "freeze_region"]
