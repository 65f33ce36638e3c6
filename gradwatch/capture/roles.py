"""What part a module plays: weight, normalisation, activation, recurrent, embedding, container."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules import activation as activation_modules
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
_CHANNELS_FIRST = (_ConvNd, _NormBase, nn.GroupNorm, nn.LocalResponseNorm)
_CHANNELS_LAST = (nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RNNBase, nn.Embedding)


def is_activation_module(module: nn.Module) -> bool:
    """Whether the module is one of torch's own activations, and nothing more."""
    home = type(module).__module__ == activation_modules.__name__
    return home and not isinstance(module, nn.MultiheadAttention)


def find_role(module: nn.Module) -> str:
    """One of the roles of ``records.Layer``."""
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


def describe_module(module: nn.Module) -> tuple[str, int | None]:
    """Role, and the dimension in which its output counts units (``None``: unknown)."""
    if isinstance(module, _CHANNELS_FIRST):
        return find_role(module), 1
    if isinstance(module, _CHANNELS_LAST):
        return find_role(module), -1
    return find_role(module), None


def find_unit_dim(output: Tensor, last_unit_dim: int) -> int:
    """Dimension that counts units: that of the last layer whose layout is known, if it fits."""
    if output.dim() <= 2 or last_unit_dim == -1:
        return -1
    return 1


def count_samples(output: Tensor, unit_dim: int) -> int:
    """Samples behind each unit: positions of one image or signal are no samples of their own."""
    if output.dim() <= 1:
        return 1
    return output.shape[0] if unit_dim == 1 else output.numel() // max(output.shape[-1], 1)
