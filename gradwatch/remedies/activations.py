"""Another activation, with the initialisation that suits it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from gradwatch.records import Layer
from gradwatch.remedies.initialisation import initialise_weights
from gradwatch.remedies.surgery import Edit, NotApplicable, replace_module
from gradwatch.remedies.survey import Survey
from gradwatch.verdict.init_schemes import find_following, find_following_type
from gradwatch.wording.module_names import describe_layers


def swap_activations(kind: type[nn.Module]) -> Callable[[nn.Module, Survey], Edit]:
    """A remedy that makes every hidden activation module one of this class.

    Gates and the activations of heads stay: being sure is their job.

    Args:
        kind: made without arguments, such as ``nn.GELU``.

    Returns:
        A ``Remedy.operate``, which raises ``NotApplicable`` where no such module is to be swapped.
    """

    def operate(model: nn.Module, survey: Survey) -> Edit:
        layers = _choose_layers(survey, kind)
        for layer in layers:
            replace_module(model, layer.fqn, lambda old: kind().train(old.training))
        name, swapped = kind.__name__, {layer.fqn for layer in layers}

        def find_type(index: int) -> str:
            behind = find_following(survey.topology, index)
            if behind is not None and survey.layers[behind].fqn in swapped:
                return name
            return find_following_type(survey.topology, index)

        scheme, initialised = initialise_weights(model, survey, find_type)
        done = f"replace {describe_layers(layers)} by {name}; {initialised}"
        return Edit(f"{name} + {scheme}", done)

    return operate


def _choose_layers(survey: Survey, kind: type[nn.Module]) -> list[Layer]:
    modules = [survey.layers[index] for index in survey.list_activation_modules()]
    others = [layer for layer in modules if layer.type != kind.__name__]
    if others:
        return others
    if modules:
        raise NotApplicable(f"the activations are {kind.__name__} already")
    called = [survey.layers[index] for index in survey.list_function_calls()]
    if called:
        raise NotApplicable(
            f"activations called as functions cannot be swapped from outside: change "
            f"{describe_layers(called)} in your code"
        )
    raise NotApplicable("no hidden activations")
