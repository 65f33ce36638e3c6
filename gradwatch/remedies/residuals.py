"""Skips around stages whose output has the shape of their input."""

from __future__ import annotations

from torch import nn

from gradwatch.remedies.surgery import (
    Edit,
    Entrance,
    Exit,
    NotApplicable,
    Residual,
    Shortcut,
    replace_module,
)
from gradwatch.remedies.survey import Survey
from gradwatch.verdict.init_schemes import is_hidden_activation
from gradwatch.wording.module_names import describe_layers, name_patterns

NAME = "residual connections"


def add_residuals(model: nn.Module, survey: Survey) -> Edit:
    """Around each weight and its activation, or else around each smallest block that holds both.

    Args:
        model: a copy, changed in place.
        survey: with the shapes of its modules' inputs and outputs.

    Raises:
        NotApplicable: no stage without a skip keeps the shape of its input.

    Source:
        He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385).
    """
    pairs = _find_pairs(survey)
    if pairs:
        return _bridge_pairs(model, survey, pairs)
    blocks = _find_blocks(model, survey)
    if not blocks:
        raise NotApplicable("no stage without a skip has an output of its input's shape")
    for fqn in blocks:
        replace_module(model, fqn, Residual)
    plural = "s" if len(blocks) > 1 else ""
    named = name_patterns(blocks).removeprefix(f"layer{plural} ")
    return Edit(NAME, f"add the input of the {len(blocks)} block{plural} {named}")


def _bridge_pairs(model: nn.Module, survey: Survey, pairs: list[tuple[int, int]]) -> Edit:
    shortcut = Shortcut()  # one for all: a stage ends before the next one begins
    weights = [survey.layers[weight] for weight, _ in pairs]
    for fqn in dict.fromkeys(layer.fqn for layer in weights):
        replace_module(model, fqn, lambda old: Entrance(old, shortcut))
    for fqn in dict.fromkeys(survey.layers[activation].fqn for _, activation in pairs):
        replace_module(model, fqn, lambda old: Exit(old, shortcut))
    return Edit(
        NAME, f"add a skip around {describe_layers(weights)} and the activation behind each"
    )


def _find_pairs(survey: Survey) -> list[tuple[int, int]]:
    """Weights and the activation modules right behind them, where a skip fits."""
    modules = {survey.layers[i].fqn for i in survey.list_activation_modules()}
    pairs = []
    for weight, layer in enumerate(survey.layers):
        consumers = survey.topology.consumers[weight]
        if layer.role != "weight" or len(consumers) != 1:
            continue
        behind = consumers[0]
        fits = survey.layers[behind].fqn in modules and _keeps_shape(survey, weight, behind)
        if fits and not _has_skip(survey, weight, behind):
            pairs.append((weight, behind))
    return pairs


def _keeps_shape(survey: Survey, first: int, last: int) -> bool:
    """By the numbers of elements also for a shared activation, whose shape is its first call's."""
    layers, shapes = survey.layers, survey.shapes
    own = shapes.get(layers[first].fqn)
    if own is None or own.input is None or own.input != own.output:
        return False
    return layers[first].output_numel == layers[last].output_numel


def _has_skip(survey: Survey, first: int, last: int) -> bool:
    sources = set(survey.layers[first].inputs)
    behind = [survey.layers[consumer] for consumer in survey.topology.consumers[last]]
    return any(sources & set(layer.inputs) for layer in behind)


def _find_blocks(model: nn.Module, survey: Survey) -> list[str]:
    """Smallest modules with a weight and an activation inside, and no skip of their own."""
    found: list[str] = []
    for fqn in reversed([name for name, _ in model.named_modules() if name]):  # children first
        shapes = survey.shapes.get(fqn)
        same = shapes is not None and shapes.input is not None and shapes.input == shapes.output
        nested = any(name.startswith(f"{fqn}.") for name in found)
        if same and not nested and _is_plain_block(survey, fqn):
            found.append(fqn)
    return found[::-1]


def _is_plain_block(survey: Survey, fqn: str) -> bool:
    inside = [
        i for i, layer in enumerate(survey.layers) if layer.fqn.startswith((f"{fqn}.", f"{fqn}:"))
    ]
    layers = [survey.layers[i] for i in inside]
    has_weight = any(layer.role == "weight" for layer in layers)
    has_activation = any(is_hidden_activation(survey.topology, i) for i in inside)
    joins = any(
        len(layer.inputs) > 1 for layer in survey.layers if layer.fqn == fqn or layer in layers
    )
    return has_weight and has_activation and not joins
