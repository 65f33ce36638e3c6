"""Losses that are zero on some steps, weighted small, skewed, or shared between heads."""

from __future__ import annotations

from itertools import cycle, islice, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import Batch, blobs, glyphs, healthy, spirals, split, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class TwoTasks(nn.Module):
    """A shared trunk with a head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.value, self.sign = nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.value(h), self.sign(h)


def _two_losses(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    value, sign = output
    second = functional.binary_cross_entropy_with_logits(sign, (target > 0).float())
    return functional.mse_loss(value, target) + 1e-3 * second


@healthy(_cases, "the second task weighs 1e-3, so its head's gradient is small by choice; Adam")
def multi_task_small_weight() -> Training:
    model = TwoTasks()
    return train(model, torch.optim.Adam(model.parameters(), 5e-3), waves(), _two_losses, 120)


class Auxiliary(nn.Module):
    """A deep classifier with an auxiliary head half-way, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = relu_mlp(2, 48, 3, 48)
        self.upper = relu_mlp(48, 48, 3, 48)
        self.auxiliary, self.head = nn.Linear(48, 2), nn.Linear(48, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = functional.relu(self.lower(x))
        return self.head(functional.relu(self.upper(h))), self.auxiliary(h)


@healthy(
    _cases, "an auxiliary head at 0.3 feeds the lower half, so it outweighs the upper; loss falls"
)
def auxiliary_head() -> Training:
    model = Auxiliary()

    def loss_fn(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        main, side = output
        return _cross_entropy(main, target) + 0.3 * _cross_entropy(side, target)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return train(model, optimizer, spirals(), loss_fn, steps=150)


def _embedder() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))


@healthy(_cases, "triplet loss: once triplets are easy most batches give exactly zero gradient")
def triplet_loss_many_zero_batches() -> Training:
    model = _embedder()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(blobs(spread=1.5)), 120):
            embedded = model(x)
            same = (y[:, None] == y[None]).float()
            positive = (same - torch.eye(len(y))).argmax(1)
            negative = (1 - same).argmax(1)
            loss = functional.triplet_margin_loss(embedded, embedded[positive], embedded[negative])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "InfoNCE on normalised embeddings at temperature 0.2: two views, one encoder")
def contrastive_infonce() -> Training:
    model = _embedder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def run() -> list[float]:
        losses = []
        for x, _ in islice(cycle(blobs()), 100):
            views = (x + 0.5 * torch.randn_like(x) for _ in range(2))
            first, second = (functional.normalize(model(view), dim=-1) for view in views)
            loss = functional.cross_entropy(first @ second.T / 0.2, torch.arange(len(x)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


class Siamese(nn.Module):
    """The same encoder is called for both inputs; a metric on the difference decides."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _embedder()
        self.head = nn.Linear(16, 1)

    def forward(self, pair: Tensor) -> Tensor:
        left, right = pair.unbind(1)
        return self.head((self.encoder(left) - self.encoder(right)).abs())


def _pairs() -> list[Batch]:
    (x, y), *_ = blobs(samples=512, spread=0.7, batch_size=512)
    pairs = torch.stack([x[::2], x[1::2]], dim=1)
    return split(pairs, (y[::2] == y[1::2]).float()[:, None], 64)


@healthy(_cases, "Siamese net: one encoder called twice in each forward; loss falls")
def siamese_shared_encoder() -> Training:
    model = Siamese()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return train(model, optimizer, _pairs(), nn.BCEWithLogitsLoss(), steps=120)


@healthy(_cases, "two classes at 1 to 30: the positives' rare gradient comes in bursts; loss falls")
def imbalanced_binary_classes() -> Training:
    source = torch.Generator().manual_seed(15)
    y = (torch.arange(1024) % 30 == 0).float()[:, None]
    x = torch.randn(1024, 8, generator=source) + 2.0 * y
    model = relu_mlp(8, 32, 3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, split(x, y, 64), nn.BCEWithLogitsLoss(), steps=120)


@healthy(_cases, "focal loss: gradients of easy samples are damped on purpose; loss falls")
def focal_loss() -> Training:
    model = relu_mlp(2, 64, 4, 2)

    def focal(logits: Tensor, target: Tensor) -> Tensor:
        nll = functional.cross_entropy(logits, target, reduction="none")
        return ((1 - torch.exp(-nll)) ** 2 * nll).mean()

    return train(model, torch.optim.RMSprop(model.parameters(), 2e-3), spirals(), focal, 120)


@healthy(_cases, "a fifth of the labels are noise: the loss levels off well above zero, rightly")
def noisy_labels() -> Training:
    source = torch.Generator().manual_seed(16)
    noisy = []
    for x, y in blobs(samples=512, spread=0.5):
        flipped = torch.rand(len(y), generator=source) < 0.1
        noisy.append((x, torch.where(flipped, (y + 1) % 4, y)))
    model = relu_mlp(16, 32, 2, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    return train(model, optimizer, noisy, nn.CrossEntropyLoss(label_smoothing=0.05), steps=100)


class Vae(nn.Module):
    def __init__(self, latent: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(64, latent), nn.Linear(64, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(z), mean, log_variance


@healthy(_cases, "VAE: latents that the divergence switches off get no gradient, as it should be")
def variational_autoencoder() -> Training:
    model = Vae(latent=8)

    def loss_fn(output: tuple[Tensor, Tensor, Tensor], target: Tensor) -> Tensor:
        rebuilt, mean, log_variance = output
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return functional.mse_loss(rebuilt, target) + 0.01 * divergence

    batches = [(x, x.flatten(1)) for x, _ in glyphs(classes=5, noise=0.1)]
    return train(model, torch.optim.Adam(model.parameters(), 5e-3), batches, loss_fn, 200)


@healthy(_cases, "a deep tanh auto-encoder with a bottleneck of 8: wide and narrow layers differ")
def bottleneck_autoencoder() -> Training:
    widths = [64, 48, 24, 8, 24, 48, 64]
    layers: list[nn.Module] = []
    for width_in, width in pairwise(widths):
        layers += [nn.Linear(width_in, width), nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    batches = [(x.flatten(1), x.flatten(1)) for x, _ in glyphs(classes=5, noise=0.1)]
    return train(model, torch.optim.Adam(model.parameters(), 5e-3), batches, nn.MSELoss(), 200)


CASES: tuple[Case, ...] = tuple(_cases)
