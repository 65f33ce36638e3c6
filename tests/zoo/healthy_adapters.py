"""Small trainable parts in a frozen net: LoRA, soft prompts, adapters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_finetune import new_task, pretrained_mlp
from tests.zoo.healthy_tasks import Batch, healthy, markov, token_loss, train

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class LoRALinear(nn.Module):
    """A frozen linear layer plus (alpha / rank) * B A, with B = 0 at the start."""

    def __init__(self, base: nn.Linear, rank: int = 4, alpha: float = 8.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scaling = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scaling * (x @ self.lora_a.T @ self.lora_b.T)


@healthy(
    _cases, "LoRA: A's gradient is exactly zero while B = 0, the base is frozen; the loss falls"
)
def lora_on_mlp() -> Training:
    model = pretrained_mlp()
    for index, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            model[index] = LoRALinear(layer)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return train(model, torch.optim.AdamW(trainable, lr=1e-2), new_task(), _cross_entropy, steps=80)


class TinyLm(nn.Module):
    """A causal one-head attention language model that LoRA and prompt tuning adapt."""

    def __init__(self, vocabulary: int = 16, width: int = 32, prompts: int = 0) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.prompt = nn.Parameter(0.1 * torch.randn(prompts, width)) if prompts else None
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens)
        if self.prompt is not None:
            h = torch.cat([self.prompt.expand(len(tokens), -1, -1), h], dim=1)
        n = self.norm1(h)
        h = h + functional.scaled_dot_product_attention(
            self.query(n)[:, None], self.key(n)[:, None], self.value(n)[:, None], is_causal=True
        ).squeeze(1)
        h = h + self.mlp(self.norm2(h))
        return self.head(h[:, -tokens.shape[1] :])


def _pretrained_lm(prompts: int = 0) -> TinyLm:
    model = TinyLm(prompts=prompts)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(model, optimizer, markov(), token_loss, steps=60).run()
    return model


def _shifted_chain() -> list[Batch]:
    """The chain with tokens renamed: x -> (x + 1) mod 16 in the target only."""
    return [(x, (y + 1) % 16) for x, y in markov()]


@healthy(_cases, "LoRA on query, value and head of a frozen language model: few of its layers move")
def lora_on_attention() -> Training:
    model = _pretrained_lm().requires_grad_(False)
    model.query, model.value = LoRALinear(model.query), LoRALinear(model.value)
    model.head = LoRALinear(model.head, rank=8)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return train(model, torch.optim.AdamW(trainable, lr=1e-2), _shifted_chain(), token_loss, 80)


@healthy(
    _cases, "prompt tuning: only the soft prompt and the head train, everything between is frozen"
)
def prompt_tuning() -> Training:
    model = _pretrained_lm(prompts=4).requires_grad_(False)
    assert model.prompt is not None
    model.prompt.requires_grad_(True)
    model.head.requires_grad_(True)
    trainable = [model.prompt, *model.head.parameters()]
    return train(
        model, torch.optim.Adam(trainable, lr=2e-2), _shifted_chain(), token_loss, steps=70
    )


class Adapter(nn.Module):
    """A bottleneck adapter whose up-projection starts at zero, around a frozen layer."""

    def __init__(self, layer: nn.Linear, bottleneck: int = 8) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.out_features, bottleneck)
        self.up = nn.Linear(bottleneck, layer.out_features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return h + self.up(functional.gelu(self.down(h)))


@healthy(_cases, "adapters with a zero up-projection: the down-projection waits one step by design")
def zero_init_adapters() -> Training:
    model = pretrained_mlp()
    for index in (0, 2, 4):
        model[index] = Adapter(model[index])  # type: ignore[arg-type]
    trainable = [p for p in model.parameters() if p.requires_grad]
    return train(model, torch.optim.Adam(trainable, lr=5e-3), new_task(), _cross_entropy, steps=80)


CASES: tuple[Case, ...] = tuple(_cases)
