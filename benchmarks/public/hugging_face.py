"""What the models of transformers share, whatever they read: sizes and how each is made."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.public.tasks import PAD

PACKAGE = "transformers"
WIDTH = 48
TRANSLATOR = {
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 2 * WIDTH,
    "decoder_ffn_dim": 2 * WIDTH,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
"""Of an encoder and a decoder, as BART and Whisper call them."""


def make_model(name: str, **config: Any) -> Any:
    """A model by the name of its class, which also names the class of its configuration."""
    model = getattr(import_module(PACKAGE), name)
    return model(model.config_class(**config))
