"""Each rival fires on a run made for its rule, and not on one made well."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks.rivals import RIVALS
from benchmarks.rivals.autotrainer import AutoTrainer, has_progressed
from benchmarks.rivals.deepdiagnosis import DeepDiagnosis
from benchmarks.rivals.sagemaker import SageMaker, measure_idle_units
from benchmarks.sighting import Detector, Sighting
from benchmarks.trial import run_case
from tests.zoo import Case, Training

STEPS = 60


def _train(model: nn.Module, factor: float = 1.0, spoil_at: int = -1) -> Training:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    inputs = torch.randn(32, 4)
    targets = inputs.sum(dim=1, keepdim=True)

    def run() -> list[float]:
        losses = []
        for step in range(STEPS):
            optimizer.zero_grad()
            given = inputs * (float("nan") if step == spoil_at else 1.0)
            loss = nn.functional.mse_loss(model(given), targets) * factor
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


def _watch(detector: Detector, training: Training) -> dict[str, Sighting]:
    detector.attach(training)
    losses = training.run()
    detector.detach()
    return {sighting.kind: sighting for sighting in detector.judge(losses)}


def _make_well() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))


def _make_dead() -> nn.Sequential:
    model = _make_well()
    nn.init.constant_(model[0].bias, -100.0)
    return model


def _make_saturated(activation: nn.Module, bias: float = -100.0) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 16), activation, nn.Linear(16, 1))
    nn.init.constant_(model[0].bias, bias)
    return model


def _make_deep_sigmoid() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(4, 16), nn.Sigmoid()]
    for _ in range(8):
        layers += [nn.Linear(16, 16), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(16, 1))


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "torchmortem"])
def test_rival_is_silent_on_a_small_relu_net_that_learns(name: str) -> None:
    assert _watch(RIVALS[name](), _train(_make_well())) == {}


@pytest.mark.parametrize("make", [SageMaker, AutoTrainer, DeepDiagnosis])
def test_rival_sees_nan(make: Callable[[], Detector]) -> None:
    found = _watch(make(), _train(_make_well(), spoil_at=20))
    assert found["nonfinite"].step == 21


def test_sagemaker_judges_by_the_absolute_gradient() -> None:
    found = _watch(SageMaker(), _train(_make_well(), factor=1e-9))
    assert found["vanishing"].step == 1
    assert len(found["vanishing"].layers) == 3


def test_sagemaker_sees_dead_units_and_saturated_ones() -> None:
    assert _watch(SageMaker(), _train(_make_dead()))["dead"] == Sighting("dead", ("1",), 1)
    assert "saturated" in _watch(SageMaker(), _train(_make_saturated(nn.Tanh())))
    assert "saturated" in _watch(SageMaker(), _train(_make_saturated(nn.Sigmoid())))


def test_idle_units_are_counted_over_samples() -> None:
    active = torch.zeros(100, 4)
    active[:, 0] = 1
    active[0, 1] = 1
    assert measure_idle_units(active > 0) == 0.5


def test_autotrainer_compares_first_with_last() -> None:
    found = _watch(AutoTrainer(), _train(_make_deep_sigmoid()))
    assert found["vanishing"] == Sighting("vanishing", ("0.weight",), 1)


def test_autotrainer_takes_zeros_for_dying_relus() -> None:
    assert _watch(AutoTrainer(), _train(_make_dead()))["dead"].layers == ()


def test_autotrainers_gate_forgives_a_training_that_progresses() -> None:
    detector = AutoTrainer(gated=True)
    detector.report("vanishing", "0.weight")
    falling = [1.0 / (step + 1) for step in range(STEPS)]
    assert detector.judge(falling) == []
    assert detector.judge([1.0] * STEPS) == [Sighting("vanishing", ("0.weight",), 18)]


def test_progress_is_a_tenth_of_the_loss() -> None:
    assert has_progressed([1.0] * 10 + [0.89] * 10, 20)
    assert not has_progressed([1.0] * 10 + [0.91] * 10, 20)
    assert has_progressed([-1.0] * 10 + [-1.2] * 10, 20)


def test_deepdiagnosis_stops_at_its_first_symptom() -> None:
    found = _watch(DeepDiagnosis(), _train(_make_dead(), spoil_at=20))
    assert list(found) == ["dead"]


def test_deepdiagnosis_sees_saturated_units_at_the_fifth_look() -> None:
    found = _watch(DeepDiagnosis(), _train(_make_saturated(nn.Tanh(), bias=-7.0)))
    assert found["saturated"] == Sighting("saturated", ("1",), 41)


def test_deepdiagnosis_sees_what_never_changes() -> None:
    model = _make_well()
    training = _train(model)
    training.optimizers[0].param_groups[0]["lr"] = 0.0
    assert "vanishing" in _watch(DeepDiagnosis(), training)


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_torchmortem_gets_every_loss() -> None:
    pytest.importorskip("torchmortem")
    backward = torch.Tensor.backward
    detector = RIVALS["torchmortem"]()
    found = _watch(detector, _train(_make_deep_sigmoid()))
    assert found["vanishing"].step == STEPS
    assert torch.Tensor.backward is backward


def test_detector_that_breaks_the_training_has_crashed() -> None:
    pytest.importorskip("torchmortem")

    def build() -> Training:
        return _train(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 1)))

    name = "torchmortem"
    outcome = run_case(Case("in_place", build), {name: RIVALS[name]})[0]
    assert outcome.error.startswith("RuntimeError")
