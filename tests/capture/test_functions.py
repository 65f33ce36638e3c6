"""Activations called as functions, in every spelling, and attention inside one kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.capture.tools import assert_harmless, list_keys, make_loop, read, watch_run

SPELLINGS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "F.relu": ("relu", F.relu),
    "F.relu inplace": ("relu", lambda x: F.relu(x, inplace=True)),
    "torch.relu": ("relu", torch.relu),
    "torch.relu_": ("relu", torch.relu_),
    "x.relu_": ("relu", lambda x: x.relu_()),
    "F.sigmoid": ("sigmoid", F.sigmoid),
    "torch.sigmoid": ("sigmoid", torch.sigmoid),
    "x.sigmoid": ("sigmoid", lambda x: x.sigmoid()),
    "x.sigmoid_": ("sigmoid", lambda x: x.sigmoid_()),
    "torch.special.expit": ("sigmoid", torch.special.expit),
    "x.tanh": ("tanh", lambda x: x.tanh()),
    "x.tanh_": ("tanh", lambda x: x.tanh_()),
    "torch.tanh": ("tanh", torch.tanh),
    "F.tanh": ("tanh", F.tanh),
    "F.gelu": ("gelu", F.gelu),
    "F.silu": ("silu", F.silu),
    "F.silu inplace": ("silu", lambda x: F.silu(x, inplace=True)),
    "F.silu inplace by position": ("silu", lambda x: F.silu(x, True)),
    "F.relu6 inplace by position": ("relu6", lambda x: F.relu6(x, True)),
    "F.mish": ("mish", F.mish),
    "F.softplus": ("softplus", F.softplus),
    "F.leaky_relu": ("leaky_relu", lambda x: F.leaky_relu(x, 0.2)),
    "F.leaky_relu_": ("leaky_relu", lambda x: F.leaky_relu_(x, 0.2)),
    "F.elu": ("elu", F.elu),
    "F.hardtanh": ("hardtanh", F.hardtanh),
    "F.softmax": ("softmax", lambda x: F.softmax(x, dim=-1)),
    "torch.softmax": ("softmax", lambda x: torch.softmax(x, -1)),
    "x.softmax": ("softmax", lambda x: x.softmax(-1)),
    "clamp": ("clamp", lambda x: x.clamp(min=0)),
    "clamp_": ("clamp", lambda x: x.clamp_(min=0.0)),
    "torch.clamp": ("clamp", lambda x: torch.clamp(x, 0)),
    "clamp_of_two_ends": ("clip", lambda x: x.clamp(-0.5, 2)),
    "clip_": ("clip", lambda x: x.clip_(min=-1.0, max=1)),
    "clip": ("clamp", lambda x: x.clip(0)),
    "clamp_min": ("clamp_min", lambda x: x.clamp_min(0)),
    "F.threshold": ("threshold", lambda x: F.threshold(x, 0.0, 0.0)),
}


class Functional(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


@pytest.mark.parametrize("spelling", sorted(SPELLINGS))
def test_every_spelling_is_seen_once_and_harmless(spelling: str) -> None:
    name, function = SPELLINGS[spelling]

    def build():
        model = Functional(function).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.randn(5, 6, dtype=torch.float64)
        return model, optimizer, make_loop(model, optimizer, x)

    record = assert_harmless(build)[0]
    assert list_keys(record) == ["first", f":{name}".lstrip(":"), "second"]
    layer = record.layer_set.layers[1]
    assert (layer.role, layer.type, layer.inputs) == ("activation", name, (0,))
    assert record.layer_set.layers[2].inputs == (1,)

    torch.manual_seed(1)
    model = Functional(function).double()
    h = model.first(torch.randn(5, 6, dtype=torch.float64))
    z = h.detach().clone().requires_grad_()
    y = function(z.clone())
    y.retain_grad()
    model.second(y).square().mean().backward()
    found = read(record, "grad_output_l2_norm", name)
    assert found == pytest.approx(y.grad.norm().item(), rel=1e-6)
    found = read(record, "grad_input_l2_norm", name)
    assert found == pytest.approx(z.grad.norm().item(), rel=1e-6)
    if name not in ("softmax",):
        (derivative,) = torch.autograd.grad(function(z.clone()).sum(), z)
        mean = derivative.abs().mean().item()
        assert read(record, "derivative_mean", name) == pytest.approx(mean, rel=1e-6)


def test_functions_and_modules_are_named_by_caller_and_number() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(torch.tanh(self.b(torch.tanh(self.a(x)))))

    model = nn.Sequential(Block(), Block())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(3, 4)))[0]
    assert list_keys(record) == [
        *("0.a", "0:tanh", "0.b", "0:tanh#1", "0.act"),
        *("1.a", "1:tanh", "1.b", "1:tanh#1", "1.act"),
    ]


def test_a_clamp_in_the_loss_is_a_part_of_the_loss() -> None:
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.randn(5, 6)).clamp(-1, 1).square().mean().backward()
        optimizer.step()

    assert list_keys(watch_run(model, optimizer, step)[0]) == [""]


def test_clamp_that_may_have_any_meaning_is_left_alone() -> None:
    model = Functional(lambda x: x.clamp(0, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(3, 6)))[0]
    assert list_keys(record) == ["first", "second"]


def test_a_gate_is_distinguished_from_an_activation() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.value, self.out = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.gate(x)).unsqueeze(0).squeeze(0)
            return torch.sigmoid(self.out(gate * self.value(x)))

    model = Gated()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(3, 4)))[0]
    layers = {layer.key: layer for layer in record.layer_set.layers}
    assert layers["sigmoid"].is_gate
    assert not layers["sigmoid#1"].is_gate
    assert layers["sigmoid#1"].is_head
    assert not layers["sigmoid"].is_head


@pytest.mark.parametrize("is_exponential", [True, False])
def test_a_gate_may_be_kept_as_a_logarithm(is_exponential: bool) -> None:
    """As in linear attention: decays are summed over time before their exponential multiplies."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.value, self.out = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            decay = F.logsigmoid(self.gate(x)).cumsum(0)
            decay = torch.where(decay - decay.max() < 0, decay + self.value(x), -1.0)
            decay = decay.exp() if is_exponential else decay
            return self.out(decay * self.value(x) if is_exponential else decay)

    model = Net()
    x = torch.randn(9, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    record = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]
    layers = {layer.fqn: layer for layer in record.layer_set.layers}
    assert layers["logsigmoid"].is_gate is is_exponential


