"""Parameters, their norms and their gradients', through the multi-tensor kernels.

Gradients are read at the end of a backward pass: after accumulation and any all-reduce, before
clipping.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gradwatch.capture.device_values import REST, WHOLE_STEP, Ledger, Reading
from gradwatch.capture.roles import find_role
from gradwatch.capture.statistics import measure_l2_norm, view_sample, widen
from gradwatch.interruption import is_foreign
from gradwatch.records import Param

FOREACH_SIZE = 2**14
"""Elements up to which the sum of squares of a CPU's multi-tensor kernel is right to 2e-7."""


@dataclass
class Watched:
    """One distinct parameter tensor of the model."""

    fqn: str
    module: str
    param: nn.Parameter
    aliases: list[str] = field(default_factory=list)
    role: str = "weight"
    is_leaf: bool = True
    was_trainable: bool = True

    def note_trainable(self) -> None:
        """Some loops freeze parts in turns: what could learn at any time of a step is trainable."""
        self.was_trainable |= self.param.requires_grad

    def is_read(self, used_modules: set[str], operands: set[int]) -> bool:
        """Whether forward has used it: an operation read its memory, or its own module was called.

        A module with others inside it may be called without a parameter of its own.
        """
        if self.is_leaf and self.module in used_modules:
            return True
        return find_pointer(self.param) in operands


def find_pointer(tensor: Tensor) -> int:
    """Where the elements begin in memory; 0 for a tensor without memory of its own."""
    try:
        return localise(tensor).data_ptr()
    except (RuntimeError, ValueError) as error:
        if is_foreign(error):
            raise
        return 0


def list_parameters(modules: Iterable[tuple[str, nn.Module]]) -> list[Watched]:
    """Distinct parameters in the model's order; tied ones once, with their further names.

    Args:
        modules: names and modules, without what wraps them.
    """
    found: dict[int, Watched] = {}
    for prefix, module in modules:
        own = [(name, param) for name, param in module._parameters.items() if _exists(param)]
        role, is_leaf = find_role(module) if own else "", not module._modules
        for name, param in own:
            fqn = f"{prefix}.{name}" if prefix else name
            if id(param) in found:
                found[id(param)].aliases.append(fqn)
            else:
                facts = _find_param_role(role, param), is_leaf, param.requires_grad
                found[id(param)] = Watched(fqn, prefix, param, [], *facts)
    return list(found.values())


def _exists(param: nn.Parameter | None) -> TypeGuard[nn.Parameter]:
    return param is not None and not isinstance(param, UninitializedParameter)


def strip_wrappers(fqn: str) -> str:
    """Name without what compilation and data parallelism put around a module."""
    parts = [part for part in fqn.split(".") if part not in ("_orig_mod", "_fsdp_wrapped_module")]
    return ".".join(parts)


def _find_param_role(role: str, param: nn.Parameter) -> str:
    """Role of a parameter in a module that has a role itself."""
    if role in ("embedding", "norm"):
        return role
    if param.numel() == 1:
        return "scalar"
    return "weight" if param.dim() >= 2 else "bias"


def describe_parameters(
    watched: Sequence[Watched],
    optimized: dict[int, int] | None,
    used: set[str],
    strangers: Iterable[tuple[int, ...]] = (),
) -> tuple[Param, ...]:
    """What stays the same about the parameters.

    Args:
        watched: all of them.
        optimized: by ``id`` of a parameter, the number of its optimizer; ``None``: all are.
        used: names of those that forward uses.
        strangers: shapes of what an optimizer holds and the model has not.
    """
    return tuple(
        Param(
            fqn=entry.fqn,
            module=entry.module,
            shape=tuple(entry.param.shape),
            role=entry.role,
            dtype=str(entry.param.dtype).removeprefix("torch."),
            trainable=entry.was_trainable,
            optimized=optimized is None or id(entry.param) in optimized,
            optimizer=(optimized or {}).get(id(entry.param), 0),
            used=entry.fqn in used,
            aliases=tuple(entry.aliases),
            replaced=optimized is not None
            and id(entry.param) not in optimized
            and any(is_resized(tuple(entry.param.shape), shape) for shape in strangers),
        )
        for entry in watched
    )


@dataclass
class Rows:
    """Samples of equal length, one row for each tensor.

    Attributes:
        indices: of the tensors.
        values: ``(len(indices), length)``, a copy.
    """

    indices: list[int]
    values: Tensor


@dataclass
class GradientReading:
    """What was read of the gradients at one moment.

    Attributes:
        norms: by index of a parameter.
        rows: samples of the gradients, in the weights' order of elements ...
        is_aligned: ... if this is set.
    """

    norms: dict[int, Reading] = field(default_factory=dict)
    rows: list[Rows] = field(default_factory=list)
    is_aligned: bool = False

    def choose(self, indices: Container[int]) -> GradientReading:
        """Of some parameters; samples only where they are of these alone."""
        norms = {index: norm for index, norm in self.norms.items() if index in indices}
        if len(norms) < len(self.norms):
            return GradientReading(norms)
        return self


