"""Models of transformers that see, hear or forecast, from small configurations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.public.hugging_face import PACKAGE, TRANSLATOR, WIDTH, make_model
from benchmarks.public.losses import classify_with
from benchmarks.public.recipe import Batch, Recipe, enter
from benchmarks.public.tasks import (
    VOCABULARY,
    Draw,
    draw_digits,
    draw_masks,
    draw_sounds,
    draw_waves,
)

SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 2 * WIDTH,
}
PATCHES = {"image_size": 32, "patch_size": 8, "num_labels": 10}


def _enter_image_classifier(name: str, **config: Any) -> None:
    def build() -> Recipe:
        return Recipe(make_model(name, **config), draw_digits(), classify_with("pixel_values"))

    enter(name, PACKAGE)(build)


_enter_image_classifier("ViTForImageClassification", **SIZES, **PATCHES)
_enter_image_classifier("Dinov2ForImageClassification", **SIZES, **PATCHES)
_enter_image_classifier("BeitForImageClassification", **SIZES, **PATCHES)
_enter_image_classifier(
    "SwinForImageClassification",
    image_size=32,
    patch_size=2,
    embed_dim=16,
    depths=[2, 2],
    num_heads=[2, 4],
    window_size=4,
    num_labels=10,
)
_enter_image_classifier(
    "ConvNextV2ForImageClassification",
    hidden_sizes=[16, 32, 48, 64],
    depths=[1, 1, 2, 1],
    patch_size=2,
    num_labels=10,
)
_enter_image_classifier(
    "ResNetForImageClassification",
    embedding_size=16,
    hidden_sizes=[16, 32],
    depths=[2, 2],
    layer_type="basic",
    num_labels=10,
)
_enter_image_classifier(
    "RegNetForImageClassification",
    embedding_size=16,
    hidden_sizes=[16, 32, 48, 64],
    depths=[1, 1, 1, 1],
    groups_width=8,
    num_labels=10,
)
_enter_image_classifier(
    "PoolFormerForImageClassification",
    hidden_sizes=[16, 24, 32, 48],
    depths=[1, 1, 1, 1],
    num_labels=10,
)


@enter("SegformerForSemanticSegmentation", PACKAGE)
def build_segformer() -> Recipe:
    model = make_model(
        "SegformerForSemanticSegmentation",
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=32,
        num_labels=2,
    )

    def segment(model: Any, batch: Batch) -> Tensor:
        loss: Tensor = model(pixel_values=batch[0], labels=batch[1][:, 0].long()).loss
        return loss

    return Recipe(model, draw_masks(), segment)


@enter("CLIPModel", PACKAGE)
def build_clip() -> Recipe:
    sizes = {**SIZES, "projection_dim": 32}
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": 16, "eos_token_id": 2}
    model = make_model(
        "CLIPModel",
        projection_dim=32,
        text_config={**sizes, **text, "bos_token_id": 1, "pad_token_id": 0},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
    )

    def match(model: Any, batch: Batch) -> Tensor:
        names = torch.stack((torch.full_like(batch[1], 1), batch[1] + 3), dim=1)
        text = torch.cat((names, torch.full((len(names), 1), 2)), dim=1)
        loss: Tensor = model(input_ids=text, pixel_values=batch[0], return_loss=True).loss
        return loss

    return Recipe(model, draw_digits(), match, steps=150)


HEARING = {
    **SIZES,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 8, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 3,
    "classifier_proj_size": 32,
    "num_labels": 4,
    "mask_time_prob": 0.0,
    "vocab_size": VOCABULARY,
}


def _enter_listener(name: str) -> None:
    enter(name, PACKAGE)(
        lambda: Recipe(make_model(name, **HEARING), draw_sounds(), classify_with("input_values"))
    )


_enter_listener("Wav2Vec2ForSequenceClassification")
_enter_listener("HubertForSequenceClassification")


@enter("WhisperForConditionalGeneration", PACKAGE)
def build_whisper() -> Recipe:
    model = make_model(
        "WhisperForConditionalGeneration",
        vocab_size=VOCABULARY,
        num_mel_bins=16,
        **TRANSLATOR,
        max_source_positions=32,
        max_target_positions=16,
        decoder_start_token_id=2,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    sounds = draw_sounds(1024)

    def draw(step: int) -> Batch:
        wave, pitch = sounds(step)
        return wave.view(-1, 16, 64), torch.stack((pitch + 4, pitch + 10), dim=1)

    return Recipe(model, draw, classify_with("input_features"))


@enter("PatchTSTForPrediction", PACKAGE)
def build_patch_tst() -> Recipe:
    model = make_model(
        "PatchTSTForPrediction",
        num_input_channels=1,
        context_length=32,
        prediction_length=8,
        patch_length=8,
        patch_stride=4,
        d_model=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=64,
    )

    def forecast(model: Any, batch: Batch) -> Tensor:
        past, future = batch[0][:, :32], batch[0][:, 32:40]
        loss: Tensor = model(past_values=past, future_values=future).loss
        return loss

    return Recipe(model, draw_waves(), forecast)


def _enter_forecaster(name: str, draw: Draw, **more: Any) -> None:
    def build() -> Recipe:
        model = make_model(
            name,
            prediction_length=8,
            context_length=24,
            lags_sequence=[1, 2, 3],
            num_time_features=1,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            **more,
        )
        return Recipe(model, draw, _forecast)

    enter(name, PACKAGE)(build)


def _forecast(model: Any, batch: Batch) -> Tensor:
    """Likelihood of the last 8 of a series' values, given the 27 before."""
    series = batch[0][..., 0]
    time = torch.linspace(0, 1, series.shape[1]).expand_as(series)[..., None]
    loss: Tensor = model(
        past_values=series[:, :27],
        past_time_features=time[:, :27],
        past_observed_mask=torch.ones_like(series[:, :27]),
        future_values=series[:, 27:35],
        future_time_features=time[:, 27:35],
    ).loss
    return loss


_enter_forecaster("TimeSeriesTransformerForPrediction", draw_waves(35))
_enter_forecaster("InformerForPrediction", draw_waves(35), distil=False)
