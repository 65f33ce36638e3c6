"""Parameters that take part in forward and never get a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import adam, sgd, supervised

mse = nn.functional.mse_loss
cross_entropy = nn.functional.cross_entropy


class Detached(nn.Module):
    """An encoder whose code is detached on its way to the classifier."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.encoder = models.mlp([64, 32, 8])
        self.classifier = nn.Linear(8, 10)
        self.connected = connected

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x)
        return self.classifier(code if self.connected else code.detach())


def detached(fixed: bool = False) -> Training:
    torch.manual_seed(0)
    model = Detached(fixed)
    return supervised(model, sgd(model, 0.1, momentum=0.9), data.digits(), steps=120)


class WithoutGrad(nn.Module):
    """The backbone runs under torch.no_grad, left over from a feature-extraction script."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.backbone = models.ConvNet(3, 8, norm=True)
        self.head = nn.Linear(10, 10)
        self.connected = connected

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.connected):
            features = torch.relu(self.backbone(x))
        return self.head(features)


def without_grad(fixed: bool = False) -> Training:
    torch.manual_seed(1)
    model = WithoutGrad(fixed)
    optimizer = adam(model, 5e-3)
    return supervised(model, optimizer, data.digit_images(), steps=120, batch_size=32)


class NumpyTrip(nn.Module):
    """A smoothing step written in numpy in the middle of forward."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.inp = nn.Linear(16, 6)
        self.out = models.mlp([6, 24, 1])
        self.connected = connected

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inp(x))
        if not self.connected:
            hidden = torch.from_numpy(hidden.detach().numpy() * 0.9)
        return self.out(hidden)


def numpy_trip(fixed: bool = False) -> Training:
    torch.manual_seed(2)
    model = NumpyTrip(fixed)
    return supervised(model, adam(model, 5e-3), data.regression(), mse, steps=200)


class HardCodes(nn.Module):
    """A router picks one row of a code book by argmax; the fix mixes by softmax."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.router = models.mlp([64, 32, 12])
        self.codes = nn.Embedding(12, 16)
        self.head = nn.Linear(16, 10)
        self.connected = connected

    def forward(self, x: Tensor) -> Tensor:
        score = self.router(x)
        if self.connected:
            return self.head(score.softmax(1) @ self.codes.weight)
        return self.head(self.codes(score.argmax(1)))


def hard_codes(fixed: bool = False) -> Training:
    torch.manual_seed(3)
    model = HardCodes(fixed)
    return supervised(model, adam(model, 0.01), data.digits(), steps=120)


class ItemScale(nn.Module):
    """Learnt amplitudes that enter forward through .item()."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.amplitude = nn.Parameter(torch.tensor(0.01))
        self.body = models.mlp([16, 32, 32, 1], nn.Tanh)
        self.connected = connected

    def forward(self, x: Tensor) -> Tensor:
        amplitude = self.amplitude if self.connected else self.amplitude.item()
        return amplitude * torch.tanh(self.body(x))


def item_scale(fixed: bool = False) -> Training:
    torch.manual_seed(4)
    model = ItemScale(fixed)
    return supervised(model, adam(model, 0.02), data.regression(), mse, steps=200)


class MaskNet(nn.Module):
    """A selector network whose scores are compared with 0: a comparison has no gradient."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.selector = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16))
        self.experts = nn.Linear(64, 16)
        self.head = nn.Linear(16, 10)
        self.connected = connected

    def forward(self, x: Tensor) -> Tensor:
        score = self.selector(x)
        mask = torch.sigmoid(score) if self.connected else (score > 0).float()
        return self.head(mask * self.experts(x.mean(1, keepdim=True).expand_as(x)))


def comparison_mask(fixed: bool = False) -> Training:
    torch.manual_seed(5)
    model = MaskNet(fixed)
    return supervised(model, sgd(model, 0.1, momentum=0.9), data.digits(), steps=150)


class TwoOutputs(nn.Module):
    """A digit head and a parity head on one trunk."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.connected = connected
        self.trunk = nn.Sequential(nn.Linear(64, 48), nn.ReLU())
        self.digit = nn.Linear(48, 10)
        self.parity = nn.Sequential(nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        parity = self.parity(features)
        return self.digit(features), parity if self.connected else parity.detach()


def forgotten_head(fixed: bool = False) -> Training:
    """The parity head stays detached from an experiment; the returned losses are its own."""
    torch.manual_seed(6)
    model = TwoOutputs(fixed)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*data.digits(), 64, 120):
            optimizer.zero_grad()
            digit, parity = model(x)
            main, side = cross_entropy(digit, y), cross_entropy(parity, y % 2)
            (main + side).backward()
            optimizer.step()
            losses.append(side.item())
        return losses

    return Training(model, (optimizer,), run)


class RebuiltTensor(nn.Module):
    """A recurrent cell whose state is rebuilt by torch.tensor(list) at every step."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(8, 16)
        self.head = nn.Linear(16, 10)
        self.connected = connected

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 16)
        for row in x.unbind(1):
            state = self.cell(row, state)
            if not self.connected:
                state = torch.tensor(state.tolist())
        return self.head(state)


def rebuilt_tensor(fixed: bool = False) -> Training:
    torch.manual_seed(7)
    x, y = data.digits()
    model = RebuiltTensor(fixed)
    return supervised(model, adam(model, 0.01), (x.view(-1, 8, 8), y), steps=100, batch_size=32)


class DataEmbedding(nn.Module):
    """Looks its embedding up through .data, as an old tutorial did."""

    def __init__(self, connected: bool) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(32, 4)
        nn.init.normal_(self.tok_emb.weight, std=0.02)
        self.mix = models.mlp([8, 48, 32], nn.GELU)
        self.connected = connected

    def forward(self, ids: Tensor) -> Tensor:
        table = self.tok_emb.weight if self.connected else self.tok_emb.weight.data
        return self.mix(table[ids].flatten(1))


def data_embedding(fixed: bool = False) -> Training:
    torch.manual_seed(8)
    model = DataEmbedding(fixed)
    ids = data.tokens()
    windows = ids.unfold(1, 3, 1).reshape(-1, 3)
    optimizer = adam(model, 3e-3)
    return supervised(model, optimizer, (windows[:, :2], windows[:, 2]), steps=150)


def _case(name: str, build: Callable[..., Training], region: tuple[str, ...], why: str) -> Case:
    return Case(
        name, build, ("disconnected",), (), "disconnected", region, 0, why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("detach_behind_encoder", detached, ("encoder", "encoder.*"), "code.detach() in forward"),
    _case("no_grad_backbone", without_grad, ("backbone", "backbone.*"), "no_grad around it"),
    _case("numpy_round_trip", numpy_trip, ("inp",), "numpy cuts the graph"),
    _case("argmax_router", hard_codes, ("router", "router.*"), "argmax has no gradient"),
    replace(
        _case("item_amplitude", item_scale, ("amplitude",), ".item() makes a number of it"),
        also_allowed=("saturated",),  # the tanh before the factor that cannot grow
    ),
    _case("comparison_mask", comparison_mask, ("selector", "selector.*"),
          "score > 0 has no gradient"),
    _case("forgotten_head", forgotten_head, ("parity", "parity.*"),
          "its output enters the loss without its gradient"),
    _case("state_rebuilt_from_list", rebuilt_tensor, ("cell",), "torch.tensor(list) starts again"),
    _case("embedding_through_data", data_embedding, ("tok_emb",), ".data hides from autograd"),
)  # fmt: skip
