"""Models as people use them, from their own packages: small configurations with random weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

import gradwatch
from gradwatch.records import StepRecord
from tests.networks import Batch, Network
from tests.traces import capture_results, list_attachments, list_differences

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

STEPS = 20
VOCABULARY = 96
IMAGE = (3, 32, 32)


def _load(package: str) -> Any:
    """A package, or a skip that says why: timm needs a torchvision built for the same torch."""
    try:
        return import_module(package)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{package} cannot be imported here: {error}")


# Models: each function returns a model and a batch maker -------------------------------------


def make_tokens() -> Batch:
    return (torch.randint(VOCABULARY, (8, 16)),)


def make_labelled_tokens() -> Batch:
    return *make_tokens(), torch.randint(2, (8,))


def make_images() -> Batch:
    return torch.randn(8, *IMAGE), torch.randint(4, (8,))


def continue_text(model: nn.Module, batch: Batch) -> Tensor:
    return model(input_ids=batch[0], labels=batch[0]).loss


def classify_text(model: nn.Module, batch: Batch) -> Tensor:
    return model(input_ids=batch[0], labels=batch[1]).loss


def classify_image(model: nn.Module, batch: Batch) -> Tensor:
    return model(pixel_values=batch[0], labels=batch[1]).loss


def classify_plainly(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


Recipe = tuple[nn.Module, Callable[[], Batch], Callable[[nn.Module, Batch], Tensor]]


def build_gpt2() -> Recipe:
    hf = _load("transformers")
    config = hf.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=32,
        n_embd=48,
        n_layer=3,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    return hf.GPT2LMHeadModel(config), make_tokens, continue_text


def build_llama() -> Recipe:
    hf = _load("transformers")
    config = hf.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    return hf.LlamaForCausalLM(config), make_tokens, continue_text


def build_bert() -> Recipe:
    hf = _load("transformers")
    config = hf.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=32,
    )
    return hf.BertForSequenceClassification(config), make_labelled_tokens, classify_text


def build_vit() -> Recipe:
    hf = _load("transformers")
    config = hf.ViTConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        num_labels=4,
    )
    return hf.ViTForImageClassification(config), make_images, classify_image


def build_resnet() -> Recipe:
    hf = _load("transformers")
    config = hf.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[2, 2],
        layer_type="basic",
        num_labels=4,
    )
    return hf.ResNetForImageClassification(config), make_images, classify_image


def build_convnext() -> Recipe:
    hf = _load("transformers")
    config = hf.ConvNextConfig(
        hidden_sizes=[16, 32], depths=[2, 2], num_stages=2, image_size=32, num_labels=4
    )
    return hf.ConvNextForImageClassification(config), make_images, classify_image


def build_unscaled_efficientnet() -> Recipe:
    """As transformers initialises it: BatchNorm's weights around 0 with a deviation of 0.02."""
    hf = _load("transformers")
    config = hf.EfficientNetConfig(
        width_coefficient=0.25,
        depth_coefficient=0.5,
        image_size=32,
        hidden_dim=320,  # 1280 times the width
        num_labels=4,
    )
    return hf.EfficientNetForImageClassification(config), make_images, classify_image


def build_efficientnet() -> Recipe:
    """With BatchNorm's weights at 1, as in the paper, and in everyone else's implementation."""
    model, *rest = build_unscaled_efficientnet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return model, *rest


def build_unet() -> Recipe:
    diffusers = _load("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )

    def make_noisy() -> Batch:
        noise = torch.randn(4, 3, 16, 16)
        return torch.randn_like(noise) + noise, torch.randint(1000, (4,)), noise

    def predict_noise(model: nn.Module, batch: Batch) -> Tensor:
        noisy, times, noise = batch
        return nn.functional.mse_loss(model(noisy, times).sample, noise)

    return unet, make_noisy, predict_noise


def build_timm(name: str, **options: Any) -> Recipe:
    model = _load("timm").create_model(name, num_classes=4, **options)
    return model, make_images, classify_plainly


def build_timm_resnet() -> Recipe:
    return build_timm("resnet18")


def build_timm_convnext() -> Recipe:
    return build_timm("convnext_atto", depths=(1, 1, 2, 1), dims=(16, 24, 32, 48))


def build_timm_efficientnet() -> Recipe:
    return build_timm("tf_efficientnet_lite0")


def build_timm_vit() -> Recipe:
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4}
    return build_timm("vit_tiny_patch16_224", **size)


