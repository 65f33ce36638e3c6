"""Image models of timm, vit-pytorch, segmentation-models-pytorch and the like."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.public.losses import classify
from benchmarks.public.recipe import Batch, Recipe, enter
from benchmarks.public.tasks import draw_digits, draw_masks


def _enter_timm(name: str, size: int = 32, **more: Any) -> None:
    def build() -> Recipe:
        model = import_module("timm").create_model(name, num_classes=10, **more)
        return Recipe(model, draw_digits(size), classify)

    enter(name, "timm")(build)


_enter_timm("lcnet_035")
_enter_timm("mobilenetv3_small_050")
_enter_timm("convnext_atto", depths=(1, 1, 2, 1), dims=(16, 32, 48, 64))
_enter_timm("mobilevit_xxs", size=64)
_enter_timm("ghostnet_050")


def _enter_timm_class(name: str, **more: Any) -> None:
    def build() -> Recipe:
        model = getattr(import_module("timm.models"), name)(num_classes=10, **more)
        return Recipe(model, draw_digits(), classify)

    enter(name, "timm")(build)


MIXING = {"img_size": 32, "patch_size": 8, "num_blocks": 3, "embed_dim": 48}
SWIN = {"img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
PATCHES = {"img_size": 32, "patch_size": 8, "embed_dim": 48}
_enter_timm_class("MlpMixer", **MIXING)
_enter_timm_class("SwinTransformer", **SWIN, window_size=4)
_enter_timm_class("VisionTransformer", **PATCHES, depth=3, num_heads=4)
_enter_timm_class("Cait", **PATCHES, depth=2, num_heads=4)
_enter_timm_class("ConvMixer", dim=32, depth=4, patch_size=4)


def _enter_vit(name: str, module: str, **more: Any) -> None:
    def build() -> Recipe:
        model = getattr(import_module(f"vit_pytorch{module}"), name)(num_classes=10, **more)
        return Recipe(model, draw_digits(), classify)

    enter(name, "vit-pytorch")(build)


PLAIN = {"image_size": 32, "patch_size": 8, "dim": 48, "depth": 3, "heads": 4, "mlp_dim": 96}
_enter_vit("ViT", "", **PLAIN)
_enter_vit("SimpleViT", "", **PLAIN)
_enter_vit("DeepViT", ".deepvit", **PLAIN)
_enter_vit("CaiT", ".cait", **PLAIN, cls_depth=1)
_enter_vit(
    "CCT",
    ".cct",
    img_size=32,
    embedding_dim=48,
    n_conv_layers=1,
    num_layers=2,
    num_heads=4,
    mlp_ratio=2.0,
)
_enter_vit("NesT", ".nest", image_size=32, patch_size=4, dim=32, heads=2, num_hierarchies=2,
           block_repeats=(1, 1))  # fmt: skip


def _segment(model: Any, batch: Batch) -> Tensor:
    return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])


def _enter_segmenter(name: str, **more: Any) -> None:
    def build() -> Recipe:
        smp = import_module("segmentation_models_pytorch")
        model = getattr(smp, name)(encoder_weights=None, **more)
        return Recipe(model, draw_masks(), _segment, steps=60)

    enter(name, "segmentation-models-pytorch")(build)


_enter_segmenter("Unet", encoder_name="timm-mobilenetv3_small_minimal_100")
_enter_segmenter("FPN", encoder_name="resnet18")
_enter_segmenter("Linknet", encoder_name="mobilenet_v2")


@enter("SimSiam", "lightly")
def build_sim_siam() -> Recipe:
    package = import_module("lightly.loss"), import_module("lightly.models.modules.heads")
    backbone = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    model = nn.ModuleDict(
        {
            "backbone": backbone,
            "project": package[1].SimSiamProjectionHead(32, 32, 32),
            "predict": package[1].SimSiamPredictionHead(32, 16, 32),
        }
    )
    compare = package[0].NegativeCosineSimilarity()

    def measure(model: Any, batch: Batch) -> Tensor:
        views = [batch[0] + 0.3 * torch.randn_like(batch[0]) for _ in range(2)]
        a, b = (model["project"](model["backbone"](view)) for view in views)
        loss: Tensor = compare(model["predict"](a), b.detach())
        return (loss + compare(model["predict"](b), a.detach())) / 2

    return Recipe(model, draw_digits(8, channels=1, batch=32), measure)


@enter("torchvision shufflenet", "torchvision")
def build_shufflenet() -> Recipe:
    model = import_module("torchvision.models").shufflenet_v2_x0_5(num_classes=10)
    return Recipe(model, draw_digits(), classify)


@enter("torchvision squeezenet", "torchvision")
def build_squeezenet() -> Recipe:
    model = import_module("torchvision.models").squeezenet1_1(num_classes=10)
    return Recipe(model, draw_digits(64), classify, learning_rate=3e-4)
