"""Builds that the engines' tests share."""

from __future__ import annotations

from dataclasses import replace

from trainyard.neuron.engines.base import Build, Evidence, Serving

TRN2 = Build(
    tensor_parallel=64,
    lnc=2,
    batch_size=8,
    sequence_length=4096,
    instance_family="trn2",
    target="trn2",
    model_type="llama",
    dtype="bfloat16",
    holds="weights",
    quantization=None,
    model_dir="/pod/model",
    output_dir="/pod/out",
    cache_dir="/pod/cache",
)
INF2 = replace(TRN2, tensor_parallel=8, lnc=1, instance_family="inf2", target="trn1")
GRAPH = replace(TRN2, holds="graph")


def serving(build: Build) -> Serving:
    return Serving("/models/llama-1", "llama", 8000, build, grace_seconds=120)


def evidence(
    log: str = "", metrics: str = "", files: tuple[str, ...] = (), published: tuple[str, ...] = ()
) -> Evidence:
    return Evidence(log, metrics, frozenset(files), frozenset(published))
