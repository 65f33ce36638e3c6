"""Gradients that are replaced or stopped on purpose, and games between networks."""

from __future__ import annotations

import copy
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import blobs, glyphs, healthy, spirals, train

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class Sign(torch.autograd.Function):
    """Sign forward, clipped identity backward: the straight-through estimator."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class BinaryLinear(nn.Linear):
    """Weights are binarised in forward; the real-valued ones receive the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, Sign.apply(self.weight), self.bias) / self.in_features**0.5


class Binarise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Sign.apply(x)


@healthy(_cases, "binarised weights and activations by straight-through estimation; loss falls")
def binarised_network() -> Training:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.BatchNorm1d(128), Binarise(),
        BinaryLinear(128, 128), nn.BatchNorm1d(128), Binarise(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=100)


class Ternary(nn.Linear):
    """Quantised weights written with detach: w + (q(w) - w).detach()."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.detach().abs().mean()
        rounded = (self.weight / scale).round().clamp(-1, 1) * scale
        return functional.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


@healthy(_cases, "quantisation-aware training, ternary weights with the detach trick; loss falls")
def quantisation_aware_training() -> Training:
    model = nn.Sequential(Ternary(2, 64), nn.ReLU(), Ternary(64, 64), nn.ReLU(), nn.Linear(64, 2))
    return train(model, torch.optim.Adam(model.parameters(), 5e-3), spirals(), _cross_entropy, 150)


class VqVae(nn.Module):
    """Nearest-code quantiser: straight-through to the encoder; unused codes get no gradient."""

    def __init__(self, codes: int = 64, width: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, width),
            nn.BatchNorm1d(width, affine=False),
        )
        self.codebook = nn.Embedding(codes, width)
        self.decoder = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        code = self.codebook(torch.cdist(z, self.codebook.weight).argmin(1))
        commitment = functional.mse_loss(code, z.detach()) + 0.25 * functional.mse_loss(
            z, code.detach()
        )
        return self.decoder(z + (code - z).detach()), commitment


@healthy(
    _cases, "VQ-VAE: most codes are unused in a step, the encoder learns straight through them"
)
def vq_vae() -> Training:
    model = VqVae()
    batches = [(x, x.flatten(1)) for x, _ in glyphs(classes=6, noise=0.1, batch_size=64)]
    with torch.no_grad():
        model.codebook.weight.copy_(model.encoder(batches[0][0]))

    def loss_fn(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return functional.mse_loss(output[0], target) + output[1]

    return train(model, torch.optim.Adam(model.parameters(), lr=4e-3), batches, loss_fn, steps=200)


class GumbelCode(nn.Module):
    """A discrete code of 4 x 8 one-hot choices sampled by hard Gumbel-softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
        self.decoder = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.encoder(x).view(-1, 4, 8)
        return self.decoder(functional.gumbel_softmax(logits, tau=1.0, hard=True).flatten(1))


@healthy(_cases, "hard Gumbel-softmax code: one-hot forward, soft backward; loss falls")
def gumbel_softmax_autoencoder() -> Training:
    model = GumbelCode()
    batches = [(x, x.flatten(1)) for x, _ in glyphs(noise=0.1)]
    return train(model, torch.optim.Adam(model.parameters(), lr=5e-3), batches, nn.MSELoss(), 200)


def _clouds_2d() -> list[Tensor]:
    """Points from two clouds away from the origin, the GAN's toy."""
    source = torch.Generator().manual_seed(11)
    centres = torch.tensor([[2.0, 1.0], [2.0, 2.0]])[torch.arange(512) % 2]
    return list((centres + 0.1 * torch.randn(512, 2, generator=source)).split(64))


def _gan() -> nn.ModuleDict:
    generator = nn.Sequential(
        nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 2)
    )
    critic = nn.Sequential(
        nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1)
    )
    return nn.ModuleDict({"generator": generator, "discriminator": critic})


