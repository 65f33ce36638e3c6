"""Whether backward was called on the negative of a loss, which every step then raises.

Read off the graph, of which no value is left by then: how the loss was made of the outputs, and
which parameters made these. Nothing is computed, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.optim import Optimizer

from gradwatch.capture.graph import WHOLE_VIEWS, Node, adds_to_grad
from gradwatch.capture.optimizer_groups import find_held_ids
from gradwatch.capture.parameters import Watched

MOST_NODES = 32
"""Between a loss and the layer before it; far more than any of torch's losses has."""

_NEGATIVE = "NegBackward0"
_REDUCTIONS = frozenset(("MeanBackward0", "MeanBackward1", "SumBackward0", "SumBackward1"))
_VIEWS = WHOLE_VIEWS | {
    *("SelectBackward0", "SliceBackward0", "ToCopyBackward0", "CloneBackward0"),
}
_SCALINGS = _REDUCTIONS | _VIEWS | {_NEGATIVE, "DivBackward0"}
"""What only multiplies a scalar by a number; a factor of its own, as a policy's return, does not
count: it may be below 0 itself."""

_CROSS_ENTROPIES = frozenset(("NllLossBackward0", "NllLoss2DBackward0"))
_LOSSES = _CROSS_ENTROPIES | {
    *("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0"),
    *("BinaryCrossEntropyBackward0", "BinaryCrossEntropyWithLogitsBackward0"),
}
"""Never below 0 (a cross entropy: where it was given the logarithms of a softmax), and raised
without bound by outputs that are ever more wrong."""

_LOG_SOFTMAX = "LogSoftmaxBackward0"
_HEADS = _VIEWS | {_LOG_SOFTMAX, "SigmoidBackward0"}


def raises_own_loss(
    root: Tensor, optimizers: Sequence[Optimizer], watched: Sequence[Watched]
) -> bool:
    """Whether a pass begins at the negative of the loss of a layer that is trained here.

    Args:
        root: scalar that ``backward`` was called on.
        optimizers: that are watched; without any, whoever is watched is trained.
        watched: parameters.
    """
    raised = find_raised_params(root)
    if not raised:
        return False
    trained = find_held_ids(optimizers) or {id(entry.param) for entry in watched}
    return any(id(param) in trained for param in raised)


def find_raised_params(root: Tensor) -> list[Tensor]:
    """Parameters of the layer that made the outputs of a loss that was negated.

    Who they belong to tells a mistake from a player of a game, which raises the loss of another
    one that it passes the gradient through, and does not train.

    Args:
        root: scalar that ``backward`` was called on, while it runs or before.

    Returns:
        Empty where the loss was not negated, or is none that is known to be at least 0, or where
        what it was given does not come from one layer alone.

    Example:
        >>> import torch
        >>> layer, x, target = torch.nn.Linear(3, 2), torch.ones(4, 3), torch.tensor([0, 1, 0, 1])
        >>> loss = torch.nn.functional.cross_entropy(layer(x), target)
        >>> len(find_raised_params(-loss)), len(find_raised_params(loss))
        (2, 0)
    """
    signs = 0
    for node in _walk(root.grad_fn):
        if node.name() in _LOSSES:
            return _find_last_params(node) if signs % 2 else []
        if node.name() not in _SCALINGS:
            return []
        signs += node.name() == _NEGATIVE
    return []


def _walk(node: Node | None) -> Iterator[Node]:
    """A node and those before it, as long as there is one way only."""
    for _ in range(MOST_NODES):
        if node is None:
            return
        yield node
        before = _list_before(node)
        node = before[0] if len(before) == 1 else None


def _list_before(node: Node) -> list[Node]:
    return [source for source, _ in node.next_functions if source is not None]


def _find_last_params(loss: Node) -> list[Tensor]:
    before = _list_before(loss)
    if len(before) != 1:  # a target that learns as well
        return []
    names = []
    for node in _walk(before[0]):
        if node.name() not in _HEADS:
            is_loss = loss.name() not in _CROSS_ENTROPIES or _LOG_SOFTMAX in names
            return _list_own(node) if is_loss else []
        names.append(node.name())
    return []


def _list_own(node: Node) -> list[Tensor]:
    """Parameters that a node was given, transposed or converted at most."""
    own = []
    for source in _list_before(node):
        end = next((found for found in _walk(source) if found.name() not in _VIEWS), None)
        if end is not None and adds_to_grad(end):
            own.append(end.variable)
    return own
