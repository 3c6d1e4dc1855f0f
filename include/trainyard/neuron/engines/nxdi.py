"""NxD Inference (legacy): `inference_demo` compiles, `vllm serve` 0.16 with its plugin serves. SDK 2.31.1.

Source: aws-neuron/neuronx-distributed-inference (inference_demo.py, models/application_base.py) and
vllm-project/vllm-neuron (worker/neuronx_distributed_model_loader.py). SDK 2.32 removed it from the images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from trainyard.neuron.engines.base import (
    Build,
    Cache,
    Command,
    Evidence,
    Holds,
    Host,
    Layout,
    Serving,
    Versions,
    platform_of,
    powers_of_two,
)
from trainyard.neuron.engines.exported import differences, read_description

_LOADED = "Successfully loaded pre-compiled model artifacts"
_RECOMPILED = "Unable to find precompiled artifacts"
_DESCRIPTION = "neuron_config.json"
_QUANTIZED = {"fp8_e4m3": "f8e4m3", "int8": "int8"}


class Nxdi:
    name = "nxdi"
    versions = Versions(engine="0.16.0", compiler="2.26.6360.0", sdk="2.31.1", vllm="0.16.0")
    families = frozenset({"trn1", "trn1n", "trn2", "trn2u", "inf2"})
    # What inference_demo compiles. The library also knows llama4, but only vLLM's start compiles that one.
    model_types = frozenset(
        {"llama", "mistral", "mixtral", "dbrx", "qwen2", "qwen3", "qwen3_moe", "gemma3", "gemma3_text"}
    )
    images_too: frozenset[str] = frozenset()
    dtypes = frozenset({"bfloat16", "float16", "float32"})
    loads_quantized: Mapping[str, frozenset[str]] = {}
    # Per channel, symmetric. The FP8 matrix units came with Trainium2.
    quantizes: Mapping[str, frozenset[str]] = {
        "fp8_e4m3": frozenset({"trn2"}),
        "int8": frozenset({"trn1", "trn2"}),
    }
    holds: tuple[Holds, ...] = ("weights", "graph")
    cache: Cache = "neuronx"
    pads_heads = True
    min_batch = 2
    running_metrics: tuple[str, ...] = ("vllm:num_requests_running", "vllm:num_requests_waiting")

    def image(self, region: str) -> str:
        return (
            "public.ecr.aws/neuron/pytorch-inference-vllm-neuronx:0.16.0-neuronx-py312-sdk2.31.1-ubuntu24.04"
        )

    def lncs(self, target: str) -> tuple[int, ...]:
        return (2, 1) if target == "trn2" else (1,)

    def tensor_parallels(self, cores: int) -> tuple[int, ...]:
        return powers_of_two(min(cores, 128))

    def host(self, weight_bytes: int, build: Build) -> Host:
        # Weights are read where they are sharded: while compiling, or by every server that starts.
        sharding = 2 * weight_bytes
        if build.holds == "weights":
            return Host(compiling=sharding, serving=weight_bytes)
        return Host(compiling=sharding if build.quantization else 0, serving=sharding)

    def compile_command(self, build: Build) -> Command:
        quantized: tuple[str, ...] = ()
        if build.quantization:
            quantized = (
                "--quantized",
                "--quantization-dtype", _QUANTIZED[build.quantization],
                "--quantization-type", "per_channel_symmetric",
                # Beside the set: what is served is the shards.
                "--quantized-checkpoints-path", f"{build.model_dir}-quantized",
            )  # fmt: skip
        argv = (
            "inference_demo",
            "--model-type", "gemma3" if build.model_type == "gemma3_text" else build.model_type,
            "--task-type", "causal-lm",
            "run",
            "--model-path", build.model_dir,
            "--compiled-model-path", build.output_dir,
            "--torch-dtype", build.dtype,
            "--tp-degree", str(build.tensor_parallel),
            "--logical-nc-config", str(build.lnc),
            "--batch-size", str(build.batch_size),
            "--ctx-batch-size", "1",
            "--tkg-batch-size", str(build.batch_size),
            "--max-context-length", str(build.sequence_length),
            "--seq-len", str(build.sequence_length),
            "--is-continuous-batching",
            "--enable-bucketing",
            # vLLM hands sampling parameters over with every request.
            "--on-device-sampling", "--dynamic",
            "--padding-side", "right",
            *quantized,
            *(("--save-sharded-checkpoint",) if build.holds == "weights" else ()),
            "--compile-only",
            "--prompt", "Hello",  # required by its parser; nothing is generated
        )  # fmt: skip
        env = {
            "HF_HUB_OFFLINE": "1",
            "NEURON_COMPILE_CACHE_URL": build.cache_dir,
            "NEURON_PLATFORM_TARGET_OVERRIDE": platform_of(build),
            **_platform(build),
        }
        return Command(argv, env)

    def lookup_command(self, repo: str, cache_repo: str, build: Build) -> Command | None:
        return None  # the Hub's cache holds what optimum-neuron compiled

    def expects(self, build: Build) -> Mapping[str, int]:
        files = {_DESCRIPTION: 1, "model.pt": 1}
        if build.holds == "weights":
            files["weights/tp*_sharded_checkpoint.safetensors"] = build.tensor_parallel
        return files

    def problems_of_bundle(
        self, files: Mapping[str, int], read: Callable[[str], bytes], build: Build
    ) -> list[str]:
        config = read_description(read, _DESCRIPTION)
        if isinstance(config, str):
            return [config]
        neuron = config.get("neuron_config")
        if not isinstance(neuron, dict):
            return [f"{_DESCRIPTION} has no neuron_config"]
        wanted = {
            "tp_degree": build.tensor_parallel,
            "max_batch_size": build.batch_size,
            "seq_len": build.sequence_length,
            "logical_nc_config": build.lnc,
            "is_continuous_batching": True,
            "save_sharded_checkpoint": build.holds == "weights",
            "quantized": build.quantization is not None,
        }
        found = {key: neuron.get(key) for key in wanted}
        # A flag that was not given may be absent.
        found["quantized"] = bool(found["quantized"])
        found["save_sharded_checkpoint"] = bool(found["save_sharded_checkpoint"])
        return differences(_DESCRIPTION, found, found, wanted)

    def layout(self, holds: Holds) -> Layout:
        # Pre-compiled artifacts are loaded as a model of their own: weights that are not among them are
        # looked for in the same directory.
        return Layout(bundle="", model_files="without_weights" if holds == "weights" else "all")

    def serve_command(self, serving: Serving) -> Command:
        build = serving.build
        override = {
            "override_neuron_config": {
                "logical_nc_config": build.lnc,
                "save_sharded_checkpoint": build.holds == "weights",
            }
        }
        argv = (
            "vllm", "serve", serving.directory,
            "--served-model-name", serving.name,
            "--port", str(serving.port),
            "--tensor-parallel-size", str(build.tensor_parallel),
            "--max-model-len", str(build.sequence_length),
            "--max-num-seqs", str(build.batch_size),
            "--num-gpu-blocks-override", str(build.batch_size),
            # Blocks of a prefix cache are another layout of the KV cache than the one that was compiled.
            "--no-enable-prefix-caching",
            "--additional-config", json.dumps(override, sort_keys=True),
        )  # fmt: skip
        env = {
            "HF_HUB_OFFLINE": "1",
            "NEURON_COMPILED_ARTIFACTS": serving.directory,
            **_platform(build),
        }
        return Command(argv, env)

    def doubts(self, evidence: Evidence, build: Build) -> list[str]:
        # A set that cannot be loaded is silently compiled again: only these two lines tell.
        for line in evidence.log.splitlines():
            if _RECOMPILED in line:
                return [f"its log says {line.strip()!r}"]
        if _LOADED not in evidence.log:
            return [f"its log does not say {_LOADED!r}"]
        return []


def _platform(build: Build) -> dict[str, str]:
    # Wins over --logical-nc-config, so the two are said alike; a node's own default may be another.
    return {"NEURON_LOGICAL_NC_CONFIG": str(build.lnc)} if build.target == "trn2" else {}


ENGINE = Nxdi()
