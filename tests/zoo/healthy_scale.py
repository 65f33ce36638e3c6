"""Scales that mean nothing: of loss, scaler, accumulation, clipping and dtype."""

from __future__ import annotations

import warnings
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import Loss, blobs, glyphs, healthy, spirals, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


def _scaled(factor: float, loss_fn: Loss = _cross_entropy) -> Loss:
    return lambda prediction, target: factor * loss_fn(prediction, target)


@healthy(_cases, "loss times 1e-6 under Adam, which divides the scale out again; loss falls")
def loss_times_1e_minus_6_adam() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, eps=1e-12)
    return train(model, optimizer, spirals(), _scaled(1e-6), steps=120)


@healthy(_cases, "loss times 1e-4 under Adam with its default eps of 1e-8; loss falls")
def loss_times_1e_minus_4_adam() -> Training:
    model = relu_mlp(4, 64, 4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return train(model, optimizer, waves(), _scaled(1e-4, nn.MSELoss()), steps=120)


@healthy(_cases, "loss times 1e4 with a learning rate 1e4 times smaller: the same run as without")
def loss_times_1e4_small_lr() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    return train(model, optimizer, spirals(), _scaled(1e4), steps=150)


@healthy(
    _cases, "loss times 1e-5 with a learning rate 1e5 times larger, SGD: the same run as without"
)
def loss_times_1e_minus_5_large_lr() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e4, momentum=0.9)
    return train(model, optimizer, spirals(), _scaled(1e-5), steps=150)


@healthy(_cases, "targets in thousands: a sum-reduced squared error of 1e7 under Adam is but units")
def regression_in_large_units() -> Training:
    model = relu_mlp(4, 64, 3, 1)
    batches = [(x, 1000 * y) for x, y in waves()]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return train(model, optimizer, batches, nn.MSELoss(reduction="sum"), steps=200)


def _train_scaled(
    model: nn.Module, optimizer: torch.optim.Optimizer, dtype: torch.dtype, init_scale: float
) -> Training:
    """Autocast and GradScaler, as in the AMP recipe; the scaler may skip steps on overflow."""

    def run() -> list[float]:
        scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=40)
        losses = []
        for x, y in islice(cycle(spirals()), 120):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = functional.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scaler.update()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "GradScaler at 2**16: gradients 65536 times too large until unscaled; loss falls")
def grad_scaler_bfloat16() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    return _train_scaled(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), torch.bfloat16, 2.0**16
    )


@healthy(
    _cases, "GradScaler finds its scale: the first fp16 steps overflow and are skipped, by design"
)
def grad_scaler_float16_skips_steps() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return _train_scaled(model, optimizer, torch.float16, 2.0**22)


@healthy(_cases, "four micro-batches accumulate into each step, losses divided by four; loss falls")
def gradient_accumulation() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batches = cycle(spirals(batch_size=16))

    def run() -> list[float]:
        losses = []
        for _ in range(100):
            total = 0.0
            for x, y in islice(batches, 4):
                loss = functional.cross_entropy(model(x), y) / 4
                loss.backward()
                total += loss.item()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(total)
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(
    _cases,
    "clipping to a norm of 1e-3 under Adam: tiny gradients by choice, full steps; loss falls",
)
def clipped_to_tiny_norm_adam() -> Training:
    model = relu_mlp(2, 64, 4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, spirals(), _cross_entropy, steps=120, clip_norm=1e-3)


@healthy(
    _cases, "clipping to 1e-3 under SGD with a learning rate to match: normalised gradient descent"
)
def clipped_to_tiny_norm_sgd() -> Training:
    model = relu_mlp(16, 64, 3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0, momentum=0.5)
    return train(model, optimizer, blobs(spread=1.5), _cross_entropy, steps=150, clip_norm=1e-3)


@healthy(_cases, "inputs of size 1e-2 and a first layer left at its default, Adam; loss falls")
def small_inputs_adam() -> Training:
    model = relu_mlp(16, 64, 3, 4)
    batches = [(1e-2 * x, y) for x, y in blobs(spread=1.5)]
    return train(model, torch.optim.Adam(model.parameters(), 3e-3), batches, _cross_entropy, 200)


@healthy(_cases, "the whole model in float64; loss falls")
def double_precision() -> Training:
    model = relu_mlp(4, 48, 5, 1).double()
    batches = [(x.double(), y.double()) for x, y in waves()]
    return train(model, torch.optim.Adam(model.parameters(), lr=3e-3), batches, nn.MSELoss(), 120)


@healthy(_cases, "the whole model in bfloat16 with steps large enough for its 8 bits; loss falls")
def bfloat16_model() -> Training:
    model = relu_mlp(2, 64, 4, 2).to(torch.bfloat16)
    batches = [(x.to(torch.bfloat16), y) for x, y in spirals()]

    def loss_fn(logits: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), target)

    return train(model, torch.optim.Adam(model.parameters(), lr=5e-3), batches, loss_fn, steps=120)


@healthy(
    _cases, "bfloat16 autocast over a convolution net with fp32 weights and no scaler; loss falls"
)
def bfloat16_autocast_convnet() -> Training:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(glyphs(batch_size=32)), 80):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


CASES: tuple[Case, ...] = tuple(_cases)
