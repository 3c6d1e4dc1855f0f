"""Architectures besides Llama: what differs in `config.json` and in the names of tensors.

Names are those of published checkpoints, which transformers still reads: experts of Mixtral and Qwen3 are
tensors of their own, those of Llama 4 one tensor a layer, below `language_model`.
Qwen3-VL has a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.checkpoints import qwen3_vl
from local.checkpoints.shape import Shape, Tensor
from local.checkpoints.tokenizer import CHAT_TEMPLATE

Config = dict[str, Any]
ACTIVE_EXPERTS = 2


@dataclass(frozen=True)
class Family:
    """One architecture: its configuration made of a Llama's, and its tensors.

    files: what else lies beside config.json. tokens: special ones after those of all. template: of chats.
    """

    config: Callable[[Shape, Config], Config]
    tensors: Callable[[Shape], Iterator[Tensor]]
    files: Mapping[str, Config] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    template: str = CHAT_TEMPLATE


def _named(model_type: str, architecture: str, config: Config, **more: Any) -> Config:
    return config | {"architectures": [architecture], "model_type": model_type} | more


def _mistral(shape: Shape, config: Config) -> Config:
    return _named("mistral", "MistralForCausalLM", config, sliding_window=None)


def _mixtral(shape: Shape, config: Config) -> Config:
    more = {"num_local_experts": shape.experts, "num_experts_per_tok": min(ACTIVE_EXPERTS, shape.experts)}
    return _named(
        "mixtral", "MixtralForCausalLM", config, router_aux_loss_coef=0.02, sliding_window=None, **more
    )


def _mixtral_tensors(shape: Shape) -> Iterator[Tensor]:
    def experts(layer: str) -> Iterator[Tensor]:
        yield f"{layer}.block_sparse_moe.gate.weight", (shape.experts, shape.hidden)
        for number in range(shape.experts):
            expert = f"{layer}.block_sparse_moe.experts.{number}"
            yield f"{expert}.w1.weight", (shape.intermediate, shape.hidden)
            yield f"{expert}.w2.weight", (shape.hidden, shape.intermediate)
            yield f"{expert}.w3.weight", (shape.intermediate, shape.hidden)

    return shape.decoder(experts)


def _qwen3(shape: Shape, config: Config) -> Config:
    return _named("qwen3", "Qwen3ForCausalLM", config, sliding_window=None, use_sliding_window=False)


def _qwen3_moe(shape: Shape, config: Config) -> Config:
    return _named(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        config,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        moe_intermediate_size=shape.intermediate,
        norm_topk_prob=True,
        num_experts=shape.experts,
        num_experts_per_tok=min(ACTIVE_EXPERTS, shape.experts),
    )


def _qwen3_moe_tensors(shape: Shape) -> Iterator[Tensor]:
    def experts(layer: str) -> Iterator[Tensor]:
        yield f"{layer}.mlp.gate.weight", (shape.experts, shape.hidden)
        for number in range(shape.experts):
            yield from shape.dense(layer, f"mlp.experts.{number}")

    return shape.decoder(experts, norms=True)


def _llama4(shape: Shape, config: Config) -> Config:
    """The text part, below a multimodal configuration; there are no tensors of a vision tower."""
    text = _named(
        "llama4_text",
        "Llama4ForCausalLM",
        config,
        attention_chunk_size=8192,
        interleave_moe_layer_step=1,
        intermediate_size_mlp=shape.intermediate,
        moe_layers=list(range(shape.layers)),
        no_rope_layers=[1] * shape.layers,
        num_experts_per_tok=1,
        num_local_experts=shape.experts,
        use_qk_norm=False,
    )
    return {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "text_config": {name: value for name, value in text.items() if name != "architectures"},
        "torch_dtype": "bfloat16",
        "transformers_version": config["transformers_version"],
        "vision_config": {"model_type": "llama4_vision_model"},
    }


def _llama4_tensors(shape: Shape) -> Iterator[Tensor]:
    def experts(layer: str) -> Iterator[Tensor]:
        module = f"{layer}.feed_forward"
        yield f"{module}.router.weight", (shape.experts, shape.hidden)
        yield f"{module}.experts.gate_up_proj", (shape.experts, shape.hidden, 2 * shape.intermediate)
        yield f"{module}.experts.down_proj", (shape.experts, shape.intermediate, shape.hidden)
        yield from shape.dense(layer, "feed_forward.shared_expert")

    return shape.decoder(experts, prefix="language_model.")


FAMILIES = {
    "llama": Family(lambda shape, config: config, lambda shape: shape.decoder(shape.dense)),
    "mistral": Family(_mistral, lambda shape: shape.decoder(shape.dense)),
    "mixtral": Family(_mixtral, _mixtral_tensors),
    "qwen3": Family(_qwen3, lambda shape: shape.decoder(shape.dense, norms=True)),
    "qwen3_moe": Family(_qwen3_moe, _qwen3_moe_tensors),
    "qwen3_vl": Family(
        qwen3_vl.config,
        qwen3_vl.tensors,
        files=qwen3_vl.processors(),
        tokens=qwen3_vl.VISION_TOKENS,
        template=qwen3_vl.CHAT_TEMPLATE,
    ),
    "llama4": Family(_llama4, _llama4_tensors),
}
