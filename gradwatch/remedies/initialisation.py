"""Initialisation matched to the activation that follows each weight."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from gradwatch.records import Layer
from gradwatch.remedies.surgery import Edit, NotApplicable
from gradwatch.remedies.survey import Survey
from gradwatch.schema.activations import LECUN, XAVIER, choose_scheme
from gradwatch.verdict.init_schemes import (
    find_following_type,
    join_schemes,
)
from gradwatch.wording.module_names import describe_layers

RECURRENT = "Xavier, orthogonal recurrent matrices"
ALL_PROJECTIONS = "Xavier, all projections"

FollowingType = Callable[[int], str]
"""Layer index -> type of the activation that follows; empty where none does."""


def match_initialisation(model: nn.Module, survey: Survey) -> Edit:
    """He before the ReLU family, Xavier before sigmoid and tanh, LeCun before none.

    Args:
        model: a copy, changed in place.
        survey: of the model.

    Raises:
        NotApplicable: there is no weight that can be re-initialised.

    Source:
        He et al. 2015 (arXiv 1502.01852), Glorot & Bengio 2010 (AISTATS), LeCun et al. 1998
            ("Efficient BackProp").
    """
    scheme, description = initialise_weights(
        model, survey, lambda index: find_following_type(survey.topology, index)
    )
    return Edit(f"{scheme} initialisation", description)


def initialise_weights(
    model: nn.Module, survey: Survey, find_type: FollowingType
) -> tuple[str, str]:
    """Re-initialise all trainable weights; biases become 0.

    Args:
        model: a copy, changed in place.
        survey: of the model.
        find_type: says which activation follows a layer.

    Returns:
        The schemes' names, and what was done where.

    Raises:
        NotApplicable: there is no weight that can be re-initialised.
    """
    done: dict[str, list[Layer]] = defaultdict(list)
    tied = _find_tied(model)
    for index in survey.list_weights():
        layer = survey.layers[index]
        how = _initialise(model.get_submodule(layer.fqn), find_type(index), tied)
        if how:
            done[how].append(layer)
    if not done:
        raise NotApplicable("no trainable Linear, convolution, recurrent or attention weights")
    parts = [f"{describe_layers(layers)} with {how}" for how, layers in done.items()]
    schemes = [how.split(",")[0] for how in done]
    main = [scheme for scheme in schemes if scheme != LECUN] or schemes
    return join_schemes(main), f"re-initialise {' and '.join(parts)}; set their biases to 0"


def _find_tied(model: nn.Module) -> set[int]:
    """Parameters under several names: what suits one of their uses may not suit the other."""
    seen: set[int] = set()
    tied: set[int] = set()
    for _, param in model.named_parameters(remove_duplicate=False):
        (tied if id(param) in seen else seen).add(id(param))
    return tied


@torch.no_grad()
def _initialise(module: nn.Module, following: str, tied: set[int]) -> str:
    """What was done to the module; empty when nothing could be."""
    own = [param for param in module.parameters() if param.requires_grad]
    if not own or any(id(param) in tied for param in own):
        return ""
    if isinstance(module, nn.MultiheadAttention):
        return _initialise_attention(module)
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return _initialise_recurrent(module)
    weight = module._parameters.get("weight")
    if weight is None or weight.dim() < 2:
        return ""  # also a weight behind a parametrization, whose scale is not its own
    _fill(weight, following, isinstance(module, _ConvTransposeNd))
    _zero_bias(module)
    return choose_scheme(following)[0]


def _fill(weight: Tensor, following: str, is_transposed: bool) -> None:
    scheme, gain = choose_scheme(following)
    if scheme == XAVIER:
        nn.init.xavier_uniform_(weight, gain)
    else:
        nn.init.normal_(weight, std=gain / math.sqrt(_count_inputs(weight, is_transposed)))


def _count_inputs(weight: Tensor, is_transposed: bool) -> int:
    """Inputs of each output; a transposed convolution has them in the first dimension."""
    inputs, outputs = weight[0].numel(), weight.numel() // weight.shape[1]
    return outputs if is_transposed else inputs


def _zero_bias(module: nn.Module) -> None:
    for name, param in module.named_parameters():
        if "bias" in name:
            nn.init.zeros_(param)


def _initialise_attention(module: nn.MultiheadAttention) -> str:
    for param in module.parameters():
        if param.dim() >= 2:
            nn.init.xavier_uniform_(param)
    _zero_bias(module)
    return ALL_PROJECTIONS


def _initialise_recurrent(module: nn.Module) -> str:
    """Orthogonal recurrent matrices keep norms over time; an LSTM starts by remembering.

    Saxe et al. (2014), section 3; Jozefowicz et al. (2015) for the forget bias of 1.
    """
    _zero_bias(module)
    hidden = int(module.hidden_size)  # type: ignore[arg-type]
    for name, param in module.named_parameters():
        fill = nn.init.orthogonal_ if "weight_hh" in name else nn.init.xavier_uniform_
        if "weight" in name:
            for gate in param.split(hidden) if param.shape[0] % hidden == 0 else (param,):
                fill(gate)
        elif "bias_ih" in name and isinstance(module, (nn.LSTM, nn.LSTMCell)):
            param[hidden : 2 * hidden] = 1.0  # gates in the order input, forget, cell, output
    return RECURRENT + (", forget bias 1" if isinstance(module, (nn.LSTM, nn.LSTMCell)) else "")
