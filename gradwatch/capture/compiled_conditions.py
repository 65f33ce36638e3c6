"""When statistics can be read inside compiled code, as far as that is known before compiling."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradwatch.capture.calls import CallKey
from gradwatch.capture.opposition import is_asked
from gradwatch.capture.plan import Plan
from gradwatch.records import Layer


class CompiledCall(NamedTuple):
    """A call of compiled code, as far as one compilation serves all like it.

    Attributes:
        function: ``id`` of what is called.
        below: backend that the user has chosen.
        given: shapes and types of what it is called with. Of a number its type, since most
            have no part in the computation, such as that of a batch.
    """

    function: int
    below: Any
    given: Any


def load_dynamo() -> Any:
    """The module of dynamo that this needs; ``None`` where this torch does not have it, or nothing
    was compiled."""
    dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
    guards = sys.modules.get("torch._dynamo.guards")
    c_module: Any = getattr(torch._C._dynamo, "eval_frame", None)
    names = "set_eval_frame_isolate_recompiles_id", "_get_cache_entries_for_region"
    if dynamo is None or not hasattr(guards, "DeletedGuardManagerWrapper"):
        return None
    if not all(hasattr(c_module, name) for name in names):
        return None
    if not hasattr(dynamo, "_next_isolate_recompiles_id"):
        return None
    return dynamo


def read_call(frame: FrameType, function: Any) -> CompiledCall | None:
    """A call of the model's compiled code that is about to run.

    Args:
        frame: of dynamo, that asks for its stance.
        function: that is called.

    Returns:
        ``None`` where the call has to run as without this.
    """
    dynamo, caller = load_dynamo(), frame.f_back
    if dynamo is None or caller is None or frame.f_code.co_name != "_callback_from_stance":
        return None
    if caller.f_code.co_name != "compile_wrapper":
        return None
    below, given = dynamo.innermost_backend(frame.f_locals["callback"]), caller.f_locals
    return CompiledCall(id(function), below, _describe((given["args"], given["kwargs"])))


def _describe(value: Any, depth: int = 4) -> Any:
    """What a compilation for fixed shapes depends on."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device, value.requires_grad
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, (list, tuple)) and depth:
        return tuple(_describe(each, depth - 1) for each in value)
    return value if isinstance(value, (bool, str)) else type(value)


def find_obstacle(call: CompiledCall, plan: Plan, linked: Mapping[CallKey, Layer]) -> str:
    """Why a plan's statistics cannot be read inside a graph; ``""``: they can.

    Args:
        call: of compiled code.
        plan: of a step.
        linked: calls as earlier steps have described them.
    """
    if len(plan.passes) != 1 or len(plan.list_roots()) != 1:
        return "several outermost calls"
    if getattr(call.below, "config", {}).get("triton.cudagraphs"):
        return "CUDA graphs"
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return "several processes"
    if any(slot.role == "recurrent" for slot in plan.passes[0]):
        return "recurrent layers"
    for slot in plan.passes[0]:
        layer = None if slot.key is None else linked.get(slot.key)
        if layer is not None and layer.step_axis >= 0:
            return "a loop over time"
        if layer is not None and slot.activation and is_asked(layer, slot.activation):
            return "outputs that an activation squashes"
    return ""
