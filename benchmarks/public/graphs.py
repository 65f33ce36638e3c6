"""Models of graphs and of equations."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.public.recipe import Batch, Recipe, enter
from benchmarks.public.tasks import draw_moons

NODES, CLASSES, FEATURES = 120, 3, 16


def _draw_communities(step: int) -> Batch:
    """Features ``(nodes, features)``, edges ``(2, edges)``, labels: like is linked with like."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(CLASSES, (NODES,), generator=generator)
    same = labels[:, None] == labels[None, :]
    chance = torch.rand(NODES, NODES, generator=generator)
    edges = (chance < torch.where(same, 0.1, 0.01)).nonzero().T
    features = torch.randn(NODES, FEATURES, generator=generator)
    features[:, :CLASSES] += F.one_hot(labels, CLASSES)
    return features, edges, labels


def _classify_nodes(model: Any, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0], batch[1]), batch[2])


def _enter_graph(name: str, **more: Any) -> None:
    def build() -> Recipe:
        models = import_module("torch_geometric.nn.models")
        model = getattr(models, name)(
            FEATURES, hidden_channels=32, num_layers=3, out_channels=CLASSES, **more
        )
        return Recipe(model, _draw_communities, _classify_nodes, learning_rate=5e-3)

    enter(name, "torch_geometric")(build)


_enter_graph("GCN")
_enter_graph("GAT", heads=4)
_enter_graph("GIN")
_enter_graph("GraphSAGE")
_enter_graph("PNA", aggregators=["mean", "max", "std"], scalers=["identity"], deg=torch.ones(20))


@enter("GPSConv", "torch_geometric")
def build_graph_transformer() -> Recipe:
    package = import_module("torch_geometric.nn")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(FEATURES, 32)
            self.blocks = nn.ModuleList(
                package.GPSConv(32, package.GCNConv(32, 32), heads=4) for _ in range(2)
            )
            self.head = nn.Linear(32, CLASSES)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            x = self.embed(x)
            for block in self.blocks:
                x = block(x, edges)
            found: Tensor = self.head(x)
            return found

    return Recipe(Network(), _draw_communities, _classify_nodes)


@enter("EGNN_Network", "egnn-pytorch")
def build_equivariant() -> Recipe:
    body = import_module("egnn_pytorch").EGNN_Network(num_tokens=4, dim=16, depth=2)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, nn.Linear(16, 1)

        def forward(self, kinds: Tensor, places: Tensor) -> Tensor:
            found: Tensor = self.head(self.body(kinds, places)[0].mean(dim=1))
            return found

    def draw(step: int) -> Batch:
        generator = torch.Generator().manual_seed(step)
        places = torch.randn(16, 6, 3, generator=generator)
        energy = torch.cdist(places, places).mean(dim=(1, 2))[:, None]
        return torch.randint(4, (16, 6), generator=generator), places, energy

    def measure(model: Any, batch: Batch) -> Tensor:
        return F.mse_loss(model(*batch[:2]), batch[2])

    return Recipe(Network(), draw, measure)


class Slope(nn.Module):
    """Right side of a differential equation."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, time: Tensor, state: Tensor) -> Tensor:
        found: Tensor = self.inside(state)
        return found


def _enter_equation(name: str, solver: str) -> None:
    def build() -> Recipe:
        solve = getattr(import_module("torchdiffeq"), solver)
        model = nn.ModuleDict({"slope": Slope(), "head": nn.Linear(2, 1)})

        def measure(model: Any, batch: Batch) -> Tensor:
            end = solve(model["slope"], batch[0], torch.tensor([0.0, 1.0]), method="rk4")[-1]
            return F.binary_cross_entropy_with_logits(model["head"](end), batch[1])

        return Recipe(model, draw_moons(64), measure, learning_rate=1e-2)

    enter(name, "torchdiffeq")(build)


_enter_equation("neural ODE", "odeint")
_enter_equation("neural ODE, adjoint", "odeint_adjoint")
