"""Few samples or few units at a time: embeddings, experts, sparse activations, tied weights."""

from __future__ import annotations

from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import (
    Batch,
    blobs,
    glyphs,
    healthy,
    markov,
    spirals,
    token_loss,
    train,
    waves,
)

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


def _bags(samples: int = 512, vocabulary: int = 200, length: int = 8) -> list[Batch]:
    """Bags of words drawn by Zipf's law; the label is the sign of the words' summed sentiment."""
    source = torch.Generator().manual_seed(7)
    frequency = 1.0 / torch.arange(1, vocabulary + 1)
    draws = torch.multinomial(frequency, samples * length, replacement=True, generator=source)
    sentiment = torch.randn(vocabulary, generator=source)
    words = draws.view(samples, length)
    return list(zip(words.split(32), (sentiment[words].sum(1) > 0).float().split(32), strict=True))


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits.squeeze(-1), target)


@healthy(_cases, "sparse embedding gradients under SparseAdam: most rows are untouched in any step")
def sparse_embedding_sparse_adam() -> Training:
    model = nn.Sequential(nn.EmbeddingBag(200, 16, mode="mean", sparse=True), nn.Linear(16, 1))
    rows = torch.optim.SparseAdam(list(model[0].parameters()), lr=0.02)
    dense = torch.optim.Adam(model[1].parameters(), lr=0.02)

    def run() -> list[float]:
        losses = []
        for words, target in islice(cycle(_bags()), 120):
            rows.zero_grad()
            dense.zero_grad()
            loss = _bce(model(words), target)
            loss.backward()
            rows.step()
            dense.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(rows, dense), run=run)


class BagClassifier(nn.Module):
    def __init__(self, vocabulary: int, sparse: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 16, padding_idx=0, sparse=sparse)
        self.hidden = nn.Linear(16, 32)
        self.head = nn.Linear(32, 1)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(functional.relu(self.hidden(self.embed(words).sum(1))))


@healthy(
    _cases, "nn.Embedding(sparse=True) under SGD: sparse gradients, and a padding row of zeros"
)
def sparse_embedding_sgd() -> Training:
    model = BagClassifier(200, sparse=True)
    return train(model, torch.optim.SGD(model.parameters(), lr=0.5), _bags(), _bce, steps=240)


@healthy(_cases, "5000-row embedding of which 200 rows are ever used: most of its gradient is zero")
def rarely_used_embedding_rows() -> Training:
    model = BagClassifier(5000, sparse=False)
    return train(model, torch.optim.Adagrad(model.parameters(), lr=0.1), _bags(), _bce, steps=100)


class MixtureOfExperts(nn.Module):
    """Top-1 gating: each sample goes to one expert, weighted by its gate probability."""

    def __init__(self, features: int, experts: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.gate = nn.Linear(features, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes))
            for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight, choice = functional.softmax(self.gate(x), dim=-1).max(dim=-1)
        out = x.new_zeros(len(x), self.experts[0][-1].out_features)  # type: ignore[index,union-attr]
        for index, expert in enumerate(self.experts):
            chosen = choice == index
            if chosen.any():
                out[chosen] = weight[chosen, None] * expert(x[chosen])
        return out


@healthy(
    _cases, "top-1 mixture of 8 experts: some serve a few samples, some none at all in many steps"
)
def mixture_of_experts_top1() -> Training:
    model = MixtureOfExperts(16, experts=8, classes=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, blobs(spread=1.5, batch_size=16), _cross_entropy, steps=100)


@healthy(
    _cases, "16 experts for batches of 8: at least half of them are idle in every step by design"
)
def mixture_of_many_rare_experts() -> Training:
    model = MixtureOfExperts(2, experts=16, classes=2, width=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    return train(model, optimizer, spirals(batch_size=8), _cross_entropy, steps=200)


class BranchByLanguage(nn.Module):
    """A shared body with one head per domain; one domain makes up a twentieth of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.heads = nn.ModuleDict({"common": nn.Linear(48, 1), "rare domain": nn.Linear(48, 1)})

    def forward(self, x: Tensor, domain: str) -> Tensor:
        return self.heads[domain](self.body(x))


@healthy(
    _cases, "a head that is used in one step of twenty has a None gradient in the others by design"
)
def rarely_called_head() -> Training:
    model = BranchByLanguage()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def run() -> list[float]:
        losses = []
        for step, (x, y) in enumerate(islice(cycle(waves()), 140)):
            domain = "rare domain" if step % 20 == 4 else "common"
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x, domain), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(
    _cases, "biases of -1 on wide ReLU layers: about 90% zeros, yet units fire on some samples"
)
def sparse_wide_relu() -> Training:
    model = nn.Sequential(
        nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 1)
    )
    nn.init.kaiming_normal_(model[0].weight)  # type: ignore[arg-type]
    nn.init.constant_(model[0].bias, -1.5)  # type: ignore[arg-type]
    return train(model, torch.optim.Adam(model.parameters(), lr=1e-3), waves(), nn.MSELoss(), 120)


@healthy(
    _cases, "a penalty on activity drives a ReLU code to 90% zeros on purpose; it still rebuilds x"
)
def sparse_autoencoder() -> Training:
    encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
    decoder = nn.Linear(128, 64)
    model = nn.Sequential(encoder, decoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def run() -> list[float]:
        losses = []
        for x, _ in islice(cycle(glyphs(batch_size=32)), 150):
            code = encoder(x.flatten(1))
            loss = functional.mse_loss(decoder(code), x.flatten(1)) + 0.05 * code.abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


class TopK(nn.Module):
    """Keep the k largest activations of each sample and zero the others."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        values, index = x.topk(self.k, dim=-1)
        return torch.zeros_like(x).scatter(-1, index, values)


@healthy(
    _cases,
    "k-winners-take-all: 95% zeros by design, with winners that differ from sample to sample",
)
def top_k_activation() -> Training:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), TopK(6), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return train(model, optimizer, glyphs(batch_size=32), _cross_entropy, steps=100)


class TiedAutoencoder(nn.Module):
    """Decoder weights are the encoder's, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode1, self.encode2 = nn.Linear(64, 48), nn.Linear(48, 24)
        self.bias1, self.bias2 = nn.Parameter(torch.zeros(48)), nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.encode2(torch.tanh(self.encode1(x))))
        hidden = torch.tanh(functional.linear(code, self.encode2.weight.T, self.bias1))
        return functional.linear(hidden, self.encode1.weight.T, self.bias2)


@healthy(_cases, "tied auto-encoder: one weight serves twice, its gradient is a sum; loss falls")
def tied_autoencoder() -> Training:
    model = TiedAutoencoder()
    batches = [(x.flatten(1), x.flatten(1)) for x, _ in glyphs(noise=0.1, batch_size=32)]
    return train(
        model, torch.optim.Adam(model.parameters(), lr=5e-3), batches, nn.MSELoss(), steps=120
    )


class TiedGru(nn.Module):
    def __init__(self, vocabulary: int = 16, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


@healthy(
    _cases, "GRU language model with input and output embeddings tied; loss falls to the chain's"
)
def tied_embedding_gru() -> Training:
    model = TiedGru()
    return train(
        model, torch.optim.Adam(model.parameters(), lr=0.01), markov(), token_loss, steps=80
    )


CASES: tuple[Case, ...] = tuple(_cases)
