"""The distinct parameters of a model: their names, their roles, and whether they are in use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gradwatch.capture.opaque_tensors import PLAIN_TYPES, is_opaque
from gradwatch.capture.roles import find_role
from gradwatch.capture.shards import find_shape
from gradwatch.interruption import is_foreign
from gradwatch.records import Param


@dataclass
class Watched:
    """One distinct parameter tensor of the model.

    Attributes:
        fqn: its name, without what wraps the modules.
        module: fqn of the module that holds it.
        param: the tensor itself; a distributed one where parameters are sharded.
        aliases: further names of a tied one.
        role: of ``records.Param``.
        is_leaf: its module has no modules inside.
        was_trainable: required a gradient at any time of the step.
    """

    fqn: str
    module: str
    param: nn.Parameter
    aliases: list[str] = field(default_factory=list)
    role: str = "weight"
    is_leaf: bool = True
    was_trainable: bool = True

    def is_read(self, used_modules: set[str], operands: set[int]) -> bool:
        """Whether forward has used it: an operation read its memory, or its own module was called.

        A module with others inside it may be called without a parameter of its own.

        Args:
            used_modules: fqns of the modules whose forward has run.
            operands: data pointers of what forward's operations have read.
        """
        if self.is_leaf and self.module in used_modules:
            return True
        return find_pointer(self.param) in operands


def find_pointer(tensor: Tensor) -> int:
    """Where the elements begin in memory; 0 for a tensor without memory of its own.

    Args:
        tensor: of which this rank's shard counts.
    """
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
                kind = "norm" if _is_scale(name, module) else _find_param_role(role, param)
                facts = kind, is_leaf, param.requires_grad
                found[id(param)] = Watched(fqn, prefix, param, [], *facts)
    return list(found.values())


def _exists(param: nn.Parameter | None) -> TypeGuard[nn.Parameter]:
    return param is not None and not isinstance(param, UninitializedParameter)


def strip_wrappers(fqn: str) -> str:
    """Name without what compilation and data parallelism put around a module.

    Args:
        fqn: of a module or a parameter.

    Example:
        >>> strip_wrappers("_orig_mod.blocks.0._fsdp_wrapped_module.weight")
        'blocks.0.weight'
    """
    parts = [part for part in fqn.split(".") if part not in ("_orig_mod", "_fsdp_wrapped_module")]
    return ".".join(parts)


def _is_scale(name: str, module: nn.Module) -> bool:
    """Whether it is the scale that torch's weight normalisation keeps beside the direction.

    It has as many dimensions as the weight, such as ``(1, 1, n)``, and is a vector all the same.
    Source: Salimans & Kingma (2016); ``torch.nn.utils.weight_norm``, the older and the newer one.
    """
    if name.endswith("_g") and f"{name[:-2]}_v" in module._parameters:
        return True
    return name == "original0" and any(
        type(part).__name__ == "_WeightNorm" for part in module.children()
    )


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
            shape=find_shape(entry.param),
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


def is_resized(shape: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether a tensor may have taken another one's place: of a matrix one side may have grown.

    Args:
        shape: of the one that is there.
        before: of the one that may have been in its place.

    Example:
        >>> is_resized((101, 64), (100, 64)), is_resized((10,), (10,)), is_resized((10,), (4,))
        (True, True, False)
    """
    if len(shape) != len(before):
        return False
    changed = sum(size != other for size, other in zip(shape, before, strict=True))
    return changed <= (1 if len(shape) > 1 else 0)


def localise(tensor: Any) -> Tensor:
    """The shard of this rank of a distributed tensor, else the tensor itself.

    Args:
        tensor: a ``DTensor`` or a plain one; nothing is copied. Of one that cannot be read there
            is nothing here.
    """
    is_plain = type(tensor) in PLAIN_TYPES  # at once: most are
    if is_plain and not (tensor.is_meta or tensor.is_nested):
        return tensor  # type: ignore[no-any-return]
    if is_opaque(tensor):
        return torch.empty(0)
    if not hasattr(tensor, "to_local"):
        return tensor  # type: ignore[no-any-return]
    local: Tensor = tensor.to_local()
    return local
