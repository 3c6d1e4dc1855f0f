"""Sets that `optimum-cli export neuron` writes: what optimum and tgi share.

Source: huggingface/optimum-neuron v0.4.5 (exporters, NxDNeuronConfig, its own cache job's command line).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from trainyard.neuron.engines.base import Build, Command, Host, Versions

MODEL_TYPES = frozenset(
    {"granite", "llama", "llama4_text", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3"}
)
DTYPES = frozenset({"bfloat16", "float16", "float32"})
_DESCRIPTION = "neuron_config.json"


def export_command(build: Build) -> Command:
    # The CLI takes the family, not the size, and turns inf2 and trn1n into trn1 by itself. It does not know
    # trn2u, whose chips are those of trn2.
    argv = (
        "optimum-cli", "export", "neuron",
        "-m", build.model_dir,
        "--instance_type", build.instance_family.removesuffix("u"),
        "--batch_size", str(build.batch_size),
        "--sequence_length", str(build.sequence_length),
        "--tensor_parallel_size", str(build.tensor_parallel),
        "--task", "text-generation",
        build.output_dir,
    )  # fmt: skip
    return Command(argv, {"HF_HUB_OFFLINE": "1", "NEURON_COMPILE_CACHE_URL": build.cache_dir})


def lookup_command(repo: str, cache_repo: str, build: Build) -> Command:
    argv = (
        "optimum-cli", "neuron", "cache", "lookup", repo,
        "--task", "text-generation",
        "--instance_type", build.instance_family.removesuffix("u"),
        *(("--dtype", build.dtype) if build.dtype in ("bfloat16", "float16") else ()),
        "--tensor_parallel_size", str(build.tensor_parallel),
        "--batch_size", str(build.batch_size),
        "--sequence_length", str(build.sequence_length),
        "--repo_id", cache_repo,
    )  # fmt: skip
    return Command(argv, {})


def expects(build: Build) -> Mapping[str, int]:
    # An export from a local directory writes the sharded weights; one from a Hub id does not, but then every
    # server would download the checkpoint again.
    return {
        _DESCRIPTION: 1,
        "config.json": 1,
        "model.pt": 1,
        "checkpoint/weights/tp*_sharded_checkpoint.safetensors": build.tensor_parallel,
    }


def problems(
    files: Mapping[str, int], read: Callable[[str], bytes], build: Build, versions: Versions
) -> list[str]:
    """Loading fails hard on another version, target or shape: said here, before a node is bought for it."""
    config = read_description(read, _DESCRIPTION)
    if isinstance(config, str):
        return [config]
    wanted = {
        "optimum_neuron_version": versions.engine,
        "tp_degree": build.tensor_parallel,
        "batch_size": build.batch_size,
        "sequence_length": build.sequence_length,
        "target": build.target,
        "neuronxcc_version": versions.compiler,
    }
    # The compiler adds its build (2.21.33363.0+82129205), which its release already fixes.
    found = {key: config.get(key) for key in wanted}
    found["neuronxcc_version"] = str(found["neuronxcc_version"]).partition("+")[0]
    return differences(_DESCRIPTION, {key: config.get(key) for key in wanted}, found, wanted)


def host(weight_bytes: int) -> Host:
    # Sharding holds the checkpoint and its shards; a server reads the shards that it gives to the devices.
    return Host(compiling=2 * weight_bytes, serving=weight_bytes)


def read_description(read: Callable[[str], bytes], path: str) -> Mapping[str, object] | str:
    """A JSON object of the set; a text that says what is wrong with it where it is none."""
    try:
        config = json.loads(read(path))
    except (ValueError, RecursionError) as error:
        return f"{path} is no JSON ({error})"
    return config if isinstance(config, dict) else f"{path} holds no object"


def differences(
    path: str, said: Mapping[str, object], found: Mapping[str, object], wanted: Mapping[str, object]
) -> list[str]:
    return [
        f"{path} says {key} = {said[key]!r}, planned was {value!r}"
        for key, value in wanted.items()
        if found[key] != value
    ]
