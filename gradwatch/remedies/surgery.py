"""Changing a module tree from outside: replacing modules, and the wrappers that are put in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gradwatch.remedies.survey import Survey


class NotApplicable(Exception):  # no error: the answer "this does not fit here"
    """A remedy that does not fit a model, with the reason in words."""


@dataclass(frozen=True)
class Edit:
    """What was done to a model.

    Attributes:
        name: of the remedy, a few words.
        description: what was changed, and where.
    """

    name: str
    description: str


@dataclass(frozen=True)
class Remedy:
    """A change to a model or to how it is trained.

    Attributes:
        name: used when it turns out not to apply.
        change: a key of ``verdict.trials.COSTS``.
        operate: changes a copy of the model in place and tells what it did.
        learning_rate_factor: by which every learning rate is multiplied.
    """

    name: str
    change: str
    operate: Callable[[nn.Module, Survey], Edit]
    learning_rate_factor: float = 1.0


def replace_module(model: nn.Module, fqn: str, make: Callable[[nn.Module], nn.Module]) -> None:
    """Put another module in a module's place, under each of its names.

    Args:
        model: a copy, changed in place.
        fqn: of the module that goes.
        make: gets that module and gives the new one.

    Raises:
        NotApplicable: the module is the model itself.
    """
    old = model.get_submodule(fqn)
    if old is model:
        raise NotApplicable("the model is a single layer")
    new = make(old)
    parents = [
        module for module in model.modules() if any(child is old for child in module.children())
    ]
    for parent in parents:
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


@dataclass
class Shortcut:
    """Inputs on their way around the layers between an entrance and an exit."""

    waiting: list[Tensor] = field(default_factory=list)


class Entrance(nn.Module):
    """A layer whose input also takes the shortcut."""

    def __init__(self, layer: nn.Module, shortcut: Shortcut) -> None:
        super().__init__()
        self.layer = layer
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Any:
        """As the layer; the input waits at the exit.

        Args:
            x: ``(batch, ...)``.
        """
        self.shortcut.waiting.append(x)
        return self.layer(x)


class Exit(nn.Module):
    """An activation to whose output the shortcut is added."""

    def __init__(self, layer: nn.Module, shortcut: Shortcut) -> None:
        super().__init__()
        self.layer = layer
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Any:
        """The layer's output plus what waits here, if it has the same shape.

        Args:
            x: ``(batch, ...)``.
        """
        output = self.layer(x)
        if not self.shortcut.waiting:
            return output
        skipped = self.shortcut.waiting.pop()
        return output + skipped if skipped.shape == output.shape else output


class Residual(nn.Module):
    """A block with a skip around it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """``x + block(x)``.

        Args:
            x: ``(batch, ...)``, of the shape of the block's output.
            *args, **kwargs: what else the block takes.
        """
        return x + self.block(x, *args, **kwargs)
