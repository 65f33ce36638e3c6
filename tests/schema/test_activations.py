"""Every row against torch: derivative, maximum, flat sides and curve, through every spelling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activations

from gradwatch.capture.functions import FUNCTIONS
from gradwatch.schema.activations import (
    ACTIVATIONS,
    HE,
    LECUN,
    SATURATION_SHARE,
    XAVIER,
    Activation,
    choose_scheme,
    find_activation,
    spell,
)
from tests.capture.tools import make_loop, read, watch_run

Function = Callable[[Tensor], Tensor]

ARGUMENTS = {
    "Threshold": (0.0, 0.0),
    "Softmax": (-1,),
    "Softmin": (-1,),
    "threshold": (0.0, 0.0),
    "softmax": (-1,),
    "softmin": (-1,),
    "clamp": (0.0,),
    "clip": (-1, 1),
    "clamp_min": (0.0,),
    "prelu": (torch.full((1,), 0.25, dtype=torch.float64),),
}
"""Positional arguments that a spelling needs, besides its input."""

SETTINGS: dict[str, nn.Module] = {
    "softplus": nn.Softplus(beta=2.0),
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "leaky_relu": nn.LeakyReLU(0.02),
    "elu": nn.ELU(0.8),
    "celu": nn.CELU(1.3),
    "softshrink": nn.Softshrink(0.2),
    "hardshrink": nn.Hardshrink(0.9),
    "prelu": nn.PReLU(init=-0.3),
    "relu": nn.LeakyReLU(0.0),
    "relu6": nn.Hardtanh(0.0, 2.0),
}
"""Modules with other than their default arguments, and what they amount to."""

CLOSE = 1e-7
"""Relative error: torch holds the sixth of its hardsigmoid in float32."""

NO_ACTIVATION = {"MultiheadAttention", "GLU", "LogSoftmax"}
"""Classes beside torch's activations: a layer, half of whose input gates the other half; and what
makes outputs of probabilities, never a nonlinearity between weights."""


def list_spellings() -> Iterator[tuple[str, str, Function]]:
    """Row, name and call of every spelling; PReLU's own name is a function of two tensors."""
    for row in ACTIVATIONS.values():
        for name in row.modules:
            if name != "Softmax2d":  # of images only
                module = getattr(nn, name)(*ARGUMENTS.get(name, ())).double().eval()
                yield row.name, f"nn.{name}", module
        for name in row.functions:
            for place, home in (("F", F), ("torch", torch), ("special", torch.special)):
                for end in ("", "_"):
                    if hasattr(home, name + end):
                        yield row.name, f"{place}.{name}{end}", call(home, name, end)
            for end in ("", "_"):
                if hasattr(Tensor, name + end):
                    yield row.name, f"x.{name}{end}", call(Tensor, name, end)


def call(home: object, name: str, end: str) -> Function:
    return lambda x: getattr(home, name + end)(x, *ARGUMENTS.get(name, ()))


SPELLINGS = {f"{row}: {name}": (row, function) for row, name, function in list_spellings()}
ELEMENTWISE = sorted(name for name, row in ACTIVATIONS.items() if row.is_elementwise)


def find_function(row: Activation) -> Function:
    """The function itself, with torch's default arguments."""
    return next(function for name, function in SPELLINGS.values() if name == row.name)


def differentiate(function: Function, z: Tensor) -> Tensor:
    """``|phi'|`` by autograd, float64."""
    z = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(z * 1).sum(), z)
    return slope.abs()


class Net(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 300), nn.Linear(300, 3)
        self.function = function
        nn.init.normal_(self.first.weight, std=3.0)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        self.kept = z.detach().clone()
        self.arriving = self.function(z)
        self.arriving.retain_grad()
        return self.second(self.arriving)


def watch(function: Function):
    torch.manual_seed(0)
    model = Net(function).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(25, 6, dtype=torch.float64)
    return model, watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]


def check_derivative(name: str, function: Function) -> None:
    model, record = watch(function)
    (layer,) = (layer for layer in record.layer_set.layers if layer.role == "activation")
    row = find_activation(layer.type)
    assert row is ACTIVATIONS[name]
    derivative = differentiate(function, model.kept)
    limit = SATURATION_SHARE * row.maximum
    expected = (derivative < limit).double().mean().item()
    assert read(record, "saturated_fraction", layer.key) == pytest.approx(expected, abs=CLOSE)
    arriving = model.arriving.grad
    leaving = (arriving * derivative).norm().item()
    assert read(record, "grad_input_l2_norm", layer.key) == pytest.approx(leaving, rel=1e-6)
    mean = derivative.mean().item()
    assert read(record, "derivative_mean", layer.key) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("spelling", [s for s in SPELLINGS if SPELLINGS[s][0] in ELEMENTWISE])
