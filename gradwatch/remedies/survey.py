"""What there is in a model to take hold of: modules with their shapes, and the inputs' scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.evidence.topology import Topology
from gradwatch.records import Layer
from gradwatch.twin_training import compute_loss
from gradwatch.verdict.init_schemes import is_hidden_activation
from gradwatch.wording.module_names import is_function

Position = int | str
"""Of an input: its position, or its name as a keyword argument."""


@dataclass(frozen=True)
class Shapes:
    """Of the first tensors that a module got and gave; ``None`` where there was none."""

    input: tuple[int, ...] | None
    output: tuple[int, ...] | None


@dataclass(frozen=True)
class Survey:
    """A model's layers in the order of forward, and what the layer set does not say.

    Attributes:
        topology: of the untouched model.
        shapes: by module name, at its first call.
        inputs: floating-point inputs of the model, all batches looked at, by place.
    """

    topology: Topology
    shapes: dict[str, Shapes] = field(default_factory=dict)
    inputs: dict[Position, list[Tensor]] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """In the order in which forward reached them."""
        return self.topology.layers

    def list_activations(self) -> list[int]:
        """Hidden activations: no gates, no heads, nothing that mixes units."""
        return [i for i in range(len(self.layers)) if is_hidden_activation(self.topology, i)]

    def list_activation_modules(self) -> list[int]:
        """Hidden activations that are modules, one entry each, if every call of them is hidden."""
        hidden = set(self.list_activations())
        calls: dict[str, list[int]] = {}
        for index, layer in enumerate(self.layers):
            calls.setdefault(layer.fqn, []).append(index)
        found = [own for own in calls.values() if set(own) <= hidden]
        return [own[0] for own in found if not is_function(self.layers[own[0]])]

    def list_weights(self) -> list[int]:
        """First calls of the modules that own a weight."""
        return [
            index
            for index, layer in enumerate(self.layers)
            if layer.role in ("weight", "recurrent") and layer.call == 0 and ":" not in layer.fqn
        ]

    def list_function_calls(self) -> list[int]:
        """Hidden activations called as functions; not those inside a recurrent module."""
        recurrent = {layer.fqn for layer in self.layers if layer.role == "recurrent"}
        return [
            index
            for index in self.list_activations()
            if is_function(self.layers[index])
            and self.layers[index].fqn.rpartition(":")[0] not in recurrent
        ]


def survey_model(
    model: nn.Module, batches: Sequence[Any], loss_fn: Callable[..., Tensor], topology: Topology
) -> Survey:
    """Run forward on some batches and look; the model should be a copy.

    Args:
        model: hooks are left on it.
        batches: as in ``gradwatch.check``.
        loss_fn: as in ``gradwatch.check``.
        topology: of the same model.
    """
    survey = Survey(topology)
    for fqn, module in model.named_modules():
        module.register_forward_hook(_note_shapes(survey, fqn), with_kwargs=True)
    model.register_forward_pre_hook(_note_inputs(survey), with_kwargs=True)
    for batch in batches:
        compute_loss(model, batch, loss_fn)
    return survey


def _note_shapes(survey: Survey, fqn: str) -> Callable[..., None]:
    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        found = Shapes(_find_shape((*args, *kwargs.values())), _find_shape(output))
        survey.shapes.setdefault(fqn, found)

    return note


def _note_inputs(survey: Survey) -> Callable[..., None]:
    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        for place, value in (*enumerate(args), *kwargs.items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                survey.inputs.setdefault(place, []).append(value.detach().clone())

    return note


def _find_shape(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, (tuple, list)) and value:
        return _find_shape(value[0])
    return None
