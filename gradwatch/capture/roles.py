"""What part a module plays: weight, normalisation, activation, recurrent, embedding, container."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules import activation as activation_modules
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from gradwatch.schema.activations import Activation, find_activation

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
_CHANNELS_FIRST = (_NormBase, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.Embedding)


def is_activation_module(module: nn.Module) -> bool:
    """Whether the module is one of torch's own activations, and nothing more.

    Args:
        module: of any kind; a subclass of the user's is none.
    """
    home = type(module).__module__ == activation_modules.__name__
    return home and not isinstance(module, nn.MultiheadAttention)


def name_activation(module: nn.Module, fqn: str, activation: Activation) -> tuple[str, str, str]:
    """Fqn, role and type of an activation that is called inside a module.

    Args:
        module: that is running.
        fqn: its name.
        activation: that it calls.

    Returns:
        A module that only is this activation gives its own name; any other one ``"<fqn>:<name>"``.
    """
    name = type(module).__name__
    if not is_activation_module(module):
        return f"{fqn}:{activation.name}".lstrip(":"), "activation", activation.name
    is_plain = find_activation(name) is activation  # else such as a hardtanh from 0 on: a ReLU6
    return fqn, "activation", name if is_plain else activation.name


def find_role(module: nn.Module) -> str:
    """One of the roles of ``records.Layer``.

    Args:
        module: of any kind.

    Example:
        >>> from torch import nn
        >>> [find_role(module) for module in (nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.ReLU()))]
        ['weight', 'other', 'container']
    """
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "recurrent"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    own = [param for param in module._parameters.values() if param is not None]
    has_matrix = any(param.dim() >= 2 for param in own)
    is_leaf = not module._modules
    if isinstance(module, _NORMS) or (
        is_leaf and not has_matrix and "Norm" in type(module).__name__
    ):
        return "norm"
    if has_matrix or "parametrizations" in module._modules:
        return "weight"
    return "other" if is_leaf else "container"


def find_module_axis(module: nn.Module, output: Tensor) -> int | None:
    """Dimension in which a module's output counts units; ``None``: the module does not say.

    Args:
        module: that was called.
        output: what it has returned.
    """
    if isinstance(module, _ConvNd):
        return int(output.dim() == len(module.kernel_size) + 2)  # else without a batch
    if isinstance(module, _CHANNELS_FIRST) and output.dim() > 1:
        return 1
    return output.dim() - 1 if isinstance(module, _CHANNELS_LAST) and output.dim() else None
