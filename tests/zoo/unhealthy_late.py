"""Runs that begin well and become unhealthy late."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo import data, models
from tests.zoo.case import Case, Training
from tests.zoo.loops import Loss, adam, sgd, supervised

mse = nn.functional.mse_loss
cross_entropy = nn.functional.cross_entropy


def change_on_the_way(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    change: Callable[[int], None],
    *,
    steps: int,
    pairs: tuple[Tensor, Tensor] | None = None,
    loss_fn: Loss = cross_entropy,
) -> Training:
    """An ordinary loop, of digits where no pairs are given; `change` is called before each step."""

    def run() -> list[float]:
        losses = []
        batches = data.batches(*(pairs or data.digits()), 64, steps)
        for step, (x, y) in enumerate(batches):
            change(step)
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model, (optimizer,), run)


def decayed_away(fixed: bool = False) -> Training:
    """A decay meant for the learning rate lands in weight_decay at step 60."""
    torch.manual_seed(0)
    model = models.initialise(models.mlp([64] + [32] * 7 + [10]), models.he)
    optimizer = sgd(model, 0.05)

    def decay(step: int) -> None:
        if step == 60 and not fixed:
            optimizer.param_groups[0]["weight_decay"] = 2.0

    return change_on_the_way(model, optimizer, decay, steps=200)


class Faded(nn.Module):
    """A deep branch that is faded by a buffer; the head also sees a few raw features."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = models.mlp([64, 48, 48, 32])
        self.head = nn.Linear(32 + 8, 10)
        self.register_buffer("fade", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.fade * self.branch(x), x[:, 20:28]], dim=1))


def faded_branch(fixed: bool = False) -> Training:
    """From step 40 on the fade is multiplied by 0.7 per step, and nothing stops it."""
    torch.manual_seed(1)
    model = Faded()
    optimizer = sgd(model, 0.05)

    def fade(step: int) -> None:
        if step >= 40 and not fixed:
            model.fade.mul_(0.7)

    return change_on_the_way(model, optimizer, fade, steps=160)


class Binary(nn.Module):
    """A binary code from tanh(sharpness * z), whose sharpness is annealed upwards."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
        self.decoder = models.mlp([10, 32, 64])
        self.act = nn.Tanh()
        self.sharpness = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.act(self.sharpness * self.encoder(x)))


def annealed_code(fixed: bool = False) -> Training:
    """The sharpness grows by a tenth per step from step 20 on: far past what is useful."""
    torch.manual_seed(2)
    model = Binary()
    optimizer = adam(model, 5e-3)

    def sharpen(step: int) -> None:
        if step >= 20 and not fixed:
            model.sharpness = min(1.1 * model.sharpness, 1e5)

    x, _ = data.digits()
    return change_on_the_way(model, optimizer, sharpen, steps=160, pairs=(x, x), loss_fn=mse)


def burst_saturates_tanh(fixed: bool = False) -> Training:
    """A cyclic schedule with a typing error: three steps at a rate of 20."""
    torch.manual_seed(3)
    model = models.ListMlp([64, 48, 48, 10], torch.tanh)
    models.initialise(model, models.xavier())
    optimizer = sgd(model, 0.1)

    def factor(step: int) -> float:
        return 300.0 if 50 <= step < 53 and not fixed else 1.0

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return supervised(model, optimizer, data.digits(), steps=200, scheduler=schedule)


def burst_saturates_sigmoid(fixed: bool = False) -> Training:
    """Adam restarted with lr=1 at step 60 drives the sigmoids to their ends."""
    torch.manual_seed(4)
    model = models.mlp([64, 48, 32, 10], nn.Sigmoid)
    models.initialise(model, models.xavier(2.0))
    optimizer = adam(model, 0.01)

    def factor(step: int) -> float:
        return 100.0 if 60 <= step < 70 and not fixed else 1.0

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return supervised(model, optimizer, data.digits(), steps=200, scheduler=schedule)


def detached_later(fixed: bool = False) -> Training:
    """A 'freeze the encoder after warm-up' flag detaches the code far too early."""
    torch.manual_seed(5)
    model = Freezing()
    optimizer = sgd(model, 0.05, momentum=0.9)

    def detach(step: int) -> None:
        model.detached = step >= 6 and not fixed

    return change_on_the_way(model, optimizer, detach, steps=150)


class Freezing(nn.Module):
    """An encoder whose code can be detached by a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 6), nn.ReLU())
        self.classifier = nn.Linear(6, 10)
        self.detached = False

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x)
        return self.classifier(code.detach() if self.detached else code)


class PostNorm(nn.Module):
    """Six blocks that normalise behind their additions turn a sequence round."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(8, 24)
        self.position = nn.Parameter(0.3 * torch.randn(6, 24))
        block = nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)
        self.head = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.token(x) + self.position)).flatten(0, 1)


def post_norm(fixed: bool = False) -> Training:
    """A rate that such blocks bear behind a warm-up only, if at all."""
    torch.manual_seed(0)
    model = PostNorm()
    optimizer = adam(model, 2e-3 if fixed else 3e-2)

    def run() -> list[float]:
        losses = []
        for _ in range(120):
            x = torch.randint(0, 8, (32, 6), generator=generator)
            optimizer.zero_grad()
            loss = cross_entropy(model(x), x.flip(1).flatten())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    generator = torch.Generator().manual_seed(0)
    return Training(model, (optimizer,), run)


def _case(
    name: str,
    build: Callable[..., Training],
    kinds: tuple[str, ...],
    cause: str,
    region: tuple[str, ...],
    since: int,
    why: str,
    also_allowed: tuple[str, ...] = (),
) -> Case:
    return Case(
        name, build, kinds, also_allowed, cause, region, since, why,
        fixed=partial(build, fixed=True),
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _case("weights_decayed_away", decayed_away, ("vanishing",), "weight_decay",
          ("fc[0-6]", "act[0-6]"), 70,
          "a decay of 0.1 per step from step 60 on leaves weights too small to carry a gradient"),
    _case("branch_faded_out", faded_branch, ("vanishing",), "weight_scale",
          ("branch", "branch.*"), 55, "the branch's factor falls by 0.7 per step from step 40 on"),
    _case("annealed_binary_code", annealed_code, ("saturated",), "saturation",
          ("act", "encoder", "encoder.*"), 40, "an annealed slope that is never stopped",
          ("vanishing", "exploding")),
    _case("tanh_pinned_by_lr_burst", burst_saturates_tanh, ("saturated",), "learning_rate",
          ("layers.[01]",), 50, "three steps at a rate of 30", ("vanishing", "exploding")),
    _case("sigmoid_pinned_by_adam_burst", burst_saturates_sigmoid, ("saturated",), "learning_rate",
          ("fc[01]", "act[01]"), 60, "ten Adam steps of size 1", ("vanishing", "exploding")),
    _case("post_norm_without_warm_up", post_norm, ("vanishing",), "learning_rate",
          ("blocks", "blocks.*", "token", "position"), 40, "a rate of 3e-2 for Adam from step 0 on",
          ("dead", "exploding", "saturated")),
    _case("encoder_detached_from_step_6", detached_later, ("disconnected",), "disconnected",
          ("encoder", "encoder.*"), 6, "the graph is cut from step 6 on"),
)  # fmt: skip
