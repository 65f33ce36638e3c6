"""What a training leaves behind: results to the last bit, hooks on the process, and a report."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from gradwatch.records import StepRecord
from gradwatch.verdict.findings import Finding


def capture_results(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer], losses: Iterable[Tensor]
) -> dict[str, Any]:
    """Weights, buffers, gradients, optimizer state, losses and every random state, as bytes."""
    found: dict[str, Any] = {}
    for fqn, param in model.named_parameters():
        found[f"weight {fqn}"] = _to_bytes(param)
        found[f"grad {fqn}"] = _to_bytes(param.grad)
    for fqn, buffer in model.named_buffers():
        found[f"buffer {fqn}"] = _to_bytes(buffer)
    for number, optimizer in enumerate(optimizers):
        for place, value in _flatten(optimizer.state_dict()):
            found[f"optimizer {number} {place}"] = _to_bytes(value)
    for step, loss in enumerate(losses):
        found[f"loss {step}"] = _to_bytes(loss)
    found["torch's random state"] = _to_bytes(torch.get_rng_state())
    found["numpy's random state"] = repr(np.random.get_state())
    found["python's random state"] = repr(random.getstate())
    return found


def _flatten(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flatten(part, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for key, part in enumerate(value):
            yield from _flatten(part, f"{place}.{key}")
    else:
        yield place, value


def _to_bytes(value: Any) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, nn.parameter.UninitializedParameter):
        return repr(value)
    dense = value.detach().to_dense() if value.is_sparse else value.detach()
    flat = dense.contiguous().reshape(-1)
    return str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()


def list_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same."""
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def list_attachments(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer] = ()
) -> dict[str, Any]:
    """Hooks, attributes, classes and modes of a model, its optimizers and the process."""
    found: dict[str, Any] = {
        "function modes": torch._C._len_torch_function_stack(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "grad mode": torch.is_grad_enabled(),
        "objects that make Python collect": gc.get_threshold(),
    }
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks"):
        found[name] = len(getattr(module_hooks, name))
    for fqn, module in model.named_modules():
        found[f"{fqn} class"] = type(module)
        found[f"{fqn} attributes"] = sorted(module.__dict__)
        found[f"{fqn} training"] = module.training
        for name, hooks in module.__dict__.items():
            if name.endswith("_hooks"):
                found[f"{fqn} {name}"] = len(hooks)
    for fqn, param in model.named_parameters():
        found[f"{fqn} attributes"] = sorted(param.__dict__)
        found[f"{fqn} hooks"] = len(param._backward_hooks or ())
        found[f"{fqn} hooks after"] = len(getattr(param, "_post_accumulate_grad_hooks", 0) or ())
    for number, optimizer in enumerate(optimizers):
        for name, value in optimizer.__dict__.items():
            if name.endswith("_hooks"):
                found[f"optimizer {number} {name}"] = len(value)
    return found


def get_records(watching: Any) -> tuple[StepRecord, ...]:
    """All records of a watch, or of a callback that has one."""
    history = watching.report().history
    assert history is not None
    return tuple(history.records)


def list_found(findings: Iterable[Finding]) -> list[tuple[str, str | None]]:
    """Kind and cause of each finding."""
    return [(finding.kind, finding.cause) for finding in findings]
