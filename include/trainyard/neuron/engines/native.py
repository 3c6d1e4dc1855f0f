"""The native vLLM Neuron plugin (beta): vLLM 0.24, SDK 2.32, Trainium2 and later only.

`vllm serve` itself compiles, without devices, when VLLM_NEURON_CPU_COMPILE says so. Source: the plugin's
configuration reference, "Compilation cache" and "CPU compilation" of the Neuron SDK's documentation.
"""

from __future__ import annotations

import json
import re
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
    powers_of_two,
)

_CACHE = "neuron/compile_cache"
# Compilation time in /metrics counts cache hits, too: only the log tells them apart.
_HIT = "Local cache hit for key"
_COMPILED = re.compile(r"\bCompiling\.\.\.|Remote cache hit for key")
_WARM = "Model warmup completed"
_BLOCK = 32  # tokens
_MOST_BATCHED_TOKENS = 4096
_LEAST_BUCKET = 128
_COMPILE_SECONDS = 3600


class Native:
    name = "native"
    versions = Versions(engine="1.1.0", compiler="2.27.5334.0", sdk="2.32.0", vllm="0.24.0")
    families = frozenset({"trn2", "trn2u", "trn3"})
    model_types = frozenset({"llama", "gpt_oss", "qwen3", "qwen3_vl", "qwen3_vl_text"})
    images_too = frozenset({"qwen3_vl", "qwen3_vl_text"})
    dtypes = frozenset({"bfloat16"})
    # gpt-oss is published in MXFP4 only.
    loads_quantized: Mapping[str, frozenset[str]] = {"mxfp4": frozenset({"trn2", "trn3"})}
    quantizes: Mapping[str, frozenset[str]] = {}
    holds: tuple[Holds, ...] = ("graph",)
    cache: Cache = "vllm"
    pads_heads = False
    min_batch = 1
    running_metrics: tuple[str, ...] = ("vllm:num_requests_running", "vllm:num_requests_waiting")

    def image(self, region: str) -> str:
        return (
            "public.ecr.aws/neuron/pytorch-inference-vllm-neuronx:"
            "0.24.0.1.1.0-neuronx-py313-sdk2.32.0-ubuntu24.04"
        )

    def lncs(self, target: str) -> tuple[int, ...]:
        return (2, 1)

    def tensor_parallels(self, cores: int) -> tuple[int, ...]:
        return powers_of_two(min(cores, 64))

    def host(self, weight_bytes: int, build: Build) -> Host:
        # Compiling traces shapes only; a server shards the plain checkpoint when it starts.
        return Host(compiling=0, serving=2 * weight_bytes)

    def compile_command(self, build: Build) -> Command:
        env = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_CACHE_ROOT": build.output_dir,
            "VLLM_NEURON_CPU_COMPILE": "1",
            "NEURON_PLATFORM_TARGET_OVERRIDE": build.target,
            "VLLM_NEURON_COMPILATION_TIMEOUT": str(_COMPILE_SECONDS),
            "NEURON_LIBTORCH_COMPILATION_TIMEOUT": str(_COMPILE_SECONDS),  # its newer name
            "NEURON_LOGICAL_NC_CONFIG": str(build.lnc),
        }
        # It comes up as a server without devices, and stays until it is told to end.
        return Command(("vllm", "serve", build.model_dir, *_shapes(build)), env, until=_WARM)

    def lookup_command(self, repo: str, cache_repo: str, build: Build) -> Command | None:
        return None

    def expects(self, build: Build) -> Mapping[str, int]:
        # One graph a bucket, each in a folder named by its digest. The last file of one is the empty one.
        tokens, sequences = _buckets(build)
        graphs = len(tokens) + len(sequences)
        return {f"{_CACHE}/*/graph_*.neff": graphs, f"{_CACHE}/*/.compilation_complete": graphs}

    def problems_of_bundle(
        self, files: Mapping[str, int], read: Callable[[str], bytes], build: Build
    ) -> list[str]:
        """A cache describes itself by digests only; what does not fit is a miss, which ends a server."""
        graphs = {path: size for path, size in files.items() if path.endswith(".neff")}
        empty = [f"{path} is empty" for path, size in graphs.items() if size == 0]
        complete = {path.rpartition("/")[0] for path in files if path.endswith("/.compilation_complete")}
        unfinished = sorted(path for path in graphs if path.rpartition("/")[0] not in complete)
        return empty + [f"{path} was not finished" for path in unfinished]

    def layout(self, holds: Holds) -> Layout:
        return Layout(bundle=".cache", model_files="all")

    def serve_command(self, serving: Serving) -> Command:
        build = serving.build
        argv = (
            "vllm", "serve", serving.directory,
            "--served-model-name", serving.name,
            "--port", str(serving.port),
            *_shapes(build),
            "--shutdown-timeout", str(serving.grace_seconds),
        )  # fmt: skip
        env = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_CACHE_ROOT": f"{serving.directory}{self.layout(build.holds).bundle}",
            # A miss is fatal: a server never compiles.
            "VLLM_NEURON_DISABLE_WARMUP_COMPILE": "1",
            "NEURON_LIBTORCH_DISABLE_GRAPH_CAPTURE_BACKEND": "1",
            "NEURON_SKIP_EFA_AFFINITY": "1",  # pods have no EFA device
            "NEURON_LOGICAL_NC_CONFIG": str(build.lnc),
        }
        return Command(argv, env)

    def doubts(self, evidence: Evidence, build: Build) -> list[str]:
        found = []
        graphs = {path for path in evidence.files if path.startswith(f"{_CACHE}/") and path.endswith(".neff")}
        if new := sorted(graphs - evidence.published):
            found.append(f"its cache holds {len(new)} graph(s) that were not published, such as {new[0]}")
        compiled = [line.strip() for line in evidence.log.splitlines() if _COMPILED.search(line)]
        if compiled:
            found.append(f"its log says {compiled[0]!r}")
        elif _HIT not in evidence.log:
            found.append(f"its log does not say {_HIT!r}")
        return found


def _buckets(build: Build) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prefill sizes in tokens, decode sizes in sequences. The largest must equal what the server is told."""
    most = min(build.sequence_length, _MOST_BATCHED_TOKENS)
    tokens = tuple(sorted({*powers_of_two(most, _LEAST_BUCKET), most}))
    sequences = tuple(sorted({*powers_of_two(build.batch_size), build.batch_size}))
    return tokens, sequences


def _shapes(build: Build) -> tuple[str, ...]:
    """Alike for compiling and serving: another shape is another graph, and so a miss."""
    tokens, sequences = _buckets(build)
    config = {"neuron_config": {"num_batched_tokens_buckets": tokens, "num_seqs_buckets": sequences}}
    return (
        "--tensor-parallel-size", str(build.tensor_parallel),
        "--max-model-len", str(build.sequence_length),
        "--max-num-batched-tokens", str(tokens[-1]),
        "--max-num-seqs", str(build.batch_size),
        # The number of blocks is a shape, too, and a host without devices would find another one.
        "--block-size", str(_BLOCK),
        "--num-gpu-blocks-override", str(build.batch_size * -(-build.sequence_length // _BLOCK)),
        "--additional-config", json.dumps(config, sort_keys=True),
    )  # fmt: skip


ENGINE = Native()
