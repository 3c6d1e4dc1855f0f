"""Facts of a model, read from its config.json and its weights' headers, never from its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.errors import Problem, Refused
from trainyard.neuron import parameters
from trainyard.neuron.model_numbers import shown, text_section
from trainyard.neuron.model_quantization import BITS_OF_FORMAT, quantization_of
from trainyard.neuron.model_weights import MOST_BYTES, Weights, WeightsFrom, weights_of_index

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_DEPTH = 32

# Keys of config.json that change neither the graph nor the numbers: two configs that differ only here compile
# alike.
_COSMETIC = frozenset({"_name_or_path", "transformers_version", "architectures_note", "use_cache"})


@dataclass(frozen=True)
class ModelFacts:
    """What the preflight has to know; of a multimodal model, about its text part unless said otherwise.

    dtype: as published, as a rule bfloat16, float16 or float32 (of a quantized one, what is not quantized).
    weight_bytes: of all published tensors, a vision tower and the like too. parameters: as many numbers.
    experts: of an MoE layer, 0 if the model is dense. quantization: how the published weights are quantized:
    fp8_e4m3, fp8_e5m2, int8, awq, gptq, gguf, mxfp4, bitsandbytes, or the config's own word for another one.
    latent: numbers that multi-head latent attention caches for a token and layer, 0 for other attention.
    kept_parameters: of `parameters`, those that stay at 16 bit when the others are quantized.
    """

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
    parameters: int = 0
    experts: int = 0
    experts_per_token: int = 0
    quantization: str | None = None
    multimodal: bool = False
    gated: bool = False
    weights_from: WeightsFrom = "headers"
    latent: int = 0
    kept_parameters: int = 0

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token leaves in the cache, over all layers, each stored once."""
        numbers = self.latent or 2 * self.kv_heads * self.head_dim
        return self.layers * numbers * _size_of(self.dtype)

    def kv_bytes_per_token_on(self, tp: int) -> int:
        """The same on one of `tp` cores: KV heads fewer than cores are copied, and so is a latent."""
        if self.latent:
            return self.kv_bytes_per_token
        return self.kv_bytes_per_token // self.kv_heads * -(-self.kv_heads // tp)

    def bytes_as(self, form: str) -> int:
        """Bytes of the weights when loaded as `form`: bfloat16, float16, float32, int8, fp8_e4m3 or fp8_e5m2.

        Quantized to 8 bits, embeddings, head, router, norms and vision tower stay at 16, as engines do.
        Raises ValueError for another form.
        """
        if form == (self.quantization or self.dtype):
            return self.weight_bytes
        if form in _BYTES:
            return self.parameters * _BYTES[form]
        if form in ("int8", "fp8_e4m3", "fp8_e5m2"):
            return self.parameters + self.kept_parameters
        raise ValueError(f"no engine makes {form} of published weights")


def read_facts(
    config: Mapping[str, Any], weights: Weights | int | None, *, gated: bool = False
) -> ModelFacts:
    """Reads a Hugging Face config.json, and what is known of the weights: None reckons them from the config.

    Raises Refused: remote code, numbers that are missing or none.
    """
    _check_depth(config)
    if problem := remote_code(config):
        raise Refused(problem)
    text = text_section(config)
    heads, kv_heads, head_dim = parameters.heads_of(text)
    moe = parameters.mixture(config)
    dtype = _dtype(text.section, config)
    quantization = quantization_of(config)
    if isinstance(weights, int):
        weights = Weights(weights, source="index")
    counted = _counted(config, required=weights is None)
    numbers = _numbers(weights, counted, dtype, quantization)
    kept = min(numbers, counted.kept) if counted else 0
    if weights is None:
        size = _reckoned(numbers, kept, dtype, quantization)
    elif not 0 <= weights.total <= MOST_BYTES:
        raise _refused(
            "model.weights", shown(weights.total), "no model has so many bytes", "Check the weights."
        )
    else:
        size = weights.total
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and bool(architectures)
    return ModelFacts(
        model_type=_word(text.section.get("model_type") or config.get("model_type") or ""),
        architecture=_word(architectures[0]) if named and architectures else "",
        layers=parameters.layers_of(text),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=text.need("hidden_size", "d_model", "n_embd"),
        vocabulary=text.need("vocab_size"),
        max_positions=text.need("max_position_embeddings", "max_seq_len", "n_positions", default=4096),
        dtype=dtype,
        weight_bytes=size,
        parameters=numbers,
        experts=moe.experts,
        experts_per_token=moe.per_token,
        quantization=quantization,
        multimodal=_multimodal(config),
        gated=gated,
        weights_from="config" if weights is None else weights.source,
        latent=parameters.latent_of(text),
        kept_parameters=kept,
    )


def remote_code(config: Mapping[str, Any]) -> Problem | None:
    """The repository's own Python code is never trusted."""
    if not config.get("auto_map"):
        return None
    return Problem(
        "model.config.auto_map",
        str(config["auto_map"])[:500],
        "the repository wants its own Python code to run",
        "Trainyard never trusts remote code: use a model whose architecture the engine ships.",
    )


def graph_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of config.json that shapes the compiled graph, in the text part of a multimodal one too."""
    return {
        key: graph_config(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _COSMETIC
    }


def _check_depth(config: Mapping[str, Any]) -> None:
    """Later steps walk through the config by recursion: what is nested without end stops here."""
    layer: list[Any] = [config]
    for _ in range(_DEPTH):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, Mapping | list)
        ]
        if not layer:
            return
    raise _refused("model.config", "…", f"is nested more than {_DEPTH} deep", "Check the config.json.")


def _counted(config: Mapping[str, Any], required: bool) -> parameters.Parameters | None:
    """None where the config does not say enough, and the weights do."""
    try:
        return parameters.count(config)
    except Refused:
        if required:
            raise
        return None


def _numbers(
    weights: Weights | None, counted: parameters.Parameters | None, dtype: str, quantization: str | None
) -> int:
    # Packed formats hold several parameters in one number, and scales besides: the config knows better.
    if weights and weights.parameters and (quantization is None or counted is None):
        return sum(weights.parameters.values())
    if counted:
        return counted.total
    return weights.total // _size_of(dtype) if weights else 0


def _reckoned(numbers: int, kept: int, dtype: str, quantization: str | None) -> int:
    """Bytes of so many parameters. Scales of a quantized checkpoint (below 4 %) are not counted."""
    bits = 8 * _size_of(dtype)
    if quantization is None:
        return numbers * bits // 8
    return (kept * bits + (numbers - kept) * BITS_OF_FORMAT.get(quantization, bits)) // 8


def _dtype(*sections: Mapping[str, Any]) -> str:
    """As published; an engine says whether it takes it."""
    for section in sections:
        for key in ("torch_dtype", "dtype"):
            if section.get(key):
                return _word(section[key]).removeprefix("torch.")
    return "bfloat16"


def _size_of(dtype: str) -> int:
    return _BYTES.get(dtype, 2)


def _multimodal(config: Mapping[str, Any]) -> bool:
    parts = ("vision_config", "audio_config", "vision_tower", "mm_vision_tower", "image_token_id")
    return any(config.get(part) is not None for part in parts)


def _word(value: Any) -> str:
    return str(shown(value))


def _refused(field_: str, value: Any, rule: str, remedy: str) -> Refused:
    return Refused(Problem(field_, value, rule, remedy))


__all__ = ["ModelFacts", "Weights", "graph_config", "read_facts", "remote_code", "weights_of_index"]