class Translator(nn.Module):
    """torch.nn.Transformer between an embedding and a vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.transformer = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
        self.head = nn.Linear(32, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        embedded = self.embed(x)
        return self.head(self.transformer(embedded, embedded, tgt_mask=mask, tgt_is_causal=True))


def build_transformer() -> Recipe:
    def translate(model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[0].flatten())

    return Translator(), make_tokens, translate


MODELS: dict[str, Callable[[], Recipe]] = {
    "gpt2": build_gpt2,
    "llama": build_llama,
    "bert": build_bert,
    "vit": build_vit,
    "resnet": build_resnet,
    "convnext": build_convnext,
    "efficientnet": build_efficientnet,
    "unet": build_unet,
    "nn.Transformer": build_transformer,
    "timm resnet": build_timm_resnet,
    "timm convnext": build_timm_convnext,
    "timm efficientnet": build_timm_efficientnet,
    "timm vit": build_timm_vit,
}


def make(build: Callable[[], Recipe]) -> Network:
    torch.manual_seed(0)
    model, make_batch, loss = build()
    batches = [make_batch() for _ in range(4)]
    return Network(model.train(), batches, torch.optim.AdamW(model.parameters(), 1e-3), loss)


# Oracle --------------------------------------------------------------------------------------


class Oracle:
    """Gradient norms at the outputs of leaf modules, by plain tensor hooks, in float64.

    A module that hands on its very input, as nn.Identity does, is no layer.
    """

    def __init__(self, model: nn.Module) -> None:
        self.norms: dict[str, float] = {}
        self._calls: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        for fqn, module in model.named_modules():
            if not any(True for _ in module.children()):
                see = functools.partial(self._see, fqn)
                hook = lambda _, inputs, output, see=see: see(inputs, output)  # noqa: E731
                self._handles.append(module.register_forward_hook(hook))

    def close(self) -> None:
        """Some packages share one activation among all models of the process."""
        for handle in self._handles:
            handle.remove()

    def _see(self, fqn: str, inputs: Any, output: Any) -> None:
        is_tensor = isinstance(output, Tensor) and output.requires_grad
        if not is_tensor or any(output is source for source in inputs):
            return
        call = self._calls[fqn] = self._calls.get(fqn, -1) + 1
        key = f"{fqn}#{call}" if call else fqn
        output.register_hook(lambda grad: self.norms.__setitem__(key, grad.double().norm().item()))


def read_oracle(name: str) -> dict[str, float]:
    network = make(MODELS[name])
    oracle = Oracle(network.model)
    network.train(1)
    oracle.close()
    return oracle.norms


def read_layers(record: StepRecord) -> dict[str, float]:
    """By module: a module that only calls an activation function is named with it."""
    values: dict[str, float] = {}
    for row in record.layer_records():
        module, colon, _ = row.layer.fqn.partition(":")
        key = f"{module}#{row.layer.call}" if row.layer.call else module
        if not colon or key not in values:
            values[key] = row.values["grad_output_l2_norm"]
    return values


# Tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_healthy_and_bit_identical(name: str) -> None:
    plain = make(MODELS[name]).train(STEPS)
    expected = capture_results(plain.model, [plain.optimizer], plain.losses)

    network = make(MODELS[name])
    attached = list_attachments(network.model, [network.optimizer])
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=1) as watch:
        network.train(STEPS)
    actual = capture_results(network.model, [network.optimizer], network.losses)
    report = watch.report()

    assert list_differences(expected, actual) == []
    assert watch.failure is None
    assert report.records == STEPS
    assert [finding.message for finding in report.findings] == []
    network.optimizer.zero_grad()
    assert list_differences(attached, list_attachments(network.model, [network.optimizer])) == []


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_measured_right(name: str) -> None:
    expected = read_oracle(name)
    network = make(MODELS[name])
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=1) as watch:
        network.train(1)
    history = watch.report().history
    assert history is not None
    record = history.latest.record
    actual = read_layers(record)

    assert len(expected) > 10
    assert sorted(set(expected) - set(actual)) == []
    for key, norm in expected.items():
        assert actual[key] == pytest.approx(norm, rel=1e-5), key
    grads = dict(zip(record.layer_set.params, record.param("grad_l2_norm"), strict=True))
    silent = [param.fqn for param, norm in grads.items() if norm != norm]
    params = {fqn for fqn, param in network.model.named_parameters() if param.grad is None}
    assert params == set(silent)


def test_a_real_flaw_is_found() -> None:
    """In nets of BatchNorms with weights around 0.02, nothing reaches the first layers."""
    network = make(build_unscaled_efficientnet)
    norms = [module for module in network.model.modules() if isinstance(module, nn.BatchNorm2d)]
    if all((norm.weight == 1).all() for norm in norms):
        pytest.skip("this version of transformers initialises BatchNorm's weights with 1")
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=1) as watch:
        network.train(STEPS)
    (finding,) = watch.report().findings
    assert (finding.kind, finding.severity) == ("vanishing", "critical")
    assert "efficientnet.embeddings.convolution" in finding.layers
    first = network.losses[0].item()
    assert network.losses[-1].item() == pytest.approx(first, rel=0.01)  # it learns nothing
