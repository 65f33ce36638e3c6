"""A training goes to the last bit as it would have gone without a watch, and nothing stays.

Of the zoo's unhealthy runs, whole, ``test_detection`` holds the same.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from tests.networks import NETWORKS, make_mlp
from tests.traces import capture_results, list_attachments, list_differences
from tests.zoo import CASES, Case

STEPS = 80
ZOO_STEPS = 10


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_comparison_sees_one_bit() -> None:
    network = make_mlp().train(3)
    before = capture_results(network.model, [network.optimizer], network.losses)
    weight = next(network.model.parameters())
    with torch.no_grad():
        weight.view(-1)[0] = math.nextafter(weight.view(-1)[0].item(), math.inf) * (1 + 2**-23)
    after = capture_results(network.model, [network.optimizer], network.losses)
    assert list_differences(before, after) == ["weight 0.weight"]


def test_the_comparison_sees_a_random_number() -> None:
    network = make_mlp()
    before = capture_results(network.model, [], [])
    torch.rand(1)
    assert list_differences(before, capture_results(network.model, [], [])) == [
        "torch's random state"
    ]


def test_the_inspection_sees_a_hook() -> None:
    model = nn.Linear(2, 2)
    before = list_attachments(model)
    model.register_forward_hook(lambda *_: None)
    assert list_differences(before, list_attachments(model)) == [" _forward_hooks"]


@pytest.mark.parametrize("name", NETWORKS)
def test_network_trains_bit_identically(name: str) -> None:
    plain = NETWORKS[name]().train(STEPS)
    expected = capture_results(plain.model, [plain.optimizer], plain.losses)

    watched = NETWORKS[name]()
    attached = list_attachments(watched.model, [watched.optimizer])
    with gradwatch.watch(watched.model, watched.optimizer, every_n_steps=1) as watch:
        watched.train(STEPS)
    actual = capture_results(watched.model, [watched.optimizer], watched.losses)

    assert list_differences(expected, actual) == []
    assert watch.failure is None
    assert watch.report().records == STEPS
    watched.optimizer.zero_grad()
    assert list_differences(attached, list_attachments(watched.model, [watched.optimizer])) == []


class EnoughError(Exception):
    """A zoo run has made its steps."""


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every tensor that backward() is called on."""
    found: list[Tensor] = []
    backward = Tensor.backward

    def record(self: Tensor, *args: object, **kwargs: object) -> None:
        found.append(self.detach().clone())
        backward(self, *args, **kwargs)

    monkeypatch.setattr(Tensor, "backward", record)
    return found


def _run_zoo_case(case: Case, losses: list[Tensor], is_watched: bool) -> dict[str, object]:
    """The first steps of a case, and what they led to."""
    training = case.build()
    losses.clear()
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if made == ZOO_STEPS:
            raise EnoughError

    counter = training.optimizers[0].register_step_post_hook(count)
    attached = list_attachments(training.model, training.optimizers)
    try:
        if is_watched:
            with gradwatch.watch(training.model, training.optimizers, every_n_steps=1) as watch:
                training.run()
        else:
            training.run()
    except EnoughError:
        pass
    if is_watched:
        assert watch.failure is None
        assert watch.report().records > 0
        assert list_attachments(training.model, training.optimizers) == attached
    counter.remove()
    return capture_results(training.model, training.optimizers, losses)


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.healthy], ids=lambda case: case.name
)
def test_zoo_case_trains_bit_identically(case: Case, losses: list[Tensor]) -> None:
    expected = _run_zoo_case(case, losses, is_watched=False)
    assert list_differences(expected, _run_zoo_case(case, losses, is_watched=True)) == []
