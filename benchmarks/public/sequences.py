"""Sequence models: x-transformers, Mamba, temporal convolutions, spikes, liquid networks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.public.losses import predict_next
from benchmarks.public.recipe import Batch, Recipe, enter
from benchmarks.public.tasks import VOCABULARY, draw_digits, draw_tokens, draw_waves


def _enter_decoder(name: str, **options: Any) -> None:
    def build() -> Recipe:
        package = import_module("x_transformers")
        model = package.TransformerWrapper(
            num_tokens=VOCABULARY,
            max_seq_len=64,
            attn_layers=package.Decoder(dim=48, depth=3, heads=4, attn_dim_head=12, **options),
        )
        return Recipe(model, draw_tokens(), predict_next)

    enter(name, "x-transformers")(build)


_enter_decoder("Decoder")
_enter_decoder("Decoder, rotary, GLU", rotary_pos_emb=True, ff_glu=True, use_rmsnorm=True)
_enter_decoder("Decoder, ALiBi, talking heads", alibi_pos_bias=True, attn_pre_talking_heads=True)
_enter_decoder("Decoder, gated residual", gate_residual=True, sandwich_norm=True)
_enter_decoder("Decoder, ReLU squared, QK norm", ff_relu_squared=True, attn_qk_norm=True)
_enter_decoder("Decoder, sparse attention", attn_sparse_topk=4)
_enter_decoder("Decoder, macaron", macaron=True, ff_swish=True)


class Worded(nn.Module):
    """A body of another package between an embedding and a head."""

    def __init__(self, body: nn.Module, width: int, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.body = body
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(self.embedding(tokens)))
        return found


@enter("Mamba", "mambapy")
def build_mamba() -> Recipe:
    package = import_module("mambapy.mamba")
    body = package.Mamba(package.MambaConfig(d_model=32, n_layers=2, d_state=8))
    return Recipe(Worded(body, 32), draw_tokens(), predict_next)


@enter("LocalTransformer", "local-attention")
def build_local() -> Recipe:
    model = import_module("local_attention").LocalTransformer(
        num_tokens=VOCABULARY,
        max_seq_len=32,
        dim=48,
        depth=2,
        heads=4,
        dim_head=12,
        local_attn_window_size=8,
        causal=True,
    )
    return Recipe(model, draw_tokens(33), predict_next)


@enter("Performer", "performer-pytorch")
def build_performer() -> Recipe:
    body = import_module("performer_pytorch").Performer(
        dim=48, depth=2, heads=4, dim_head=12, causal=False
    )

    def fill_in(model: Any, batch: Batch) -> Tensor:
        hidden = torch.arange(batch[0].shape[1]) % 4 == 1
        logits = model(torch.where(hidden, 0, batch[0]))
        return F.cross_entropy(logits[:, hidden].flatten(0, 1), batch[0][:, hidden].flatten())

    return Recipe(Worded(body, 48), draw_tokens(), fill_in, steps=150)


def _forecast(model: Any, batch: Batch) -> Tensor:
    """The next value of each series at each step."""
    predicted = model(batch[0][:, :-1])
    return F.mse_loss(predicted, batch[0][:, 1:])


class Unpacked(nn.Module):
    """The first of what a module returns."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.inner(x)[0]
        return first


def _enter_liquid(name: str) -> None:
    def build() -> Recipe:
        package = import_module("ncps.torch")
        wiring = import_module("ncps.wirings").AutoNCP(16, 1)
        model = Unpacked(getattr(package, name)(1, wiring, batch_first=True))
        return Recipe(model, draw_waves(24), _forecast, learning_rate=5e-3)

    enter(name, "ncps")(build)


_enter_liquid("CfC")


@enter("TCN", "pytorch-tcn")
def build_tcn() -> Recipe:
    body = import_module("pytorch_tcn").TCN(
        num_inputs=1, num_channels=[16, 16, 16], kernel_size=3, input_shape="NLC"
    )
    model = nn.Sequential(body, nn.Linear(16, 1))
    return Recipe(model, draw_waves(), _forecast)


class Spiking(nn.Module):
    """Leaky neurons over some time steps; membrane potentials are the scores."""

    def __init__(self, package: Any, steps: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 10)
        self.leaky, self.output = package.Leaky(beta=0.9), package.Leaky(beta=0.9)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.leaky.init_leaky(), self.output.init_leaky()
        total = x.new_zeros(len(x), 10)
        for _ in range(self.steps):
            spikes, first = self.leaky(self.first(x), first)
            _, second = self.output(self.second(spikes), second)
            total = total + second
        return total


@enter("Leaky", "snntorch")
def build_spiking() -> Recipe:
    model = Spiking(import_module("snntorch"))
    images = draw_digits(8, channels=1, batch=32)

    def measure(model: Any, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0].flatten(1)), batch[1])

    return Recipe(model, images, measure, learning_rate=2e-3)


@enter("Perceiver", "perceiver-pytorch")
def build_perceiver() -> Recipe:
    model = import_module("perceiver_pytorch").Perceiver(
        input_channels=1,
        input_axis=2,
        num_freq_bands=4,
        max_freq=8.0,
        depth=2,
        num_latents=8,
        latent_dim=32,
        cross_heads=1,
        latent_heads=4,
        cross_dim_head=16,
        latent_dim_head=8,
        num_classes=10,
    )

    def measure(model: Any, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0].permute(0, 2, 3, 1)), batch[1])

    return Recipe(model, draw_digits(8, channels=1), measure, steps=150)


@enter("gMLP", "g-mlp-pytorch")
def build_gated() -> Recipe:
    model = import_module("g_mlp_pytorch").gMLP(
        num_tokens=VOCABULARY, dim=48, depth=3, seq_len=23, causal=True
    )
    return Recipe(model, draw_tokens(), predict_next)


@enter("LoRA on GPT-2", "peft")
def build_adapter() -> Recipe:
    hf, peft = import_module("transformers"), import_module("peft")
    model = hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=32)
    )
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn", "c_fc"], task_type="CAUSAL_LM", fan_in_fan_out=True
    )

    def measure(model: Any, batch: Batch) -> Tensor:
        loss: Tensor = model(input_ids=batch[0], labels=batch[0]).loss
        return loss

    return Recipe(peft.get_peft_model(model, config), draw_tokens(), measure, learning_rate=1e-2)