def is_resized(shape: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether a tensor may have taken another one's place: of a matrix one side may have grown.

    Example:
        >>> is_resized((101, 64), (100, 64)), is_resized((10,), (10,)), is_resized((10,), (4,))
        (True, True, False)
    """
    if len(shape) != len(before):
        return False
    changed = sum(size != other for size, other in zip(shape, before, strict=True))
    return changed <= (1 if len(shape) > 1 else 0)


def read_gradients(
    watched: Sequence[Watched], ledger: Ledger, indices: Container[int] | None = None
) -> GradientReading:
    """Norm, zeros and non-finite elements of each gradient there is, of all or some parameters."""
    for entry in watched:
        entry.note_trainable()
    with torch.no_grad():
        present = list_gradients(watched, indices)
        norms = measure_norms([grad for _, grad in present])
        known = {index: norm for (index, _), norm in zip(present, norms, strict=True)}
        for index, norm in known.items():
            ledger.add("param.grad_l2_norm", index, WHOLE_STEP, norm)
        sizes = {index: grad.numel() for index, grad in present}
        samples = gather_rows(present)
        for rows in samples:
            _count_elements(rows, sizes, ledger)
    return GradientReading(known, samples, _is_aligned(watched, present))


def _is_aligned(watched: Sequence[Watched], grads: Sequence[tuple[int, Tensor]]) -> bool:
    """Whether each gradient lies in memory as its weight does."""
    pairs = ((grad, localise(watched[index].param)) for index, grad in grads)
    return all(
        grad.stride() == weight.stride() and grad.shape == weight.shape for grad, weight in pairs
    )


def stamp_gradients(watched: Sequence[Watched]) -> dict[int, tuple[int, int]]:
    """By index, what tells whether somebody has written to a gradient or put another there."""
    grads = ((i, entry.param.grad) for i, entry in enumerate(watched))
    return {i: (id(grad), grad._version) for i, grad in grads if grad is not None}


def list_gradients(
    watched: Sequence[Watched], indices: Container[int] | None = None
) -> list[tuple[int, Tensor]]:
    """Gradients of which this rank holds anything, with the index of their parameter."""
    grads = (
        (i, entry.param.grad) for i, entry in enumerate(watched) if indices is None or i in indices
    )
    local = ((i, localise(grad)) for i, grad in grads if grad is not None)
    return [(i, _take_values(grad)) for i, grad in local if grad.numel()]


def _count_elements(rows: Rows, sizes: dict[int, int], ledger: Ledger) -> None:
    length = rows.values.shape[1]
    zeros = [("param.zero_fraction", index, WHOLE_STEP) for index in rows.indices]
    ledger.add_row(zeros, _count_nonzero(rows.values), [length] * len(zeros), REST)
    broken = [("param.nonfinite_count", index, WHOLE_STEP) for index in rows.indices]
    shares = [length / sizes[index] for index in rows.indices]
    ledger.add_row(broken, _count_nonzero(rows.values * 0), shares)  # NaN where it is broken


def _count_nonzero(rows: Tensor) -> Tensor:
    count: Tensor = torch.linalg.vector_norm(rows, 0, dim=1)
    return count


def measure_residue(watched: Sequence[Watched]) -> Reading:
    """Zero when no gradient is left from an earlier pass, else more than that."""
    with torch.no_grad():
        norms = measure_norms([grad for _, grad in list_gradients(watched)])
    values = [norm.value.double() for norm in norms]
    return Reading(torch.stack(values).sum() if values else torch.zeros(()))


def read_weights(watched: Sequence[Watched], ledger: Ledger) -> None:
    """Norm of each parameter."""
    with torch.no_grad():
        norms = measure_norms([_take_values(localise(entry.param)) for entry in watched])
    for index, norm in enumerate(norms):
        ledger.add("param.weight_l2_norm", index, WHOLE_STEP, norm)


def _take_values(tensor: Tensor) -> Tensor:
    return tensor.detach().coalesce().values() if tensor.is_sparse else tensor


_PLAIN = frozenset((Tensor, nn.Parameter))


def localise(tensor: Any) -> Tensor:
    """The shard of this rank of a distributed tensor, else the tensor itself."""
    if type(tensor) in _PLAIN or not hasattr(tensor, "to_local"):
        return tensor  # type: ignore[no-any-return]
    local: Tensor = tensor.to_local()
    return local


def measure_norms(tensors: Sequence[Tensor]) -> list[Reading]:
    """L2 norms of many tensors, through the multi-tensor kernels where they are exact enough.

    To be called where gradients are switched off.
    """
    chosen = [i for i, tensor in enumerate(tensors) if _fits_foreach(tensor)]
    if not chosen:
        return [measure_l2_norm(tensor) for tensor in tensors]
    fused = dict(zip(chosen, torch._foreach_norm([tensors[i] for i in chosen]), strict=True))
    return [
        Reading(fused[i]) if i in fused else measure_l2_norm(tensor)
        for i, tensor in enumerate(tensors)
    ]


def _fits_foreach(tensor: Tensor) -> bool:
    """On a GPU everything in float32; on a CPU, which sums one after another, small tensors."""
    is_exact = tensor.is_cuda or (tensor.is_cpu and 1 < tensor.numel() <= FOREACH_SIZE)
    return is_exact and tensor.dtype == torch.float32


def gather_rows(tensors: Iterable[tuple[int, Tensor]]) -> list[Rows]:
    """Samples of tensors that have an index each; half precision as float32.

    To be called where gradients are switched off.
    """
    groups: dict[Any, list[tuple[int, Tensor]]] = defaultdict(list)
    for index, tensor in tensors:
        sample = view_sample(tensor)
        groups[sample.device, sample.dtype, sample.shape].append((index, sample))
    return [_stack_rows(group) for (_, _, shape), group in groups.items() if shape.numel()]


def _stack_rows(group: list[tuple[int, Tensor]]) -> Rows:
    values = widen(torch.stack([sample for _, sample in group]))
    return Rows([index for index, _ in group], values.reshape(len(group), -1))
