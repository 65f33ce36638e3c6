"""More of `pairs`: branches, experts, clipping and half precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Training
from tests.zoo.loops import adam, sgd, supervised
from tests.zoo.pairs import mirrored_digits

cross_entropy = nn.functional.cross_entropy


class Gated(nn.Module):
    """x + factor * branch(x)."""

    def __init__(self, width: int, factor: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.factor = nn.Parameter(torch.tensor([factor]))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.factor * torch.relu(self.inner(x))


def factors_at_rest(fixed: bool = False) -> Training:
    """The factors of the branches have a rate of their own, a millionth of the others'."""
    torch.manual_seed(7)
    blocks = [Gated(32, 1e-4) for _ in range(4)]
    model = nn.Sequential(nn.Linear(64, 32), *blocks, nn.Linear(32, 10))
    factors = [p for name, p in model.named_parameters() if name.endswith("factor")]
    others = [p for name, p in model.named_parameters() if not name.endswith("factor")]
    groups = [{"params": others}, {"params": factors, "lr": 0.2 if fixed else 2e-7}]
    optimizer = torch.optim.SGD(groups, lr=0.2)
    return supervised(model, optimizer, mirrored_digits(), steps=200)


class Choice(nn.Module):
    """Of several answers the one that a mask names for each sample."""

    def forward(self, mask: Tensor, *answers: Tensor) -> Tensor:
        return (mask[..., None] * torch.stack(answers, 1)).sum(1)


class MaskedExperts(nn.Module):
    """Each sample names the expert whose answer counts; all of them answer."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(models.mlp([64, 24, 16]) for _ in range(3))
        self.choice, self.head = Choice(), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.functional.one_hot(x[:, -1].long(), 3)
        chosen = self.choice(mask, *(expert(x[:, :64]) for expert in self.experts))
        return self.head(torch.relu(chosen))


def expert_of_later_data() -> Training:
    """The third expert's samples come in the second half of the training only."""
    torch.manual_seed(8)
    model, (x, y) = MaskedExperts(), data.digits()
    early = torch.cat([x, torch.randint(2, (len(x), 1)).float()], 1)
    late = torch.cat([x, torch.randint(3, (len(x), 1)).float()], 1)
    optimizer = sgd(model, 0.2)
    halves = [supervised(model, optimizer, (part, y), steps=100) for part in (early, late)]
    return Training(model, (optimizer,), lambda: [loss for half in halves for loss in half.run()])


def clipped_at_a_high_rate(fixed: bool = False) -> Training:
    """Clipped while it is scaled, at a rate at which the weights move a little all the same."""
    torch.manual_seed(9)
    model = models.mlp([64, 32, 10])
    optimizer, scaler = sgd(model, 0.5), torch.amp.GradScaler("cpu")

    def run() -> list[float]:
        losses = []
        for x, y in data.batches(*data.digits(), 64, 100):
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            if fixed:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 100.0)
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


class OneToken(nn.Module):
    """Pixels that attend to a context of one token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.context = nn.Linear(64, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows, token = self.embed(x.view(-1, 8, 8)), self.context(x)[:, None]
        score = self.query(rows) @ self.key(token).transpose(1, 2)
        rows = rows + score.softmax(-1) @ self.value(token)
        return self.head(torch.relu(rows).mean(1))


def one_token_context() -> Training:
    """A softmax over a single key has nothing to choose: its queries and keys learn nothing."""
    torch.manual_seed(10)
    model = OneToken()
    return supervised(model, sgd(model, 0.3), data.digits(), steps=150)


class Signed(nn.Sequential):
    """Layers without biases whose weights all have the same size, in bfloat16 or not."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(*models.mlp([64, 48, 10], bias=False))
        for layer in (self[0], self[2]):
            with torch.no_grad():
                layer.weight.copy_(layer.weight.sign() * layer.in_features**-0.5)
        self.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.dtype)).float()


def bfloat16_updates(steps_held: int, fixed: bool = False) -> Training:
    """Steps of less than half a unit in the last place, ten times larger after `steps_held`."""
    torch.manual_seed(11)
    model = Signed(torch.float32 if fixed else torch.bfloat16)
    optimizer = adam(model, 1e-3)
    held = torch.optim.lr_scheduler.ConstantLR(optimizer, 0.1, steps_held)
    return supervised(model, optimizer, data.digits(), steps=240, scheduler=held)


class Pooled(nn.Module):
    """A convolution in float16, of which a pooling keeps one value of each sixteen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 32, 3, padding=1), nn.MaxPool2d(4)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            x = self.pool(self.conv(x))
        return self.head(x.float().flatten(1))


def float16_max_pool() -> Training:
    """Most elements of a convolution get a gradient of exactly zero, as those not picked do."""
    torch.manual_seed(12)
    model = Pooled()
    return supervised(model, sgd(model, 0.1), data.digit_images(), steps=100)


def gradients_cleaned(bad: range, fixed: bool = False) -> Training:
    """A loop that puts zeros in the place of what is not finite in a gradient."""
    torch.manual_seed(13)
    model = models.mlp([64, 32, 10])
    optimizer = sgd(model, 0.3)

    def run() -> list[float]:
        losses = []
        for step, (x, y) in enumerate(data.batches(*data.digits(), 64, 100)):
            optimizer.zero_grad()
            output = model(x)
            loss = cross_entropy(output, y)
            if step in bad:  # the slope of the root is infinite at 0
                distance = (output - output.detach()).square().sum()
                loss = loss + (distance + (1e-6 if fixed else 0.0)).sqrt()
            loss.backward()
            for parameter in model.parameters():
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)
