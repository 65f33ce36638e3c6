"""Real training steps on a copy of a model, its loss and its optimizer."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from gradwatch.errors import InvalidInput

DEFAULT_LEARNING_RATE = 0.01

LossFunction = Callable[..., Tensor]
OptimizerLike = Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer] | None


def check_trial(batches: object, loss_fn: object, count: object) -> None:
    """Refuse what no training steps can be made of.

    Args:
        batches: to be an iterable of batches, and not a batch.
        loss_fn: to be callable.
        count: of steps, to be a whole number from 1.

    Raises:
        InvalidInput: one of them is something else.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InvalidInput(
            f"Expected steps to be a whole number from 1, got {count!r}. 20 is the default."
        )
    if not callable(loss_fn):
        raise InvalidInput(
            f"Expected a loss function, got {type(loss_fn).__name__}. "
            "Pass loss_fn(output, target), such as torch.nn.functional.cross_entropy."
        )
    is_one_batch = isinstance(batches, (Tensor, Mapping, str)) or (
        isinstance(batches, tuple) and all(isinstance(part, Tensor) for part in batches)
    )
    if is_one_batch or not isinstance(batches, Iterable):
        raise InvalidInput(
            f"Expected batches to be a list or another iterable of batches, got one "
            f"{type(batches).__name__}. Put a single batch into a list: [(inputs, target)]."
        )


def choose_batches(batches: Iterable[Any], count: int) -> list[Any]:
    """The first batches, at least one.

    Args:
        batches: read no further than needed.
        count: at most so many.

    Raises:
        InvalidInput: there is none.
    """
    chosen = list(islice(batches, count))
    if not chosen:
        raise InvalidInput(
            "Expected at least one batch, got none. Pass a list of (inputs, target) pairs, and "
            "for a generator one that nothing has used up."
        )
    return chosen


def copy_training(
    model: nn.Module, loss_fn: LossFunction, optimizer: OptimizerLike
) -> tuple[nn.Module, LossFunction, Optimizer]:
    """Copies with one memo, so that the optimizer and the loss hold the copy's parameters.

    Args:
        model: stays as it is.
        loss_fn: copied where it is a module, or a method of one.
        optimizer: itself, a function of the parameters that makes one, or ``None`` for plain SGD.

    Raises:
        InvalidInput: the model cannot be copied, or the function makes no optimizer.
    """
    mine = optimizer if isinstance(optimizer, Optimizer) else None
    owner = getattr(loss_fn, "__self__", loss_fn)  # a loss may be a method of the model
    loss = loss_fn if isinstance(owner, nn.Module) else None
    try:
        memo: dict[int, Any] = {}
        twin, twin_loss, twin_optimizer = copy.deepcopy((model, loss, mine), memo)
        _complete_copy(mine, twin_optimizer, memo)
    except RuntimeError as error:  # tensors inside that are neither parameters nor buffers
        raise InvalidInput(
            f"Expected a model that copy.deepcopy can copy, got {type(model).__name__} ({error}). "
            "Call check() on a fresh model, before its first forward."
        ) from error
    params = [param for param in twin.parameters() if param.requires_grad]
    if twin_optimizer is None:
        twin_optimizer = make_optimizer(optimizer, params)
    return twin, twin_loss or loss_fn, twin_optimizer


def _complete_copy(optimizer: Optimizer | None, twin: Any, memo: dict[int, Any]) -> None:
    """Attributes of its own that torch leaves out of an optimizer's copy, such as LBFGS's."""
    for name, value in vars(optimizer).items() if optimizer is not None else ():
        if not hasattr(twin, name):
            setattr(twin, name, copy.deepcopy(value, memo))


def make_optimizer(optimizer: OptimizerLike, params: list[nn.Parameter]) -> Optimizer:
    """What a factory makes of the parameters; plain SGD without one.

    Args:
        optimizer: a function of the parameters, or ``None``.
        params: trainable ones.

    Raises:
        InvalidInput: the function makes something else.
    """
    if optimizer is None:
        return SGD(params, lr=DEFAULT_LEARNING_RATE)
    made = optimizer(params) if callable(optimizer) else optimizer
    if not isinstance(made, Optimizer):
        raise InvalidInput(
            "Expected an optimizer or a function of the parameters that makes one, got "
            f"{type(made).__name__}. Pass for instance lambda params: Adam(params, lr=1e-3)."
        )
    return made


def train_step(model: nn.Module, batch: Any, loss_fn: LossFunction, optimizer: Optimizer) -> None:
    """One training step; an optimizer that evaluates the loss itself gets a closure.

    Args:
        model: in the mode that it is to be trained in.
        batch: as ``compute_loss`` takes it.
        loss_fn: as ``compute_loss`` takes it.
        optimizer: of the model's parameters.

    Raises:
        InvalidInput: the loss is no scalar.
    """

    def compute_gradients() -> Tensor:
        optimizer.zero_grad()
        loss = compute_loss(model, batch, loss_fn)
        _check_loss(loss)
        loss.backward()
        return loss

    if _needs_closure(optimizer):
        optimizer.step(compute_gradients)  # type: ignore[arg-type]  # torch says float
    else:
        compute_gradients()
        optimizer.step()


def _needs_closure(optimizer: Optimizer) -> bool:
    """Whether the optimizer evaluates the loss itself, as LBFGS does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise InvalidInput(
            f"Expected the loss to be a scalar tensor, got {type(loss).__name__}{shape}. "
            "Let loss_fn return what your training calls backward() on."
        )


def compute_loss(model: nn.Module, batch: Any, loss_fn: LossFunction) -> Tensor:
    """Loss of one batch, by the conventions of ``check``.

    Args:
        model: called with the inputs.
        batch: a mapping of keyword arguments, inputs with the target last, or inputs alone.
        loss_fn: of the output and the target if there is one; or of ``model`` and ``batch``.

    Returns:
        What ``loss_fn`` answers.
    """
    if _wants_model(loss_fn):
        return loss_fn(model, batch)
    if isinstance(batch, Mapping):
        return loss_fn(model(**batch))
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return loss_fn(model(*batch[:-1]), batch[-1])
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    return loss_fn(model(inputs))


def _wants_model(loss_fn: LossFunction) -> bool:
    try:
        names = list(inspect.signature(loss_fn).parameters)
    except (TypeError, ValueError):
        return False
    return bool(names) and names[0] == "model"


@contextmanager
def keep_random_state(batches: object) -> Iterator[None]:
    """Leave the random numbers of Python, numpy, torch and the batches' loader as they were.

    Args:
        batches: a ``DataLoader``, or anything else.
    """
    python, numpy = random.getstate(), np.random.get_state()
    own = [(generator, generator.get_state()) for generator in _find_generators(batches)]
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            for generator, state in own:
                generator.set_state(state)


def _find_generators(batches: object) -> list[torch.Generator]:
    """A DataLoader shuffles with generators of its own where it was given them."""
    sampler = getattr(batches, "sampler", None)
    found = (getattr(owner, "generator", None) for owner in (batches, sampler))
    return [generator for generator in found if isinstance(generator, torch.Generator)]
