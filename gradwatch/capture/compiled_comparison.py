"""Whether a graph with statistics computes what the graph without computes, bit for bit.

A compiler may fuse the statistics with the training's own sums, which then are added up in another
order. That shows with any data: both run once on the first batch, for nothing but this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def are_identical(
    bare: Callable[..., Any], tapped: Callable[..., Any], args: Sequence[Any], n_extra: int
) -> bool:
    """Run both, forward and backward, and compare outputs, gradients and changed buffers.

    The arguments stay as they are, and so does the state of the random generators.

    Args:
        bare: compiled, without statistics.
        tapped: compiled, with them.
        args: of both.
        n_extra: further outputs of ``tapped``, which are left out.
    """
    devices = {arg.device for arg in args if isinstance(arg, Tensor) and arg.is_cuda}
    states = []
    for function, n_left_out in ((bare, 0), (tapped, n_extra)):
        with torch.random.fork_rng(list(devices)), torch.enable_grad():
            states.append(_run(function, args, n_left_out))
    left, right = states
    return len(left) == len(right) and all(map(_is_same, left, right))


def _run(function: Callable[..., Any], args: Sequence[Any], n_left_out: int) -> list[Any]:
    """All that it leaves behind, on arguments of its own."""
    given = [_stand_in(arg) if isinstance(arg, Tensor) else arg for arg in args]
    results = function(*given)
    outputs = list(results[: len(results) - n_left_out])
    learning = [each for each in outputs if isinstance(each, Tensor) and each.requires_grad]
    params = [each for each in given if isinstance(each, Tensor) and each.requires_grad]
    grads = torch.autograd.grad(learning, params, _make_seeds(learning), allow_unused=True)
    changed = [each for each in given if isinstance(each, Tensor) and not each.requires_grad]
    return [*outputs, *grads, *changed]


def _stand_in(arg: Tensor) -> Tensor:
    """A copy that lies in memory alike, unless nobody can write to it."""
    if arg.requires_grad:
        return arg.detach().requires_grad_()
    if any(size > 1 and stride == 0 for size, stride in zip(arg.shape, arg.stride(), strict=True)):
        return arg.detach()
    copied = torch.empty_strided(arg.shape, arg.stride(), dtype=arg.dtype, device=arg.device)
    return copied.copy_(arg.detach())


def _make_seeds(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients to begin with, the same for both."""
    seeds: list[Tensor] = []
    for output in outputs:
        generator = torch.Generator(output.device).manual_seed(len(seeds))
        seed = torch.randn(output.shape, generator=generator, device=output.device)
        seeds.append(seed.to(output.dtype))
    return seeds


def _is_same(left: Any, right: Any) -> bool:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return type(left) is type(right)
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    with torch.no_grad():
        return bool(((left == right) | (left.isnan() & right.isnan())).all())
