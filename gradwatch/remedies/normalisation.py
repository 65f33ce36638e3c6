"""Normalisation between the layers, and of the model's inputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.evidence.topology import Topology
from gradwatch.remedies.surgery import Edit, NotApplicable, replace_module
from gradwatch.remedies.survey import Survey
from gradwatch.verdict.init_schemes import find_following
from gradwatch.wording.module_names import describe_layers

MakeNorm = Callable[[nn.Module, tuple[int, ...]], nn.Module | None]
"""Module and the shape of its output -> a normalisation for it, if one fits."""

NEAR_ZERO_MEAN = 0.5
"""Inputs whose mean is within this many standard deviations of 0 count as centred, ..."""

NEAR_UNIT_SCALE = 3.0
"""... and as scaled when the standard deviation is within this factor of 1."""

FEWEST_SAMPLES = 8
"""Values of a feature from which its moments are taken."""

SMALLEST_DEVIATION = 1e-6
"""Of a feature that is divided by; constant features become 0."""

_CONVOLUTIONS = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
}


def make_batch_norm(module: nn.Module, shape: tuple[int, ...]) -> nn.Module | None:
    """Over samples and positions; ``None`` where the units' dimension is not the second.

    Args:
        module: whose output is normalised.
        shape: of that output, samples first.
    """
    for kind, norm in _CONVOLUTIONS.items():
        if isinstance(module, kind):
            return norm(shape[1])
    return nn.BatchNorm1d(shape[1]) if len(shape) == 2 else None


def make_layer_norm(module: nn.Module, shape: tuple[int, ...]) -> nn.Module | None:
    """Over the units of each sample; of a convolution over channels and positions.

    Args:
        module: whose output is normalised.
        shape: of that output, samples first.
    """
    if isinstance(module, tuple(_CONVOLUTIONS)):
        return nn.GroupNorm(1, shape[1])
    return nn.LayerNorm(shape[-1])


def insert_norms(name: str, make: MakeNorm) -> Callable[[nn.Module, Survey], Edit]:
    """A remedy that normalises between each hidden weight and its activation.

    Args:
        name: of the normalisation, for the words.
        make: gives one for a module; ``None`` leaves the module as it is.

    Returns:
        A ``Remedy.operate``, which raises ``NotApplicable`` where nothing is to be normalised.
    """

    def operate(model: nn.Module, survey: Survey) -> Edit:
        indices = _find_unnormalised(survey)
        done = []
        for index in indices:
            layer = survey.layers[index]
            module = model.get_submodule(layer.fqn)
            norm = make(module, survey.shapes[layer.fqn].output or ())
            if norm is not None:
                norm.to(next(module.parameters())).train(module.training)
                replace_module(model, layer.fqn, _stack(norm))
                done.append(layer)
        if not done:
            raise NotApplicable(f"no output whose shape suits {name}")
        return Edit(f"{name} inserted", f"insert {name} after {describe_layers(done)}")

    return operate


def _stack(norm: nn.Module) -> Callable[[nn.Module], nn.Module]:
    return lambda layer: nn.Sequential(OrderedDict(layer=layer, norm=norm))


def _find_unnormalised(survey: Survey) -> list[int]:
    weights = [i for i in survey.list_weights() if survey.layers[i].role == "weight"]
    hidden = [i for i in weights if find_following(survey.topology, i) is not None]
    if not hidden:
        raise NotApplicable("no weights followed by a hidden activation")
    found = [i for i in hidden if not _is_normalised(survey.topology, i)]
    if not found:
        raise NotApplicable("normalised already")
    return found


def _is_normalised(topology: Topology, index: int) -> bool:
    """Whether a normalisation comes right before the weight or between it and its activation."""
    layers = topology.layers
    near = [*topology.consumers[index], *layers[index].inputs]
    return any(layers[other].role == "norm" for other in near)


def normalise_inputs(model: nn.Module, survey: Survey) -> Edit:
    """Standardise each floating-point input of forward by the moments of the given batches.

    Args:
        model: a copy; gets a forward pre-hook.
        survey: with the inputs of forward.

    Raises:
        NotApplicable: no floating-point input, or all of them are about standardised.
    """
    if not survey.inputs:
        raise NotApplicable("no floating-point inputs")
    off = {place: _list_values(seen) for place, seen in survey.inputs.items() if _is_off(seen)}
    if not off:
        raise NotApplicable("the inputs are normalised already")
    if any(len(values) < FEWEST_SAMPLES for values in off.values()):
        raise NotApplicable(f"fewer than {FEWEST_SAMPLES} samples to take the moments from")
    moments = {place: _measure(off[place], survey.inputs[place][0]) for place in off}

    def standardise(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = {key: _apply(value, moments.get(key)) for key, value in kwargs.items()}
        return tuple(_apply(value, moments.get(i)) for i, value in enumerate(args)), named

    model.register_forward_pre_hook(standardise, with_kwargs=True)
    values = torch.cat([feature.flatten() for feature in off.values()])
    return Edit(
        "inputs normalised",
        f"standardise the inputs, which lie between {values.min():.3g} and {values.max():.3g}, to "
        "mean 0 and standard deviation 1 per feature",
    )


def _is_off(seen: list[Tensor]) -> bool:
    values = torch.cat([value.flatten() for value in seen]).float()
    mean, deviation = values.mean().item(), values.std(correction=0).item()
    scaled = 1 / NEAR_UNIT_SCALE <= deviation <= NEAR_UNIT_SCALE
    return not (scaled and abs(mean) <= NEAR_ZERO_MEAN * deviation)


def _find_unit_dim(value: Tensor) -> int:
    """Channels of images, else the last dimension."""
    return 1 if value.dim() >= 4 else -1


def _list_values(seen: list[Tensor]) -> Tensor:
    """All values of each feature, ``(n, features)``."""
    dim = _find_unit_dim(seen[0])
    return torch.cat([value.movedim(dim, -1).reshape(-1, value.shape[dim]) for value in seen])


def _measure(values: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature, in the shape that broadcasts over such an input."""
    shape = [1] * example.dim()
    shape[_find_unit_dim(example)] = -1
    deviation = values.std(dim=0, correction=0).clamp_min(SMALLEST_DEVIATION)
    return values.mean(dim=0).reshape(shape), deviation.reshape(shape)


def _apply(value: Any, moments: tuple[Tensor, Tensor] | None) -> Any:
    return value if moments is None else (value - moments[0]) / moments[1]
