"""From a spec to what it asks of the hardware."""

from __future__ import annotations

from trainyard.neuron.rule import Ask
from trainyard.spec import Spec, bytes_of


def ask_of(spec: Spec) -> Ask:
    return Ask(
        tensor_parallel=spec.hardware.tensor_parallel,
        batch_size=spec.compile.batch_size,
        sequence_length=spec.compile.sequence_length,
        compile_memory_bytes=bytes_of(spec.compile.memory),
        serve_memory_bytes=bytes_of(spec.serving.memory),
        lnc=spec.hardware.lnc,
        holds=spec.compile.bundle.holds,
        quantization=spec.compile.quantization,
        has_token=spec.model.token_secret is not None,
        compile_cpus=spec.compile.cpu,
        serve_cpus=spec.serving.cpu,
        nodepool=spec.hardware.nodepool,
        longest_request=spec.rollout.load.longest_request,
        shows_images=spec.rollout.load.images is not None,
    )
