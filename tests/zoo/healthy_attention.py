"""Transformers and attention: key biases, tied heads, learned positions, class tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_tasks import Batch, glyphs, healthy, markov, split, tally, token_loss, train

_cases: list[Case] = []
_cross_entropy = nn.CrossEntropyLoss()


class Attention(nn.Module):
    """Causal multi-head attention with separate projections, so that the key has its own bias."""

    def __init__(self, width: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        if self.causal:
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(mask, float("-inf"))
        mixed = functional.softmax(scores, dim=-1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Gpt(nn.Module):
    """A pre-norm language model with learned positions and, if wished, a tied head."""

    def __init__(
        self, layers: int, width: int = 32, tied: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(16, width)
        self.position = nn.Embedding(16, width)
        self.blocks = nn.ModuleList(Block(width, 2, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 16, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


@healthy(_cases, "GPT-2-style model: std 0.02, tied head, key biases without gradient; loss falls")
def gpt_tied_head() -> Training:
    model = Gpt(layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95))
    return train(model, optimizer, markov(), token_loss, steps=70, clip_norm=1.0)


@healthy(_cases, "four pre-norm layers, untied, dropout 0.1, warm-up from a learning rate of zero")
def gpt_four_layers_warmup() -> Training:
    model = Gpt(layers=4, width=24, tied=False, dropout=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 15))
    return train(model, optimizer, markov(), token_loss, 65, scheduler=schedule, clip_norm=1.0)


@healthy(
    _cases, "the attention key's bias cancels in the softmax: zero in theory, noise in practice"
)
def attention_key_bias_sgd() -> Training:
    model = nn.Sequential(
        nn.Embedding(16, 32), Attention(32, 1), nn.LayerNorm(32), nn.Linear(32, 16)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    return train(model, optimizer, markov(), token_loss, steps=120)


class VisionTransformer(nn.Module):
    """4 x 4 patches of 2 x 2 pixels, a class token and learned positions that start at zero."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, stride=2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 17, width))
        self.blocks = nn.Sequential(*(Block(width, 2, causal=False) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
        return self.head(self.norm(self.blocks(tokens + self.position))[:, 0])


@healthy(_cases, "ViT: only the class token is read, so the last block's other tokens get little")
def vision_transformer() -> Training:
    model = VisionTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    return train(model, optimizer, glyphs(classes=4, batch_size=32), _cross_entropy, steps=90)


class EncoderClassifier(nn.Module):
    def __init__(self, encoder: nn.TransformerEncoder, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.encoder = encoder
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


@healthy(_cases, "nn.TransformerEncoder, pre-norm, two layers over real sequences; loss falls")
def transformer_encoder_prenorm() -> Training:
    layer = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = EncoderClassifier(encoder, 24)
    return train(model, torch.optim.Adam(model.parameters(), 2e-3), tally(), _cross_entropy, 70)


@healthy(_cases, "nn.TransformerEncoder, post-norm, one layer with dropout 0.1, SGD; loss falls")
def transformer_encoder_postnorm() -> Training:
    layer = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    model = EncoderClassifier(encoder, 24)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    return train(model, optimizer, tally(), _cross_entropy, steps=80)


class Copier(nn.Module):
    """nn.Transformer, encoder and decoder, one layer each."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, width)
        self.position = nn.Parameter(0.5 * torch.randn(6, width))
        self.transformer = nn.Transformer(
            width, 2, 1, 1, 64, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        start = torch.full_like(tokens[:, :1], 8)
        shifted = torch.cat([start, tokens.flip(1)[:, :-1]], dim=1)
        source, target = (self.embed(t) + self.position for t in (tokens, shifted))
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.transformer(source, target, tgt_mask=mask, tgt_is_causal=True))


def _reversals() -> list[Batch]:
    tokens = torch.randint(8, (512, 6), generator=torch.Generator().manual_seed(14))
    return split(tokens, tokens.flip(1), 64)


@healthy(
    _cases, "nn.Transformer learns to reverse sequences through its cross-attention; loss falls"
)
def transformer_encoder_decoder() -> Training:
    model = Copier()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return train(model, optimizer, _reversals(), token_loss, steps=110)


class AttentionPool(nn.Module):
    """nn.MultiheadAttention with a learned query reads a set."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(3, width), nn.ReLU())
        self.seed = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, items: Tensor) -> Tensor:
        h = self.embed(items)
        pooled, _ = self.attention(self.seed.expand(len(items), -1, -1), h, h, need_weights=False)
        return self.head(pooled[:, 0])


@healthy(
    _cases, "nn.MultiheadAttention pools a set for a learned query; its in_proj holds a key bias"
)
def multihead_attention_pool() -> Training:
    model = AttentionPool()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return train(model, optimizer, tally(), _cross_entropy, steps=100)


@healthy(_cases, "linear attention over sets: normalised by sums instead of softmax; loss falls")
def linear_attention() -> Training:
    model = nn.Sequential(nn.Linear(3, 32), LinearAttention(32), nn.LayerNorm(32), MeanHead(32))
    return train(model, torch.optim.AdamW(model.parameters(), 5e-3), tally(), _cross_entropy, 80)


class LinearAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        query, key = (functional.elu(layer(x)) + 1 for layer in (self.query, self.key))
        summary = key.transpose(1, 2) @ self.value(x)
        total = query @ key.sum(1, keepdim=True).transpose(1, 2)
        return x + (query @ summary) / total


class MeanHead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(1))


CASES: tuple[Case, ...] = tuple(_cases)
