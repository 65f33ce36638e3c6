"""Designs that route, cut or turn gradients on purpose."""

from __future__ import annotations

from itertools import cycle, islice, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import Batch, blobs, healthy, spirals, split, train, waves

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class GreedyStages(nn.Module):
    """Stages with a local head each, cut from each other by detach: greedy layer-wise training."""

    def __init__(self, stages: int = 3, width: int = 48) -> None:
        super().__init__()
        widths = [2] + [width] * stages
        self.stages = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.heads = nn.ModuleList(nn.Linear(width, 2) for _ in range(stages))

    def forward(self, x: Tensor) -> list[Tensor]:
        logits = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = functional.relu(stage(x))
            logits.append(head(x))
            x = x.detach()
        return logits


@healthy(
    _cases, "greedy local losses: stages are detached from each other, each learns from its head"
)
def greedy_local_losses() -> Training:
    model = GreedyStages()

    def loss_fn(logits: list[Tensor], target: Tensor) -> Tensor:
        return torch.stack([functional.cross_entropy(output, target) for output in logits]).mean()

    return train(model, torch.optim.Adam(model.parameters(), 5e-3), spirals(), loss_fn, 120)


class PointNet(nn.Module):
    """A shared net per point and a maximum over points: only the winners get a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.point = relu_mlp(3, 48, 3, 64)
        self.head = relu_mlp(64, 32, 2, 3)

    def forward(self, cloud: Tensor) -> Tensor:
        return self.head(self.point(cloud).amax(1))


def _shapes() -> list[Batch]:
    """Clouds of 32 points on a sphere, in a cube or near a line."""
    source = torch.Generator().manual_seed(20)
    label = torch.randint(3, (256,), generator=source)
    points = torch.randn(256, 32, 3, generator=source)
    sphere = functional.normalize(points, dim=-1)
    cube = 2 * torch.rand(256, 32, 3, generator=source) - 1
    line = points[..., :1] * functional.normalize(points[:, :1], dim=-1) + 0.05 * points
    kinds = torch.stack([sphere, cube, line])
    return split(kinds[label, torch.arange(256)], label, 32)


@healthy(
    _cases, "PointNet: max over points sends the gradient to few of them by design; loss falls"
)
def pointnet_max_pool() -> Training:
    model = PointNet()
    return train(model, torch.optim.Adam(model.parameters(), 3e-3), _shapes(), _cross_entropy, 100)


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, strength: float) -> Tensor:  # type: ignore[no-untyped-def,override]
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def,override]
        return -ctx.strength * grad, None


class DomainAdversarial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU())
        self.label, self.domain = nn.Linear(24, 4), relu_mlp(24, 16, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        return self.label(h), self.domain(Reverse.apply(h, 0.1))[:, 0]


@healthy(
    _cases, "DANN: a reversal layer turns the domain head's gradient round; the label loss falls"
)
def gradient_reversal() -> Training:
    model = DomainAdversarial()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(blobs(spread=1.5)), 120):
            domain = (torch.arange(len(x)) % 2).float()
            label, guess = model(x + 0.5 * domain[:, None])
            task = functional.cross_entropy(label, y)
            confusion = functional.binary_cross_entropy_with_logits(guess, domain)
            optimizer.zero_grad()
            (task + confusion).backward()
            optimizer.step()
            losses.append(task.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


class HyperNetwork(nn.Module):
    """A net that writes the weights of a small regressor from a task code."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Embedding(4, 8)
        self.writer = relu_mlp(8, 32, 2, 4 * 16 + 16 + 16 + 1)

    def forward(self, x: Tensor) -> Tensor:
        task = torch.arange(len(x)) % 4
        w1, b1, w2, b2 = self.writer(self.code(task)).split([64, 16, 16, 1], dim=1)
        h = torch.tanh(torch.einsum("bi,bio->bo", x, w1.view(-1, 4, 16)) + b1)
        return (h * w2).sum(1, keepdim=True) + b2


@healthy(_cases, "a hypernetwork: the weights in use are activations of another net; loss falls")
def hypernetwork() -> Training:
    model = HyperNetwork()
    return train(model, torch.optim.Adam(model.parameters(), 5e-3), waves(), nn.MSELoss(), 150)


@healthy(_cases, "MAML: an inner step with create_graph inside the loss; the adapted loss falls")
def meta_learning_inner_step() -> Training:
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    parameters = dict(model.named_parameters())

    def adapted_loss(x: Tensor, y: Tensor) -> Tensor:
        def error(weights: dict[str, Tensor]) -> Tensor:
            return functional.mse_loss(torch.func.functional_call(model, weights, (x,)), y)

        slopes = torch.autograd.grad(
            error(parameters), list(parameters.values()), create_graph=True
        )
        named = zip(parameters.items(), slopes, strict=True)
        return error({name: weight - 0.1 * slope for (name, weight), slope in named})

    def run() -> list[float]:
        losses = []
        for _ in range(120):
            amplitude = 0.5 + torch.rand(4)
            x = 4 * torch.rand(4, 32, 1) - 2
            tasks = zip(x, amplitude[:, None, None] * torch.sin(2 * x), strict=True)
            loss = torch.stack([adapted_loss(a, b) for a, b in tasks]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


class SkipGram(nn.Module):
    """word2vec with negative sampling: two embedding tables, nothing else."""

    def __init__(self, words: int = 100, width: int = 16) -> None:
        super().__init__()
        self.word, self.context = nn.Embedding(words, width), nn.Embedding(words, width)
        nn.init.uniform_(self.word.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.context.weight)

    def forward(self, pair: Tensor) -> Tensor:
        centre, others = pair[:, :1], pair[:, 1:]
        return (self.word(centre) * self.context(others)).sum(-1)


@healthy(_cases, "word2vec: context vectors start at zero, so word vectors wait a step by design")
def skipgram_zero_context() -> Training:
    source = torch.Generator().manual_seed(21)
    centre = torch.randint(100, (1024, 1), generator=source)
    near = (centre // 10) * 10 + torch.randint(10, (1024, 1), generator=source)
    far = torch.randint(100, (1024, 4), generator=source)
    target = functional.one_hot(torch.zeros(1024, dtype=torch.long), 5).float()
    batches = split(torch.cat([centre, near, far], dim=1), target, 128)
    model = SkipGram()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return train(model, optimizer, batches, nn.BCEWithLogitsLoss(), steps=120)


class NeuralOde(nn.Module):
    """Euler steps of one learned vector field: a shared module called ten times."""

    def __init__(self, steps: int = 10) -> None:
        super().__init__()
        self.lift = nn.Linear(2, 16)
        self.field = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 2)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        for _ in range(self.steps):
            h = h + self.field(h) / self.steps
        return self.head(h)


@healthy(_cases, "a neural ODE by Euler's rule: the shared field is called ten times; loss falls")
def neural_ode_euler() -> Training:
    model = NeuralOde()
    return train(model, torch.optim.Adam(model.parameters(), 0.01), spirals(), _cross_entropy, 100)


CASES: tuple[Case, ...] = tuple(_cases)