@healthy(
    _cases, "a GAN with two Adams in turn: the losses balance instead of falling; samples improve"
)
def gan_two_optimizers() -> Training:
    model = _gan()
    generator, discriminator = model["generator"], model["discriminator"]
    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    bce = functional.binary_cross_entropy_with_logits

    def run() -> list[float]:
        distances = []
        for real in islice(cycle(_clouds_2d()), 100):
            fake = generator(torch.randn(64, 8))
            on_real, on_fake = discriminator(real), discriminator(fake.detach())
            loss_d = bce(on_real, torch.ones(64, 1)) + bce(on_fake, torch.zeros(64, 1))
            opt_d.zero_grad()
            loss_d.backward()
            opt_d.step()
            loss_g = bce(discriminator(fake), torch.ones(64, 1))
            opt_g.zero_grad()
            loss_g.backward()
            opt_g.step()
            distances.append(_distance(fake.detach(), real))
        return distances

    return Training(model=model, optimizers=(opt_g, opt_d), run=run)


def _distance(fake: Tensor, real: Tensor) -> float:
    """Chamfer distance of the samples: how near and how complete the generated points are."""
    pairs = torch.cdist(real, fake)
    return (pairs.amin(0).mean() + pairs.amin(1).mean()).item()


@healthy(_cases, "WGAN with gradient penalty: double backward through the critic; samples improve")
def wgan_gradient_penalty() -> Training:
    model = _gan()
    generator, critic = model["generator"], model["discriminator"]
    opt_g = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.0, 0.9))
    opt_c = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.9))

    def run() -> list[float]:
        distances = []
        for step, real in enumerate(islice(cycle(_clouds_2d()), 150)):
            fake = generator(torch.randn(64, 8))
            mix = (torch.rand(64, 1) * (real - fake.detach()) + fake.detach()).requires_grad_()
            (slope,) = torch.autograd.grad(critic(mix).sum(), mix, create_graph=True)
            penalty = (slope.norm(dim=1) - 1).square().mean()
            loss_c = critic(fake.detach()).mean() - critic(real).mean() + 10 * penalty
            opt_c.zero_grad()
            loss_c.backward()
            opt_c.step()
            if step % 3 == 0:
                opt_g.zero_grad()
                (-critic(fake).mean()).backward()
                opt_g.step()
            distances.append(_distance(fake.detach(), real))
        return distances

    return Training(model=model, optimizers=(opt_g, opt_c), run=run)


@healthy(
    _cases, "BYOL: predictor and stop-gradient; the target network never gets a gradient by design"
)
def byol_stop_gradient() -> Training:
    encoder = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
    predictor = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32))
    target = copy.deepcopy(encoder).requires_grad_(False)
    model = nn.ModuleDict({"online": encoder, "predictor": predictor, "target": target})
    online = [*encoder.parameters(), *predictor.parameters()]
    optimizer = torch.optim.AdamW(online, lr=3e-3)

    def run() -> list[float]:
        losses = []
        for x, _ in islice(cycle(blobs(spread=0.5)), 100):
            first, second = (x + 0.2 * torch.randn_like(x) for _ in range(2))
            guess = predictor(encoder(first))
            with torch.no_grad():
                wanted = target(second)
            loss = 1 - functional.cosine_similarity(guess, wanted.detach(), dim=-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), encoder.parameters(), strict=True):
                    slow.lerp_(fast, 0.05)
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "SimSiam: one encoder, the other branch detached on purpose; similarity rises")
def simsiam_detached_branch() -> Training:
    encoder = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
    predictor = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 32))
    model = nn.ModuleDict({"encoder": encoder, "predictor": predictor})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def run() -> list[float]:
        losses = []
        for x, _ in islice(cycle(blobs(spread=0.5)), 100):
            first, second = (encoder(x + 0.2 * torch.randn_like(x)) for _ in range(2))
            pairs = ((predictor(first), second.detach()), (predictor(second), first.detach()))
            loss = 1 - sum(functional.cosine_similarity(p, z, dim=-1).mean() for p, z in pairs) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


CASES: tuple[Case, ...] = tuple(_cases)
