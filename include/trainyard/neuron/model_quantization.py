"""How the published weights are quantized, in one word, from config.json's `quantization_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard.neuron.model_numbers import shown

# Bits of one quantized weight. bitsandbytes: of its 4-bit form, which its configs name apart.
BITS_OF_FORMAT = {
    "fp8_e4m3": 8, "fp8_e5m2": 8, "int8": 8, "awq": 4, "gptq": 4, "gguf": 4, "mxfp4": 4, "bitsandbytes": 8,
}  # fmt: skip


def quantization_of(config: Mapping[str, Any]) -> str | None:
    """A canonical format, or the config's own word where there is none: engines list what they know.

    Source: the quantizers of transformers 4.57, compressed-tensors' and modelopt's descriptions.
    """
    found = _section(config)
    if found is None:
        return None
    method = found.get("quant_method")
    name = str(shown(method)).lower() if isinstance(method, str) and method else "unknown"
    if name in ("fp8", "fbgemm_fp8", "finegrained_fp8"):
        return "fp8_e5m2" if str(found.get("fmt", "")).lower() == "e5m2" else "fp8_e4m3"
    if name == "compressed-tensors":
        return _compressed(found)
    if name == "modelopt":
        algorithm = str(shown(found.get("quant_algo") or "")).lower()
        return "fp8_e4m3" if algorithm.startswith("fp8") else algorithm or name
    if name == "eetq":
        return "int8"
    return name


def _section(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    sections = [config, *(config.get(part) for part in ("text_config", "language_config", "llm_config"))]
    for section in sections:
        if not isinstance(section, Mapping):
            continue
        for key in ("quantization_config", "compression_config"):
            found = section.get(key)
            if isinstance(found, Mapping) and found:
                return found
            if found:
                return {"quant_method": str(shown(found))}
    return None


def _compressed(found: Mapping[str, Any]) -> str:
    """compressed-tensors: config_groups.<name>.weights = {num_bits, type}."""
    groups = found.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            bits, kind = weights.get("num_bits"), weights.get("type", "int")
            if bits == 8 and kind == "float":
                return "fp8_e4m3"
            if bits in (4, 8) and kind in ("int", "float"):
                return {"int": "int", "float": "fp"}[kind] + str(bits)
    return "compressed-tensors"
