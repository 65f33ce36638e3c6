"""Diffusion models, autoencoders, flows."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.public.losses import rebuild
from benchmarks.public.recipe import Batch, Recipe, enter
from benchmarks.public.tasks import draw_digits, draw_moons, draw_waves, mix_noise

BLOCKS = {
    "block_out_channels": (16, 32),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
CODER = {
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "latent_channels": 2,
    **BLOCKS,
}


def _diffuse(predict: Any) -> Any:
    """Loss of predicting the noise; ``predict`` is given the model, the values and the times."""
    steps = iter(range(1_000_000))

    def measure(model: Any, batch: Batch) -> Tensor:
        noisy, times, noise = mix_noise(batch[0], next(steps))
        return F.mse_loss(predict(model, noisy, times, batch), noise)

    return measure


@enter("UNet2DModel", "diffusers")
def build_unet() -> Recipe:
    model = import_module("diffusers").UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        **BLOCKS,
    )
    measure = _diffuse(lambda model, x, times, _: model(x, times).sample)
    return Recipe(model, draw_digits(16, channels=1), measure)


@enter("DiTTransformer2DModel", "diffusers")
def build_dit() -> Recipe:
    model = import_module("diffusers").DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=1,
        out_channels=1,
        num_layers=3,
        sample_size=16,
        patch_size=4,
        norm_num_groups=4,
        num_embeds_ada_norm=10,
    )
    measure = _diffuse(lambda model, x, times, batch: model(x, times, batch[1]).sample)
    return Recipe(model, draw_digits(16, channels=1), measure, steps=150)


@enter("UNet1DModel", "diffusers")
def build_unet_1d() -> Recipe:
    model = import_module("diffusers").UNet1DModel(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        extra_in_channels=0,
        time_embedding_type="positional",
        use_timestep_embedding=True,
        down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
        up_block_types=("UpResnetBlock1D",),
        mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock",
        block_out_channels=(16, 32),
        norm_num_groups=4,
        act_fn="swish",
    )
    waves = draw_waves(32)
    measure = _diffuse(lambda model, x, times, _: model(x, times).sample)
    return Recipe(model, lambda step: (waves(step)[0].transpose(1, 2),), measure)


@enter("AutoencoderKL", "diffusers")
def build_autoencoder() -> Recipe:
    model = import_module("diffusers").AutoencoderKL(**CODER, sample_size=16)

    def measure(model: Any, batch: Batch) -> Tensor:
        latents = model.encode(batch[0]).latent_dist
        picture = model.decode(latents.sample()).sample
        loss: Tensor = F.mse_loss(picture, batch[0]) + 1e-4 * latents.kl().mean()
        return loss

    return Recipe(model, draw_digits(16, channels=1), measure)


@enter("VQModel", "diffusers")
def build_quantized() -> Recipe:
    model = import_module("diffusers").VQModel(**CODER, num_vq_embeddings=32)

    def measure(model: Any, batch: Batch) -> Tensor:
        quantized, commitment, _ = model.quantize(model.encode(batch[0]).latents)
        loss: Tensor = F.mse_loss(model.decode(quantized, force_not_quantize=True).sample, batch[0])
        return loss + commitment

    return Recipe(model, draw_digits(16, channels=1), measure)


@enter("VectorQuantize", "vector-quantize-pytorch")
def build_vector_quantize() -> Recipe:
    quantizer = import_module("vector_quantize_pytorch").VectorQuantize(dim=8, codebook_size=32)
    model = nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 32)),
            "quantizer": quantizer,
            "decoder": nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 64)),
        }
    )

    def measure(model: Any, batch: Batch) -> Tensor:
        x = batch[0].flatten(1)
        quantized, _, commitment = model["quantizer"](model["encoder"](x).view(-1, 4, 8))
        return F.mse_loss(model["decoder"](quantized.flatten(1)), x) + commitment.sum()

    return Recipe(model, draw_digits(8, channels=1, batch=32), measure)


def _flow_loss(model: Any, batch: Batch) -> Tensor:
    loss: Tensor = -model.log_prob(batch[0]).mean()
    return loss


@enter("MaskedAffineAutoregressive", "nflows")
def build_masked_flow() -> Recipe:
    transforms = import_module("nflows.transforms")
    layers = [
        layer
        for _ in range(3)
        for layer in (
            transforms.ReversePermutation(2),
            transforms.MaskedAffineAutoregressiveTransform(features=2, hidden_features=24),
        )
    ]
    base = import_module("nflows.distributions").StandardNormal([2])
    flow = import_module("nflows.flows").Flow(transforms.CompositeTransform(layers), base)
    return Recipe(flow, draw_moons(), _flow_loss)


@enter("NSF", "zuko")
def build_spline_flow() -> Recipe:
    model = import_module("zuko").flows.NSF(2, transforms=3, hidden_features=(32, 32))

    def measure(model: Any, batch: Batch) -> Tensor:
        loss: Tensor = -model().log_prob(batch[0]).mean()
        return loss

    return Recipe(model, draw_moons(), measure)


@enter("CNF", "zuko")
def build_continuous_flow() -> Recipe:
    model = import_module("zuko").flows.CNF(2, hidden_features=(32, 32))

    def measure(model: Any, batch: Batch) -> Tensor:
        loss: Tensor = -model().log_prob(batch[0]).mean()
        return loss

    return Recipe(model, draw_moons(32), measure, steps=60)


@enter("SIREN", "siren-pytorch")
def build_siren() -> Recipe:
    model = import_module("siren_pytorch").SirenNet(
        dim_in=64, dim_hidden=64, dim_out=64, num_layers=3
    )
    flat = draw_digits(8, channels=1, batch=32)
    return Recipe(model, lambda step: (flat(step)[0].flatten(1),), rebuild)
