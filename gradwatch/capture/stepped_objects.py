"""What steps parameters and is no ``torch.optim.Optimizer``: its step is found all the same."""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from gradwatch.capture.user_frames import stand_in

_SHARED = ("lr", "weight_decay", "decoupled_weight_decay")
"""Settings of a group that are known of every parameter where all groups agree on them."""

Hook = Callable[..., None]


class SteppedObject:
    """An object with a ``step`` of its own, with the step hooks that torch's optimizers have.

    While somebody listens, a method of ours stands in the object's place of ``step``; pickles and
    copies of the object step as if there were none.

    Args:
        owner: whose ``step`` ends a step.
        model: that it trains.
        stands_apart: it steps tensors of its own (master copies, shards) and writes the parameters
            from them, so that its groups tell nothing of single parameters.
    """

    def __init__(self, owner: Any, model: nn.Module, stands_apart: bool) -> None:
        self.owner = owner
        self._model = weakref.ref(model)
        self._stands_apart = stands_apart
        self._numbers = itertools.count()
        self._optimizer_step_pre_hooks: dict[int, Hook] = {}
        self._post_hooks: dict[int, Hook] = {}
        self._before: Any = None
        self._method: MethodType | None = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """As an optimizer has them; one for all parameters where the object stands apart."""
        groups: list[dict[str, Any]] = self.owner.param_groups
        if not self._stands_apart:
            return groups
        model = self._model()
        params = (
            [] if model is None else [param for param in model.parameters() if param.requires_grad]
        )
        return [{"params": params, **{name: _find_common(groups, name) for name in _SHARED}}]

    def register_step_pre_hook(self, hook: Hook) -> None:
        """Call ``hook(self, args, kwargs)`` before each step.

        Args:
            hook: stays until it is taken out of the table.
        """
        self._optimizer_step_pre_hooks[next(self._numbers)] = hook

    def register_step_post_hook(self, hook: Hook) -> Listening:
        """Call ``hook(self, args, kwargs)`` after each step, until the answer is removed.

        Args:
            hook: with the first one, a method of ours takes the place of ``step``.
        """
        number = next(self._numbers)
        self._post_hooks[number] = hook
        self._install()
        return Listening(self, number)

    def remove(self, number: int) -> None:
        """Nobody listens by this number any more; with the last one our method goes.

        Args:
            number: harmless where nobody listens by it.
        """
        self._post_hooks.pop(number, None)
        own = vars(self.owner)
        if self._post_hooks or self._method is None or own.get("step") is not self._method:
            return  # somebody has put a method around ours, which from now on does nothing
        if self._before is None:
            del own["step"]
        else:
            own["step"] = self._before
        self._method = None

    def _install(self) -> None:
        if self._method is None:
            self._before = vars(self.owner).get("step")
            self._method = MethodType(self._make_step(), self.owner)
            vars(self.owner)["step"] = self._method

    def _make_step(self) -> FunctionType:
        """Named ``step``: a pickle of the method then asks the object's class for its own."""
        find, find_owner, before = weakref.ref(self), id(self.owner), self._before

        def step(owner: Any, *args: Any, **kwargs: Any) -> Any:
            seen = find() if id(owner) == find_owner else None
            if seen is not None:
                seen._call(seen._optimizer_step_pre_hooks, args, kwargs)
            result = stand_in(sys._getframe(1))(_bind(before, owner), args, kwargs)
            if seen is not None:
                seen._call(seen._post_hooks, args, kwargs)
            return result

        assert isinstance(step, FunctionType)
        return step

    def _call(self, hooks: dict[int, Hook], args: Any, kwargs: Any) -> None:
        for hook in list(hooks.values()):
            hook(self, args, kwargs)


class Listening:
    """A hook after the step, to be removed.

    Args:
        stepped: that calls it.
        number: of the hook.
    """

    def __init__(self, stepped: SteppedObject, number: int) -> None:
        self._stepped = stepped
        self._number = number

    def remove(self) -> None:
        """Harmless when repeated."""
        self._stepped.remove(self._number)


def _bind(before: Any, owner: Any) -> Any:
    """What ``step`` was: of the instance, if it had one, else of its class."""
    if before is None:
        return type(owner).step.__get__(owner)
    return MethodType(before.__func__, owner) if isinstance(before, MethodType) else before


def _find_common(groups: list[dict[str, Any]], name: str) -> Any:
    """A setting on which all groups agree; ``None`` otherwise."""
    values = [group.get(name) for group in groups]
    return values[0] if values and all(value == values[0] for value in values) else None


def find_class(optimizer: Any) -> type:
    """Class of what steps, also behind a ``SteppedObject``.

    Args:
        optimizer: one of torch's, or a ``SteppedObject``.
    """
    return type(optimizer.owner if isinstance(optimizer, SteppedObject) else optimizer)
