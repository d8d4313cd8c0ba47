"""Sequence classifiers of transformers, two layers of width 32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import CLASSES, KEY_BIAS, SAMPLES, Architecture
from torch import Tensor, nn

VOCABULARY, WIDTH, LAYERS, HEADS = 60, 32, 2, 4

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def text(tokens: int, *, segments: bool = False) -> Callable[[torch.Generator], dict[str, Tensor]]:
    """Return a maker of token ids [SAMPLES, tokens], two of them padded at the end; with `segments` of two kinds."""

    def inputs(generator: torch.Generator) -> dict[str, Tensor]:
        ids = torch.randint(3, VOCABULARY, (SAMPLES, tokens), generator=generator)
        mask = torch.ones_like(ids)
        for sample, length in ((1, tokens - 3), (6, tokens - 1)):
            ids[sample, length:] = 0
            mask[sample, length:] = 0
        batch = {"input_ids": ids, "attention_mask": mask}
        return batch | {"token_type_ids": torch.arange(tokens).gt(4).long().expand_as(ids)} if segments else batch

    return inputs


def hub(
    family: str,
    tokens: int = 11,
    *,
    segments: bool = False,
    attention: str = "sdpa",
    zero_gradient: str | None = KEY_BIAS,
    **options: Any,
) -> Architecture:
    """Return `{family}ForSequenceClassification`; the configuration is made here, nothing is loaded from a hub."""

    def make() -> nn.Module:
        library = pytest.importorskip("transformers")
        config = getattr(library, f"{family}Config")(num_labels=CLASSES, attn_implementation=attention, **options)
        network: nn.Module = getattr(library, f"{family}ForSequenceClassification")(config)
        return network

    return Architecture(make, text(tokens, segments=segments), zero_gradient=zero_gradient)


ARCHITECTURES = {
    "bert": hub("Bert", segments=True, **COMMON, **NO_DROPOUT),
    "bert, eager attention": hub("Bert", attention="eager", **COMMON, **NO_DROPOUT),
    "bert, as many tokens as samples": hub("Bert", SAMPLES, **COMMON, **NO_DROPOUT),
    "distilbert": hub(
        "DistilBert",
        vocab_size=VOCABULARY,
        dim=WIDTH,
        n_layers=LAYERS,
        n_heads=HEADS,
        hidden_dim=64,
        max_position_embeddings=32,
        pad_token_id=0,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
    ),
    "roberta": hub("Roberta", **COMMON, **NO_DROPOUT),
    "albert": hub("Albert", embedding_size=16, **COMMON, **NO_DROPOUT),  # its layers share their weights
    "electra": hub("Electra", embedding_size=16, **COMMON, **NO_DROPOUT),
    "deberta_v2": hub(
        "DebertaV2",
        attention="eager",
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        **COMMON,
        **NO_DROPOUT,
    ),
    "gpt2": hub(
        "GPT2",
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
    "opt": hub(
        "OPT", word_embed_proj_dim=WIDTH, ffn_dim=64, dropout=0.0, **{k: COMMON[k] for k in COMMON if k[0] != "i"}
    ),
    "llama": hub("Llama", num_key_value_heads=2, **COMMON),
    "qwen2": hub(
        "Qwen2", num_key_value_heads=2, zero_gradient=None, **COMMON
    ),  # biases of q, k and v, then the rotation
    "gemma": hub("Gemma", num_key_value_heads=2, head_dim=8, **COMMON),  # RMSNorm with 1 + weight
    "xlnet": hub(  # sequence first, with as many tokens as samples
        "XLNet",
        SAMPLES,
        segments=True,  # without them its segment embedding has no gradient
        attention="eager",
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        d_inner=64,
        pad_token_id=0,
        dropout=0.0,
        summary_last_dropout=0.0,
    ),
}
