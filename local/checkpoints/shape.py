"""What a checkpoint looks like: sizes, and the configuration and tensors that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

BYTE_TOKENS = 256
Tensor = tuple[str, tuple[int, ...]]
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")
ARCHITECTURES = ("llama", "mistral", "mixtral", "qwen3", "qwen3_moe", "qwen3_vl", "llama4")
SMALLEST_VOCABULARY = BYTE_TOKENS + len(SPECIAL_TOKENS)


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder; the defaults make 3.1 MB of BF16 that tensor parallelism of 4 divides evenly.

    architecture: one of `families.FAMILIES`. experts: of a layer, in architectures that have them.
    """

    layers: int = 2
    hidden: int = 256
    intermediate: int = 512
    heads: int = 4
    kv_heads: int = 4
    vocab: int = SMALLEST_VOCABULARY
    max_positions: int = 4096
    shards: int = 2
    experts: int = 4
    architecture: str = "llama"

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that no decoder can have."""
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"architecture {self.architecture!r} is unknown: give one of {known}")
        for name in (
            "layers",
            "hidden",
            "intermediate",
            "heads",
            "kv_heads",
            "max_positions",
            "shards",
            "experts",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a positive number")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not divisible by heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not divisible by kv_heads {self.kv_heads}")
        if (self.hidden // self.heads) % 2:
            raise ValueError(f"head size {self.hidden // self.heads} is odd: rotary embeddings need pairs")
        if self.vocab < SMALLEST_VOCABULARY:
            raise ValueError(
                f"vocab {self.vocab} is below {SMALLEST_VOCABULARY}: 256 bytes and 3 special tokens"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def config(self) -> dict[str, Any]:
        """`config.json` as transformers writes it for the architecture."""
        from local.checkpoints.families import FAMILIES

        return FAMILIES[self.architecture].config(self, self._llama())

    def tensors(self) -> Iterator[Tensor]:
        """Name and shape of every tensor, in the order of the forward pass."""
        from local.checkpoints.families import FAMILIES

        return FAMILIES[self.architecture].tensors(self)

    def _llama(self) -> dict[str, Any]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": BYTE_TOKENS,
            "eos_token_id": BYTE_TOKENS + 1,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.max_positions,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": BYTE_TOKENS + 2,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.57.1",
            "use_cache": True,
            "vocab_size": self.vocab,
        }

    def decoder(
        self, feed_forward: Callable[[str], Iterable[Tensor]], prefix: str = "", norms: bool = False
    ) -> Iterator[Tensor]:
        """A decoder whose layers end with `feed_forward(layer)`; `norms`: query and key have one each."""
        kv = self.kv_heads * self.head_dim
        yield f"{prefix}model.embed_tokens.weight", (self.vocab, self.hidden)
        for index in range(self.layers):
            layer = f"{prefix}model.layers.{index}"
            yield f"{layer}.input_layernorm.weight", (self.hidden,)
            yield f"{layer}.self_attn.q_proj.weight", (self.hidden, self.hidden)
            yield f"{layer}.self_attn.k_proj.weight", (kv, self.hidden)
            yield f"{layer}.self_attn.v_proj.weight", (kv, self.hidden)
            yield f"{layer}.self_attn.o_proj.weight", (self.hidden, self.hidden)
            if norms:
                yield f"{layer}.self_attn.q_norm.weight", (self.head_dim,)
                yield f"{layer}.self_attn.k_norm.weight", (self.head_dim,)
            yield f"{layer}.post_attention_layernorm.weight", (self.hidden,)
            yield from feed_forward(layer)
        yield f"{prefix}model.norm.weight", (self.hidden,)
        yield f"{prefix}lm_head.weight", (self.vocab, self.hidden)

    def dense(self, layer: str, module: str = "mlp") -> Iterator[Tensor]:
        """A gated feed-forward network."""
        yield f"{layer}.{module}.gate_proj.weight", (self.intermediate, self.hidden)
        yield f"{layer}.{module}.up_proj.weight", (self.intermediate, self.hidden)
        yield f"{layer}.{module}.down_proj.weight", (self.hidden, self.intermediate)
