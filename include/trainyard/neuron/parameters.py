"""How many parameters a model has, from its config.json alone, by what they are for.

Exact for the architectures of the catalogue (tests compare with the published totals); for others the usual
decoder is assumed: grouped-query attention, gated MLP, RMS norms. Source: the modules of transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from trainyard.neuron.model_numbers import Numbers, text_section

# Configs leave out what equals their class's default, and the classes differ.
_TIED = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "smollm3", "cohere", "cohere2"})
_QK_NORM = frozenset({"qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text", "gemma3", "gemma3_text"})
_QKV_BIAS = frozenset({"qwen2", "qwen2_moe", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"})
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_PER_TOKEN = ("num_experts_per_tok", "experts_per_token", "moe_top_k")


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters. draft: layers that predict further tokens (DeepSeek's MTP)."""

    embedding: int
    attention: int
    mlp: int
    experts: int
    shared_experts: int
    router: int
    norms: int
    lm_head: int
    vision: int = 0
    draft: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def kept(self) -> int:
        """Those that stay at 16 bit when the others are quantized."""
        return self.embedding + self.router + self.norms + self.lm_head + self.vision


@dataclass(frozen=True)
class Mixture:
    """experts of each MoE layer (0: none), per_token: how many a token passes; layers: how many are MoE."""

    experts: int
    per_token: int
    layers: int


def mixture(config: Mapping[str, Any]) -> Mixture:
    """What the config says about experts. Raises Refused for numbers that are none."""
    text = text_section(config)
    found = _experts_section(text)
    experts = found.maybe(*_EXPERTS)
    if experts < 2:
        return Mixture(0, 0, 0)
    return Mixture(experts, found.need(*_PER_TOKEN, default=2), _moe_layers(text))


def count(config: Mapping[str, Any]) -> Parameters:
    """Raises Refused where a number is missing or none."""
    text = text_section(config)
    kind = str(text.section.get("model_type") or config.get("model_type") or "")
    hidden, layers = text.need("hidden_size", "d_model", "n_embd"), layers_of(text)
    attention, attention_norms = _attention(text, kind, hidden)
    moe = mixture(config)
    dense_layers = layers - moe.layers
    mlp = dense_layers * _dense_mlp(text, kind, hidden) if dense_layers else 0
    expert, shared, router = _moe_layer(text, kind, hidden, moe) if moe.layers else (0, 0, 0)
    # Gemma 2 and 3 have a norm before and one after each of the two blocks.
    layer_norms = 4 if kind in ("gemma2", "gemma3", "gemma3_text") else 2
    embedding = text.need("vocab_size") * hidden
    tied = text.flag("tie_word_embeddings", bool(config.get("tie_word_embeddings", kind in _TIED)))
    norms = layers * (layer_norms * hidden + attention_norms) + hidden
    return Parameters(
        embedding=embedding,
        attention=layers * attention,
        mlp=mlp,
        experts=moe.layers * expert,
        shared_experts=moe.layers * shared,
        router=moe.layers * router,
        norms=norms,
        lm_head=0 if tied else embedding,
        vision=_vision(config, hidden),
        # A layer like the others, own copies of embedding and head, three norms, a projection of two inputs.
        draft=(text.maybe("num_nextn_predict_layers") if kind == "deepseek_v3" else 0)
        * (
            attention
            + attention_norms
            + expert
            + shared
            + router
            + 2 * embedding
            + 2 * hidden * hidden
            + 5 * hidden
        ),
    )


def layers_of(text: Numbers) -> int:
    return text.need("num_hidden_layers", "n_layers", "n_layer")


