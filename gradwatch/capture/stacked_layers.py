"""Layers of a recurrent module below its last one, as the graph keeps them.

On a CPU each layer of an LSTM is one node, which holds the layer's hidden states for backward, and
at which the gradient of all of them arrives: neither has to be computed again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from gradwatch.capture.graph import Node
from gradwatch.capture.reach import read_saved

_LAYER, _TRANSPOSED = "MkldnnRnnLayerBackward0", "TransposeBackward0"


class StackedLayer(NamedTuple):
    """A layer whose hidden states nobody returns.

    Attributes:
        node: at whose first output their gradient arrives.
        hidden: ``(T, B, H)``.
    """

    node: Node
    hidden: Tensor


def list_lower_layers(output: Tensor, n_layers: int) -> list[StackedLayer]:
    """The layers below the last one, from the lowest on; none where the graph does not show them.

    Args:
        output: of a module with one direction, ``(T, B, H)``, before its backward.
        n_layers: of the module.
    """
    node: Any = output.grad_fn
    found: list[StackedLayer] = []
    while node is not None and node.name() == _TRANSPOSED:
        node = node.next_functions[0][0]
    for _ in range(n_layers):
        is_layer = node is not None and node.name() == _LAYER
        hidden = read_saved(node, "result0") if is_layer else None
        if hidden is None:
            return []
        found.append(StackedLayer(node, hidden.detach()))
        node = node.next_functions[0][0]
    last = found[0].hidden if found else output
    is_same = last.data_ptr() == output.data_ptr() and last.stride() == output.stride()
    return found[:0:-1] if is_same and last.shape == output.shape else []
