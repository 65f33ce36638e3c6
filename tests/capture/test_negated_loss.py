"""The negative of a loss is known by its graph, and a player's loss from a mistake by its owner."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradwatch.capture.negated_loss import find_raised_params, raises_own_loss
from gradwatch.capture.parameters import Watched

TARGETS = torch.tensor([0, 1, 2, 1])
VALUES = torch.rand(4, 3)

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross entropy": lambda z: F.cross_entropy(z, TARGETS),
    "sum": lambda z: F.cross_entropy(z, TARGETS, reduction="sum"),
    "mean of all": lambda z: F.cross_entropy(z, TARGETS, reduction="none").mean(),
    "pixels": lambda z: F.cross_entropy(z.T[None, :, :, None], TARGETS[None, :, None]),
    "nll": lambda z: F.nll_loss(F.log_softmax(z, -1), TARGETS),
    "tokens": lambda z: F.cross_entropy(z.view(2, 2, 3).transpose(1, 2), TARGETS.view(2, 2)),
    "mse": lambda z: F.mse_loss(z, VALUES),
    "smooth l1": lambda z: F.smooth_l1_loss(z, VALUES),
    "huber": lambda z: F.huber_loss(z, VALUES),
    "bce": lambda z: F.binary_cross_entropy(z.sigmoid(), VALUES),
    "bce of logits": lambda z: F.binary_cross_entropy_with_logits(z, VALUES),
    "one column": lambda z: F.mse_loss(z[:, 0].squeeze(), VALUES[:, 0]),
}

NEGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "minus": lambda loss: -loss,
    "neg": lambda loss: loss.neg(),
    "divided": lambda loss: -loss / 4,
    "thrice": lambda loss: loss.neg().neg().neg(),
}


def make_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


def list_ids(params: Iterable[Tensor]) -> set[int]:
    return {id(param) for param in params}


@pytest.mark.parametrize("negate", NEGATIONS.values(), ids=NEGATIONS)
@pytest.mark.parametrize("measure", LOSSES.values(), ids=LOSSES)
def test_negated(measure: Callable[[Tensor], Tensor], negate: Callable[[Tensor], Tensor]) -> None:
    net = make_net()
    loss = measure(net(torch.randn(4, 5)))
    assert list_ids(find_raised_params(negate(loss))) == list_ids(net[2].parameters())
    assert find_raised_params(loss) == find_raised_params(loss.neg().neg()) == []


def test_while_backward_runs() -> None:
    """Of what the graph held nothing is left then."""
    net, found = make_net(), []
    x = torch.randn(4, 5)
    root = -F.cross_entropy(net(x), TARGETS) / 2
    net[0].weight.register_hook(lambda _: found.extend(find_raised_params(root)))
    root.backward()
    assert len(found) == 2


def test_in_half_precision() -> None:
    net = make_net()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(net(torch.randn(4, 5)), TARGETS)
    assert list_ids(find_raised_params(-loss)) == list_ids(net[2].parameters())


def measure_player(net: nn.Module) -> Tensor:
    """A generator that raises the loss of a judge which it does not train."""
    judge = nn.Linear(3, 1).requires_grad_(False)
    return -F.binary_cross_entropy_with_logits(judge(net(torch.randn(4, 5))), torch.zeros(4, 1))


def measure_perturbation(_: nn.Module) -> Tensor:
    """An input that fools a network which it does not train."""
    frozen, shift = make_net().requires_grad_(False), nn.Parameter(torch.zeros(5))
    return -F.cross_entropy(frozen(torch.randn(4, 5) + shift), TARGETS)


NOT_NEGATED: dict[str, Callable[[nn.Module], Tensor]] = {
    "player": measure_player,
    "perturbation": measure_perturbation,
    "return": lambda net: (
        -(F.cross_entropy(net(torch.randn(4, 5)), TARGETS, reduction="none") * VALUES[:, 0]).mean()
    ),
    "weighted": lambda net: F.mse_loss(net(torch.randn(4, 5)), VALUES) * -0.1,
    "two terms": lambda net: (
        F.cross_entropy(net(torch.randn(4, 5)), TARGETS)
        - F.mse_loss(net(torch.randn(4, 5)), VALUES)
    ),
    "likelihood": lambda net: F.nll_loss(F.softmax(net(torch.randn(4, 5)), -1), TARGETS).neg(),
    "similarity": lambda net: -F.cosine_similarity(net(torch.randn(4, 5)), VALUES).mean(),
    "two that learn": lambda net: -F.mse_loss(net(torch.randn(4, 5)), net(torch.randn(4, 5))),
    "no layer": lambda _: -F.mse_loss(torch.zeros(3, requires_grad=True).exp(), VALUES[0]),
    "constant": lambda _: torch.zeros(()),
}


@pytest.mark.parametrize("measure", NOT_NEGATED.values(), ids=NOT_NEGATED)
def test_not_known_to_be_negated(measure: Callable[[nn.Module], Tensor]) -> None:
    net = make_net()
    assert list_ids(net.parameters()).isdisjoint(list_ids(find_raised_params(measure(net))))


def test_a_judge_that_is_trained_elsewhere_is_named_itself() -> None:
    net, judge = make_net(), nn.Linear(3, 1)
    loss = -F.binary_cross_entropy_with_logits(judge(net(torch.randn(4, 5))), torch.zeros(4, 1))
    assert list_ids(find_raised_params(loss)) == list_ids(judge.parameters())


def test_what_another_optimizer_trains_is_another_player() -> None:
    net, other = make_net(), make_net()
    own, its = (torch.optim.SGD(model.parameters(), 0.1) for model in (net, other))
    root = -F.cross_entropy(net(torch.randn(4, 5)), TARGETS)
    watched = [Watched("", "", param) for param in net.parameters()]
    assert raises_own_loss(root, [own], watched)
    assert raises_own_loss(root, [], watched)
    assert not raises_own_loss(root, [its], watched)
    assert not raises_own_loss(root, [], [])