def heads_of(text: Numbers) -> tuple[int, int, int]:
    """Attention heads, KV heads, numbers of one head (what a key has)."""
    hidden = text.need("hidden_size", "d_model", "n_embd")
    heads = text.need("num_attention_heads", "n_heads", "n_head")
    kv_heads = text.part("attn_config").maybe("kv_n_heads")
    kv_heads = kv_heads or text.need("num_key_value_heads", default=heads)
    if text.maybe("kv_lora_rank"):
        return heads, kv_heads, text.need("qk_nope_head_dim") + text.maybe("qk_rope_head_dim")
    return heads, kv_heads, text.need("head_dim", default=max(1, hidden // heads))


def latent_of(text: Numbers) -> int:
    """Numbers that multi-head latent attention caches for a token and layer; 0: it has none."""
    rank = text.maybe("kv_lora_rank")
    return rank + text.maybe("qk_rope_head_dim") if rank else 0


def _attention(text: Numbers, kind: str, hidden: int) -> tuple[int, int]:
    """One layer's projections, and its norms inside the attention."""
    heads, kv_heads, size = heads_of(text)
    latent = text.maybe("kv_lora_rank")
    if latent:
        rope, value = text.maybe("qk_rope_head_dim"), text.need("v_head_dim")
        narrow = text.maybe("q_lora_rank")
        queries = narrow * (hidden + heads * size) if narrow else hidden * heads * size
        keys = hidden * (latent + rope) + latent * heads * (size - rope + value)
        return queries + keys + heads * value * hidden, narrow + latent
    wide, narrow = heads * size, kv_heads * size
    projections = 2 * hidden * wide + 2 * hidden * narrow
    if kind in _QKV_BIAS:
        projections += wide + 2 * narrow
    elif text.flag("attention_bias", kind == "gpt_oss"):
        projections += wide + 2 * narrow + hidden
    if kind == "gpt_oss":
        projections += heads  # attention sinks
    return projections, 2 * size if kind in _QK_NORM else 0


def _dense_mlp(text: Numbers, kind: str, hidden: int) -> int:
    size = text.need("intermediate_size_mlp", "intermediate_size", "ffn_dim", "n_inner")
    bias = 2 * size + hidden if text.flag("mlp_bias") else 0
    return 3 * hidden * size + bias


def _moe_layer(text: Numbers, kind: str, hidden: int, moe: Mixture) -> tuple[int, int, int]:
    """One MoE layer's experts, shared experts and router."""
    found = _experts_section(text)
    size = found.need("moe_intermediate_size", "ffn_hidden_size", "intermediate_size")
    experts, router, shared = moe.experts * 3 * hidden * size, hidden * moe.experts, 0
    if kind == "gpt_oss":
        experts += moe.experts * (2 * size + hidden)
        router += moe.experts
    elif kind == "deepseek_v3":
        router += moe.experts  # e_score_correction_bias
    if kind == "llama4_text":
        shared = 3 * hidden * size
    elif text.maybe("shared_expert_intermediate_size"):
        shared = 3 * hidden * text.need("shared_expert_intermediate_size") + hidden
    elif text.maybe("n_shared_experts"):
        shared = 3 * hidden * size * text.need("n_shared_experts")
    return experts, shared, router


def _experts_section(text: Numbers) -> Numbers:
    inner = text.part("ffn_config")
    return inner if inner.section.get("moe_num_experts") is not None else text


def _moe_layers(text: Numbers) -> int:
    """How many layers are MoE. Counted, not enumerated: a config may claim any number of layers."""
    layers = layers_of(text)
    first = min(layers, text.maybe("first_k_dense_replace"))
    listed = text.section.get("moe_layers")
    if isinstance(listed, list) and listed:
        return min(layers, len({item for item in listed if isinstance(item, int)}))
    if text.section.get("moe_layer_freq") is not None:
        step = text.need("moe_layer_freq")  # DeepSeek: layers 0, step, 2 * step ... from `first` on
        return -(-layers // step) - -(-first // step)
    # Llama 4 and Qwen count the last layer of each group of `step`.
    step = text.need("interleave_moe_layer_step", "decoder_sparse_step", default=1)
    dense = text.section.get("mlp_only_layers")
    left = {i for i in dense if isinstance(i, int)} if isinstance(dense, list) else set()
    exempt = sum(1 for i in left if first <= i < layers and (i + 1) % step == 0)
    return layers // step - first // step - exempt


def _vision(config: Mapping[str, Any], text_hidden: int) -> int:
    """Vision tower and projector. Exact for Llama 4, nearly so for other ViTs; 0 where there is none."""
    found = Numbers(config).part("vision_config")
    if not found.section:
        return 0
    hidden = found.maybe("hidden_size", "embed_dim")
    layers, size = found.maybe("num_hidden_layers", "depth"), found.maybe("intermediate_size")
    patch = found.maybe("patch_size", default=14)
    channels = found.maybe("num_channels", "in_channels", "in_chans", default=3)
    side = found.maybe("image_size", default=224) // max(1, patch)
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * size + size + hidden + 4 * hidden
    tower = layers * layer + channels * patch * patch * hidden + (side * side + 1) * hidden
    if found.section.get("model_type") != "llama4_vision_model":
        return tower + hidden * text_hidden
    inner, outer = found.need("projector_input_dim"), found.need("projector_output_dim")
    adapter = size * inner + inner * outer
    # The class token, and the norms before and after the layers.
    return tower + 5 * hidden + adapter + found.need("vision_output_dim") * text_hidden
