"""The reductions of a sampled step written by hand, with nothing around them.

No names, no graph, no passes, no checks, no record: module hooks and gradients, each tensor read
once into a preallocated buffer. What anything that measures this much must cost at the least.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.overhead.ours import Step
from benchmarks.overhead.workloads import Training

SAMPLE_SIZE = 4096
"""Elements from which a fraction or an update is taken."""

SATURATION_LIMITS: dict[type[nn.Module], float] = {nn.Sigmoid: 0.05 * 0.25}
"""Smallest derivative of an activation that does not count as saturated."""

VALUES_PER_TENSOR = 4


class Reductions:
    """A buffer that fills up in the order of a step's tensors."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._buffer = torch.zeros(size, dtype=torch.float64, device=device)
        self._slots = self._buffer.unbind()
        self._next = 0

    def finish(self) -> Tensor:
        """Numbers of the step that is over; the next one begins at the front."""
        self._next = 0
        return self._buffer

    def add(self, value: Tensor) -> None:
        """Keep one number."""
        self._slots[self._next].copy_(value)
        self._next += 1

    def add_norm(self, tensor: Tensor) -> None:
        """Squared norm of a tensor, or on a GPU the norm: what is cheaper."""
        flat = tensor.detach().reshape(-1)
        self.add(torch.linalg.vector_norm(flat) if flat.is_cuda else torch.dot(flat, flat))

    def add_zeros(self, tensor: Tensor) -> None:
        """Elements of a sample that are not zero."""
        self.add(torch.count_nonzero(sample(tensor)))

    def add_saturation(self, y: Tensor, limit: float) -> None:
        """Mean derivative and saturated elements of a sigmoid's sample."""
        values = sample(y)
        derivative = values * (1 - values)
        self.add(derivative.mean())
        self.add(torch.count_nonzero(derivative < limit))

    def add_silent(self, y: Tensor) -> None:
        """Units of a rectifier that no sample makes fire."""
        dims = [0, *range(2, y.dim())]
        self.add(torch.count_nonzero(y.detach().amax(dims)))


def sample(tensor: Tensor) -> Tensor:
    """Elements at a fixed stride."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(flat.numel() // SAMPLE_SIZE, 1) | 1]


@contextmanager
def run_lower_bound(training: Training) -> Iterator[Step]:
    """Norms of outputs, of their gradients, of parameters, gradients and updates; fractions."""
    modules = [module for module in training.model.modules() if not list(module.children())]
    params = list(training.model.parameters())
    size = VALUES_PER_TENSOR * (2 * len(modules) + len(params))
    kept = Reductions(size, params[0].device)
    handles = [module.register_forward_hook(partial(_read_output, kept)) for module in modules]

    def step() -> None:
        before = [sample(param).clone() for param in params]
        training.compute_gradients()
        for param in params:
            assert param.grad is not None
            kept.add_norm(param.grad)
            kept.add_zeros(param.grad)
            kept.add_norm(param)
        training.optimizer.step()
        for param, old in zip(params, before, strict=True):
            kept.add_norm(sample(param) - old)
        kept.finish()

    try:
        yield step
    finally:
        for handle in handles:
            handle.remove()


def _read_output(kept: Reductions, module: nn.Module, _: Any, output: Any) -> None:
    y: Tensor = output[0] if isinstance(output, tuple) else output
    if y.grad_fn is None:
        return
    kept.add_norm(y)
    if type(module) in SATURATION_LIMITS:
        kept.add_saturation(y, SATURATION_LIMITS[type(module)])
    if isinstance(module, nn.ReLU):
        kept.add_zeros(y)
        kept.add_silent(y)
    number = y.output_nr
    y.grad_fn.register_prehook(lambda grads: _read_gradient(kept, grads[number]))


def _read_gradient(kept: Reductions, grad: Tensor | None) -> None:
    if grad is not None:
        kept.add_norm(grad)
        kept.add_zeros(grad)
