"""Facts of a model, read from its config.json, never from its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.errors import Problem, Refused

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}

# Keys of config.json that change neither the graph nor the numbers: two configs that differ only here compile
# alike.
_COSMETIC = frozenset({"_name_or_path", "transformers_version", "architectures_note", "use_cache"})


@dataclass(frozen=True)
class ModelFacts:
    """What the preflight has to know. weight_bytes: of all safetensors shards."""

    model_type: str
    architecture: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    max_positions: int
    dtype: str
    weight_bytes: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token leaves in the cache, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * _BYTES.get(self.dtype, 2)


def read_facts(config: Mapping[str, Any], weight_bytes: int) -> ModelFacts:
    """Reads a Hugging Face config.json (text configs; `text_config` of multimodal ones). Raises Refused."""
    if config.get("auto_map"):
        raise Refused(
            Problem(
                "model.config.auto_map",
                str(config["auto_map"]),
                "the repository wants its own Python code to run",
                "Trainyard never trusts remote code: use a model whose architecture the engine ships.",
            )
        )
    inner = config.get("text_config") if isinstance(config.get("text_config"), Mapping) else config
    assert inner is not None

    def number(key: str, default: int | None = None) -> int:
        value = inner.get(key)
        if value is None:
            # transformers writes null where it means its default.
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise Refused(
                Problem(
                    f"model.config.{key}",
                    value,
                    "must be a positive whole number",
                    "Check the model's config.json: without it nothing can be planned.",
                )
            )
        return value

    heads, hidden = number("num_attention_heads"), number("hidden_size")
    architectures = config.get("architectures")
    return ModelFacts(
        model_type=str(inner.get("model_type") or config.get("model_type") or ""),
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        layers=number("num_hidden_layers"),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // heads),
        hidden=hidden,
        vocabulary=number("vocab_size"),
        max_positions=number("max_position_embeddings", 4096),
        dtype=str(inner.get("torch_dtype") or inner.get("dtype") or config.get("torch_dtype") or "bfloat16"),
        weight_bytes=weight_bytes,
    )


def graph_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of config.json that shapes the compiled graph, in the text part of a multimodal one too."""
    return {
        key: graph_config(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _COSMETIC
    }