def test_every_spelling_is_measured_as_its_row(spelling: str) -> None:
    check_derivative(*SPELLINGS[spelling])


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_arguments_of_a_call_count(name: str) -> None:
    check_derivative(name, SETTINGS[name])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_derivative_is_that_of_autograd(name: str) -> None:
    row = ACTIVATIONS[name]
    z = 3 * torch.randn(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = find_function(row)(z.clone())
    found = row.derivative(z if row.needs_input else y, y, {})
    assert torch.allclose(found, differentiate(find_function(row), z), rtol=CLOSE, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - set(ELEMENTWISE)))
def test_derivative_of_a_softmax_is_that_of_each_share_by_its_own_score(name: str) -> None:
    z = torch.randn(7, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(find_function(ACTIVATIONS[name]), z)
    y = find_function(ACTIVATIONS[name])(z)
    found = ACTIVATIONS[name].derivative(y, y, {})
    assert torch.allclose(found, jacobian.diagonal().abs())


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_maximum_is_reached_and_not_exceeded(name: str) -> None:
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    steepest = differentiate(find_function(ACTIVATIONS[name]), z).max().item()
    assert 0.995 * ACTIVATIONS[name].maximum <= steepest <= ACTIVATIONS[name].maximum * (1 + CLOSE)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_curve_is_the_function(name: str) -> None:
    row = ACTIVATIONS[name]
    assert row.curve is not None
    z = np.linspace(-8, 8, 1001)
    expected = find_function(row)(torch.from_numpy(z.copy())).detach().numpy()
    np.testing.assert_allclose(row.curve(z), expected, rtol=CLOSE, atol=1e-12)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_it_is_flat_where_the_row_says(name: str) -> None:
    row = ACTIVATIONS[name]
    at = torch.tensor([-1000.0, 0.001, 1000.0], dtype=torch.float64)
    slopes = (differentiate(find_function(row), at) / row.maximum).tolist()
    left, middle, right = (slope < 1e-4 for slope in slopes)
    assert (row.flat == "both") == (left and right and not row.can_die)
    assert (row.flat == "one") == ((left != right) and not row.can_die)
    assert (row.flat == "middle") == middle
    assert (row.flat == "nowhere") == (not left and not middle and not right)
    below = differentiate(find_function(row), torch.tensor([-1.0, 1.0], dtype=torch.float64))
    if row.can_die:
        assert below[0] == 0
    is_off, is_on = below[0] < SATURATION_SHARE * row.maximum, below[1] > row.maximum / 2
    assert row.rectifies == bool(is_off and is_on)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_gain_keeps_the_gradient_at_zero(name: str) -> None:
    row = ACTIVATIONS[name]
    assert row.scheme in (HE, XAVIER, LECUN)
    assert choose_scheme(name.upper()) == (row.scheme, row.gain)
    if row.squashes:
        at_zero = differentiate(find_function(row), torch.zeros(1, dtype=torch.float64)).item()
        assert 1 <= row.gain * at_zero <= 5 / 3
    elif row.scheme == HE:
        assert row.gain == math.sqrt(2)


def test_without_an_activation_or_with_an_unknown_one() -> None:
    assert choose_scheme("") == (LECUN, 1.0)
    assert choose_scheme("Snake") == (HE, math.sqrt(2))
    assert find_activation("Linear") is None


def test_every_name_means_one_row() -> None:
    names = [
        (spell(name), row.name)
        for row in ACTIVATIONS.values()
        for name in {row.name, *row.modules, *row.functions}
    ]
    assert len({name for name, _ in names}) == len(set(names))
    for spelling in ("LogSigmoid", "logsigmoid", "log_sigmoid"):
        assert find_activation(spelling) is ACTIVATIONS["logsigmoid"]
    for spelling in ("clamp_min", "clamp_min_", "LeakyReLU", "leaky_relu_"):
        assert find_activation(spelling) is not None


def test_rows_know_all_activations_of_torch() -> None:
    classes = set(torch_activations.__all__)
    known = {name for row in ACTIVATIONS.values() for name in row.modules}
    assert classes - known == NO_ACTIVATION & classes
    assert known <= classes
    assert {row.name for row in FUNCTIONS.values()} == set(ACTIVATIONS)
