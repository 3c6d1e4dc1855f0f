"""`vllm_neuron:*` beside vLLM's own series. Source: the plugin's vllm_neuron/metrics.py.

Compilation time is that of a bucket's warm-up, so a cache hit has one too: it is never 0 and proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from local.shims.native.buckets import Buckets
from local.shims.server.metrics import Metrics, Series


@dataclass(frozen=True)
class Start:
    """How the server came up: seconds by bucket, seconds of everything, seconds and bytes of the weights."""

    model: str  # the path, which labels these series; vLLM's own have the served name
    buckets: Buckets
    compilation: Mapping[str, float]
    startup: float
    load_seconds: float
    load_bytes: int


class NativeMetrics(Metrics):
    """vLLM's series and the plugin's."""

    def __init__(self, model: str, max_model_len: int, start: Start) -> None:
        super().__init__(model, max_model_len)
        self._start = start
        self._executions = Series(
            "counter", "vllm_neuron:neff_execution_count_total", "Number of NEFF executions."
        )
        self._compilation = Series(
            "gauge",
            "vllm_neuron:compilation_time_seconds",
            "Time spent compiling Neuron graphs (FX trace + neuronxcc compile). Includes compile cache hits.",
        )
        for bucket, seconds in start.compilation.items():
            self._compilation.inc(seconds, model_name=start.model, bucket_name=bucket)
        self._gauges = [
            _gauge(name, text, value, start.model)
            for name, text, value in (
                (
                    "startup_time_seconds",
                    "Total server startup time from worker spawn to ready.",
                    start.startup,
                ),
                (
                    "model_load_time_seconds",
                    "Time spent loading model weights to device.",
                    start.load_seconds,
                ),
                ("model_load_size_bytes", "Size of model weights transferred to device.", start.load_bytes),
            )
        ]

    def stepped(self, kind: str, size: int) -> None:
        chosen = self._start.buckets.prefill(size) if kind == "encode" else self._start.buckets.decode(size)
        self._executions.inc(1, model_name=self._start.model, bucket_name=chosen)

    def render(self) -> str:
        own = [self._executions, self._compilation, *self._gauges]
        return super().render() + "\n".join(line for series in own for line in series.render({})) + "\n"


def _gauge(name: str, text: str, value: float, model: str) -> Series:
    series = Series("gauge", f"vllm_neuron:{name}", text)
    series.inc(value, model_name=model)
    return series
