"""Fine-tuning: frozen parts, small learning rates below, new layers that start at zero."""

from __future__ import annotations

import copy
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import (
    Batch,
    blobs,
    glyphs,
    healthy,
    spirals,
    train,
)

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


def pretrained_mlp(depth: int = 4, steps: int = 80) -> nn.Sequential:
    """An MLP that already knows four of the clouds."""
    model = relu_mlp(16, 48, depth, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(model, optimizer, blobs(spread=2.0), _cross_entropy, steps).run()
    return model


def new_task() -> list[Batch]:
    """The same clouds, with the labels permuted and merged into three."""
    return [(x + 0.3, torch.tensor([2, 0, 1, 1])[y]) for x, y in blobs(spread=2.0)]


@healthy(_cases, "frozen backbone with requires_grad=False: only the new head is meant to learn")
def frozen_backbone() -> Training:
    backbone = pretrained_mlp()[:-1].requires_grad_(False)
    model = nn.Sequential(backbone, nn.Linear(48, 3))
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1, momentum=0.9)
    return train(model, optimizer, new_task(), _cross_entropy, steps=80)


class NoGradFeatures(nn.Module):
    """A feature extractor called under no_grad, as feature-based transfer is often written."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone.requires_grad_(False), head

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features)


@healthy(_cases, "features under no_grad by choice, with a two-layer head on top that learns")
def no_grad_feature_extractor() -> Training:
    conv = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
    )
    head = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
    model = NoGradFeatures(conv, head)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=3e-3)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=80)


@healthy(_cases, "layer-wise learning rate decay 0.5**depth: early layers are slow on purpose")
def layerwise_lr_decay() -> Training:
    model = pretrained_mlp(depth=8)
    model[-1] = nn.Linear(48, 3)
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    groups = [
        {"params": list(layer.parameters()), "lr": 5e-3 * 0.5**depth}
        for depth, layer in enumerate(reversed(linears))
    ]
    return train(model, torch.optim.AdamW(groups), new_task(), _cross_entropy, steps=80)


@healthy(
    _cases, "discriminative fine-tuning: pretrained body at 1e-5 of the head's rate; loss falls"
)
def discriminative_learning_rates() -> Training:
    model = pretrained_mlp(depth=5)
    model[-1] = nn.Linear(48, 3)
    groups = [
        {"params": list(model[:-1].parameters()), "lr": 1e-6},
        {"params": list(model[-1].parameters()), "lr": 0.1},
    ]
    return train(model, torch.optim.SGD(groups, momentum=0.9), new_task(), _cross_entropy, steps=80)


@healthy(
    _cases, "a zero-initialised output head: nothing below it gets a gradient in step 1 by design"
)
def zero_init_head() -> Training:
    model = relu_mlp(2, 48, 4, 2)
    nn.init.zeros_(model[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model[-1].bias)  # type: ignore[arg-type]
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), spirals(), _cross_entropy, 120
    )


@healthy(
    _cases, "a final layer drawn at 1e-3, as policy heads are: small gradients below it at first"
)
def tiny_final_layer() -> Training:
    model = relu_mlp(2, 64, 3, 2)
    nn.init.normal_(model[-1].weight, std=1e-3)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    return train(model, optimizer, spirals(), _cross_entropy, steps=150)


@healthy(
    _cases, "gradual unfreezing: the body is frozen for 40 steps and trained afterwards; loss falls"
)
def gradual_unfreezing() -> Training:
    model = pretrained_mlp(depth=4)
    model[-1] = nn.Linear(48, 3)
    body = list(model[:-1].parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def run() -> list[float]:
        losses = []
        for step, (x, y) in enumerate(islice(cycle(new_task()), 100)):
            for parameter in body:
                parameter.requires_grad_(step >= 40)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(
    _cases, "distillation: the teacher lives in the module, frozen and under no_grad; loss falls"
)
def knowledge_distillation() -> Training:
    teacher = pretrained_mlp(depth=4)
    model = nn.ModuleDict(
        {"student": relu_mlp(16, 16, 2, 4), "teacher": teacher.requires_grad_(False)}
    )
    optimizer = torch.optim.Adam(model["student"].parameters(), lr=5e-3)
    temperature = 4.0

    def run() -> list[float]:
        losses = []
        for x, _ in islice(cycle(blobs(spread=2.0)), 150):
            with torch.no_grad():
                target = functional.softmax(model["teacher"](x) / temperature, dim=-1)
            guess = functional.log_softmax(model["student"](x) / temperature, dim=-1)
            loss = functional.kl_div(guess, target, reduction="batchmean") * temperature**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "BitFit, biases alone are trained, all weights frozen; loss falls")
def bias_only_tuning() -> Training:
    model = copy.deepcopy(pretrained_mlp(depth=4))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    trainable = [p for p in model.parameters() if p.requires_grad]
    return train(model, torch.optim.Adam(trainable, lr=2e-2), new_task(), _cross_entropy, steps=120)


CASES: tuple[Case, ...] = tuple(_cases)