class Attention(nn.Module):
    """Self-attention through ``scaled_dot_product_attention``."""

    def __init__(self, scale: float = 1.0, **options: object) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 2)
        self.scale, self.options = scale, options

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = self.qkv(x).chunk(3, -1)
        return tuple(y.unflatten(-1, (4, 4)).transpose(1, 2) for y in (self.scale * q, k, v))

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(*self.project(x), **self.options)
        return self.out(y.transpose(1, 2).flatten(-2))


def expected_attention(scores: Tensor) -> tuple[float, float]:
    has_choice = torch.isfinite(scores).sum(-1) > 1
    largest = scores.softmax(-1).amax(-1)[has_choice]
    derivative = largest * (1 - largest)
    return (derivative < 0.05 * 0.25).double().mean().item(), derivative.mean().item()


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float"])
def test_scaled_dot_product_attention(scale: float, mask: str) -> None:
    lower = torch.ones(9, 9, dtype=torch.bool).tril()
    options = {
        "none": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": lower},
        "float": {"attn_mask": torch.randn(9, 9)},
    }[mask]
    model, x = Attention(scale, **options), torch.randn(3, 9, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    record = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]
    q, k, _ = model.project(x)
    scores = q @ k.transpose(-1, -2) / 2
    if mask in ("causal", "bool"):
        scores = scores.masked_fill(~lower, float("-inf"))
    elif mask == "float":
        scores = scores + options["attn_mask"]
    saturated, derivative = expected_attention(scores)
    assert read(record, "saturated_fraction", "attention") == pytest.approx(saturated, abs=1e-6)
    assert read(record, "derivative_mean", "attention") == pytest.approx(derivative, rel=1e-4)
    assert record.layer_set.notes == ()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_multi_head_attention(masked: bool, need_weights: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            padding = None
            if masked:
                padding = torch.zeros(x.shape[:2], dtype=torch.bool)
                padding[:, -2:] = True
            y, _ = self.attn(x, x, x, key_padding_mask=padding, need_weights=need_weights)
            return self.out(y)

    model, x = Net(), torch.randn(3, 7, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    record = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]
    weight, bias = model.attn.in_proj_weight, model.attn.in_proj_bias
    q, k, _ = F.linear(x, weight, bias).chunk(3, -1)
    q, k = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in (q, k))
    scores = q @ k.transpose(-1, -2) / 2
    if masked:
        scores[..., -2:] = float("-inf")
    saturated, derivative = expected_attention(scores)
    found = read(record, "derivative_mean", "attn:attention")
    assert found == pytest.approx(derivative, rel=1e-4)
    found = read(record, "saturated_fraction", "attn:attention")
    assert found == pytest.approx(saturated, abs=1e-6)
    assert not any(layer.is_head for layer in record.layer_set.layers if ":" in layer.fqn)


def test_attention_of_another_kind_is_said_not_to_be_seen() -> None:
    class LinearAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.q(x) @ (self.k(x).transpose(-1, -2) @ x)

    model = nn.Sequential(LinearAttention(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(2, 5, 4)))[0]
    assert record.layer_set.notes == ("0: its attention is not seen",)


def test_transformer_is_harmless() -> None:
    def build():
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, make_loop(model, optimizer, torch.randn(3, 6, 16))

    record = assert_harmless(build)[0]
    keys = list_keys(record)
    assert {"layers.0.self_attn", "layers.0.self_attn:attention", "layers.1:relu"} <= set(keys)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.Threshold(0.5, 0.0), "Threshold"),
        (nn.LeakyReLU(0.0), "relu"),
        (nn.Hardtanh(0.0, 6.0), "relu6"),
        (nn.LeakyReLU(0.1), "LeakyReLU"),
        (nn.Hardtanh(), "Hardtanh"),
    ],
)
def test_a_module_is_called_by_what_its_settings_make_of_it(module: nn.Module, name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), module, nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(200, 4)))[-1]
    layer = record.layer_set.layers[1]
    assert (layer.fqn, layer.role, layer.type) == ("1", "activation", name)
    rectifies = name not in ("LeakyReLU", "Hardtanh")
    assert (read(record, "dead_fraction", "1") >= 0) == rectifies
