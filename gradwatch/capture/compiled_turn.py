"""A planned step turns from following modules to reading them inside compiled code."""

from __future__ import annotations

import weakref

from torch import nn
from torch.overrides import TorchFunctionMode

from gradwatch.capture.compiled_conditions import CompiledCall
from gradwatch.capture.compiled_step import CompiledForward, CompiledStep
from gradwatch.capture.compiled_variant import CompiledVariant
from gradwatch.capture.execution import Execution
from gradwatch.capture.planned_forward import PlannedForward
from gradwatch.capture.sampled_step import SampledStep
from gradwatch.capture.weak_calls import call_weakly


def find_root(step: SampledStep, model: nn.Module) -> nn.Module | None:
    """The module that forward begins with, without what compilation puts around it.

    The watched one; or a part of it, where the training calls that and never the whole.

    Args:
        step: that is armed.
        model: that is watched.

    Returns:
        ``None`` where the step has no plan that knows it.
    """
    execution = step.recorder.execution
    if isinstance(execution, CompiledStep):
        return execution.root
    roots = execution.plan.list_roots() if isinstance(execution, Execution) else []
    found = next((module for module in model.modules() if id(module) in roots), None)
    return getattr(found, "_orig_mod", found)


def turn_compiled(
    step: SampledStep, variant: CompiledVariant, call: CompiledCall, root: nn.Module
) -> CompiledStep | None:
    """Before any layer has run: they are going to be read inside compiled code.

    Args:
        step: that is armed.
        variant: the compilation that does it.
        call: of compiled code, that is about to run.
        root: as ``find_root`` has found it.

    Returns:
        What takes their values; ``None`` where the step has to run eagerly.
    """
    recorder, guard = step.recorder, step.guard
    planned, forward = recorder.execution, recorder.forward
    if isinstance(planned, CompiledStep):
        return planned if variant.is_open(call) else None
    if not (isinstance(planned, Execution) and isinstance(forward, PlannedForward)):
        return None
    if not _is_before(step, forward, root):
        return None
    if not variant.is_usable(call, planned.plan, step.linked):
        return None
    has_begun = bool(forward.stack)
    forward.disarm()
    recorder.forward = CompiledForward(step.modules, guard, recorder, TorchFunctionMode, _ignore)
    recorder.execution = CompiledStep(
        *(recorder.table, recorder.gradients, step.firing, guard),
        *(call_weakly(recorder.begin_root), weakref.ref(root), has_begun),
    )
    return recorder.execution


def _is_before(step: SampledStep, forward: PlannedForward, root: nn.Module) -> bool:
    """Whether nothing was called yet, but perhaps what compilation puts around the model."""
    if step.counts_grad or step.own.list_rows("layer"):
        return False
    around = [getattr(frame.module, "_orig_mod", None) for frame in forward.stack]
    is_first = step.recorder.table.root == len(around) - 1
    return is_first and around in ([], [root])


def _ignore(module: nn.Module) -> None:
    """No module is met."""
