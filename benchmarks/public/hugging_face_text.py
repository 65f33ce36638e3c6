"""Language models of transformers, from small configurations."""

from __future__ import annotations

from typing import Any

from benchmarks.public.hugging_face import PACKAGE, TRANSLATOR, WIDTH, make_model
from benchmarks.public.losses import classify_with, continue_text, fill_in, repeat_text
from benchmarks.public.recipe import Recipe, enter
from benchmarks.public.tasks import PAD, VOCABULARY, draw_labelled_tokens, draw_tokens


def _size(**more: Any) -> dict[str, Any]:
    """What most configurations call these sizes."""
    return {
        "vocab_size": VOCABULARY + 1,
        "hidden_size": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 64,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": 1,
        **more,
    }


def _enter_causal(name: str, **config: Any) -> None:
    enter(name, PACKAGE)(lambda: Recipe(make_model(name, **config), draw_tokens(), continue_text))


def _enter_classifier(name: str, **config: Any) -> None:
    def build() -> Recipe:
        return Recipe(
            make_model(name, **config),
            draw_labelled_tokens(),
            classify_with("input_ids"),
            steps=150,
        )

    enter(name, PACKAGE)(build)


def _enter_masked(name: str, **config: Any) -> None:
    enter(name, PACKAGE)(
        lambda: Recipe(make_model(name, **config), draw_tokens(), fill_in(VOCABULARY), steps=150)
    )


def _enter_translator(name: str, **config: Any) -> None:
    enter(name, PACKAGE)(lambda: Recipe(make_model(name, **config), draw_tokens(12), repeat_text))


GROUPED = _size(num_key_value_heads=2)
T5 = {
    "vocab_size": 33,
    "d_model": WIDTH,
    "d_kv": 12,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": PAD,
}

_enter_causal(
    "GPT2LMHeadModel",
    vocab_size=VOCABULARY + 1,
    n_embd=WIDTH,
    n_layer=3,
    n_head=4,
    n_positions=64,
    bos_token_id=1,
    eos_token_id=1,
)
_enter_causal("LlamaForCausalLM", **GROUPED)
_enter_causal("Gemma2ForCausalLM", **GROUPED, head_dim=12)
_enter_causal("MixtralForCausalLM", **GROUPED, num_local_experts=4)
_enter_causal("GPTNeoXForCausalLM", **_size())
_enter_causal(
    "OPTForCausalLM", **_size(ffn_dim=96, word_embed_proj_dim=WIDTH, do_layer_norm_before=True)
)
_enter_causal("BloomForCausalLM", **_size(n_layer=3, n_head=4))
_enter_causal(
    "MambaForCausalLM",
    vocab_size=VOCABULARY + 1,
    hidden_size=WIDTH,
    num_hidden_layers=3,
    state_size=8,
    pad_token_id=PAD,
)
_enter_causal(
    "Mamba2ForCausalLM",
    vocab_size=VOCABULARY + 1,
    hidden_size=WIDTH,
    num_hidden_layers=2,
    state_size=8,
    num_heads=8,
    head_dim=12,
    n_groups=1,
    chunk_size=8,
    pad_token_id=PAD,
    bos_token_id=1,
    eos_token_id=1,
)
_enter_causal(
    "RwkvForCausalLM",
    vocab_size=VOCABULARY + 1,
    hidden_size=WIDTH,
    attention_hidden_size=WIDTH,
    intermediate_size=2 * WIDTH,
    num_hidden_layers=3,
    context_length=64,
)
_enter_causal(
    "RecurrentGemmaForCausalLM",
    **_size(lru_width=WIDTH, attention_window_size=16, block_types=["recurrent", "attention"]),
)
_enter_causal("XLNetLMHeadModel", vocab_size=33, d_model=WIDTH, n_layer=2, n_head=4, d_inner=96)

_enter_classifier("BertForSequenceClassification", **_size())
_enter_classifier(
    "DistilBertForSequenceClassification",
    vocab_size=33,
    dim=WIDTH,
    n_layers=3,
    n_heads=4,
    hidden_dim=96,
    max_position_embeddings=64,
)
_enter_classifier(
    "DebertaV2ForSequenceClassification",
    **_size(relative_attention=True, position_biased_input=False, pos_att_type="p2c|c2p"),
)
_enter_classifier("FNetForSequenceClassification", **_size(tpu_short_seq_length=24))
_enter_classifier("LongformerForSequenceClassification", **_size(attention_window=8))
_enter_masked("AlbertForMaskedLM", **_size(embedding_size=24))
_enter_masked("ElectraForMaskedLM", **_size(embedding_size=24))
_enter_masked("RobertaForMaskedLM", **_size())
_enter_masked("BigBirdForMaskedLM", **_size(attention_type="original_full"))

_enter_translator("T5ForConditionalGeneration", **T5)
_enter_translator(
    "SwitchTransformersForConditionalGeneration",
    **T5,
    num_experts=4,
    num_sparse_encoder_layers=1,
    num_sparse_decoder_layers=1,
)
_enter_translator(
    "BartForConditionalGeneration",
    vocab_size=33,
    **TRANSLATOR,
    max_position_embeddings=64,
    decoder_start_token_id=PAD,
    forced_eos_token_id=1,
)
