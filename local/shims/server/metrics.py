"""vLLM's Prometheus series in the text format: names, labels and buckets of vllm/v1/metrics/loggers.py."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator

import psutil

# FinishReason of vllm/v1/engine/__init__.py, and since which release each has been there. `error` came
# between 0.11 and 0.16 (vllm-project/vllm#26813), `repetition` with 0.17.
REASONS = {"stop": (0, 0), "length": (0, 0), "abort": (0, 0), "error": (0, 13), "repetition": (0, 17)}
# What vLLM's instrumentator leaves out, and what it calls a path that there is not.
UNCOUNTED, NO_HANDLER = ("/metrics", "/health", "/load", "/ping", "/version", "/server_info"), "none"
Bounds = tuple[float, ...]
FIRST_TOKEN: Bounds = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5)
FIRST_TOKEN += (10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)
INTER_TOKEN: Bounds = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5)
INTER_TOKEN += (10.0, 20.0, 40.0, 80.0)
REQUEST: Bounds = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0)
REQUEST += (240.0, 480.0, 960.0, 1920.0, 7680.0)


class Series:
    """A counter or a gauge: one value for each set of extra labels."""

    def __init__(self, kind: str, name: str, help_text: str) -> None:
        self.kind, self.name, self.help_text = kind, name, help_text
        self.values: dict[tuple[tuple[str, str], ...], float] = {}

    def inc(self, amount: float, **labels: str) -> None:
        key = tuple(labels.items())
        self.values[key] = self.values.get(key, 0.0) + amount

    def set(self, value: float) -> None:
        self.values[()] = value

    def render(self, labels: dict[str, str]) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help_text}"
        yield f"# TYPE {self.name} {self.kind}"
        for extra, value in self.values.items():
            yield f"{self.name}{{{_labels({**labels, **dict(extra)})}}} {value}"


class Histogram:
    """Observations counted by upper bound."""

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...]) -> None:
        self.name, self.help_text, self.bounds = name, help_text, bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def render(self, labels: dict[str, str]) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help_text}"
        yield f"# TYPE {self.name} histogram"
        counted = 0
        bounds = [*map(str, self.bounds), "+Inf"]
        for bound, count in zip(bounds, self.counts, strict=True):
            counted += count
            yield f"{self.name}_bucket{{{_labels({**labels, 'le': bound})}}} {float(counted)}"
        yield f"{self.name}_count{{{_labels(labels)}}} {float(counted)}"
        yield f"{self.name}_sum{{{_labels(labels)}}} {self.total}"


def sizes(largest: int) -> tuple[float, ...]:
    """vLLM's 1-2-5 buckets up to the context length."""
    found = [float(mantissa * 10**exponent) for exponent in range(7) for mantissa in (1, 2, 5)]
    return tuple(bound for bound in found if bound <= largest)


class Metrics:
    """All series of one server; `model` is the first served name, as vLLM labels them."""

    def __init__(self, model: str, max_model_len: int) -> None:
        self.labels = {"engine": "0", "model_name": model}
        self.running = Series(
            "gauge", "vllm:num_requests_running", "Number of requests in model execution batches."
        )
        self.waiting = Series(
            "gauge", "vllm:num_requests_waiting", "Number of requests waiting to be processed."
        )
        self.kv_cache = Series(
            "gauge", "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."
        )
        self.prompt_tokens = Series(
            "counter", "vllm:prompt_tokens_total", "Number of prefill tokens processed."
        )
        self.generation_tokens = Series(
            "counter", "vllm:generation_tokens_total", "Number of generation tokens."
        )
        self.success = Series(
            "counter", "vllm:request_success_total", "Count of successfully processed requests."
        )
        seconds = "Histogram of {} in seconds."
        self.first_token = Histogram(
            "vllm:time_to_first_token_seconds", seconds.format("time to first token"), FIRST_TOKEN
        )
        self.inter_token = Histogram(
            "vllm:inter_token_latency_seconds", seconds.format("inter-token latency"), INTER_TOKEN
        )
        self.end_to_end = Histogram(
            "vllm:e2e_request_latency_seconds", seconds.format("e2e latency"), REQUEST
        )
        self.queue = Histogram("vllm:request_queue_time_seconds", seconds.format("time in WAITING"), REQUEST)
        self.prefill = Histogram(
            "vllm:request_prefill_time_seconds", seconds.format("time in PREFILL"), REQUEST
        )
        self.decode = Histogram("vllm:request_decode_time_seconds", seconds.format("time in DECODE"), REQUEST)
        counted = sizes(max_model_len)
        self.request_prompt_tokens = Histogram(
            "vllm:request_prompt_tokens", "Prefill tokens processed.", counted
        )
        self.request_generation_tokens = Histogram(
            "vllm:request_generation_tokens", "Generation tokens processed.", counted
        )
        for series in (self.running, self.waiting, self.kv_cache):
            series.set(0.0)
        self.prompt_tokens.inc(0)
        self.generation_tokens.inc(0)
        for reason in REASONS:
            self.success.inc(0, finished_reason=reason)
        # prometheus_client's own and those of prometheus-fastapi-instrumentator: without labels of the model.
        self._started = Series(
            "gauge", "process_start_time_seconds", "Start time of the process since unix epoch in seconds."
        )
        self._started.set(round(psutil.Process(os.getpid()).create_time(), 2))
        self._answered = Series(
            "counter", "http_requests_total", "Total number of requests by method, status and handler."
        )

    def stepped(self, kind: str, size: int) -> None:
        """A place for engines that count steps: "encode" with prompt tokens, "decode" with sequences."""

    def of_release(self, release: tuple[int, ...]) -> None:
        """Forget the reasons that this release of vLLM does not know yet."""
        for reason, since in REASONS.items():
            if release < since:
                self.success.values.pop((("finished_reason", reason),), None)

    def answered(self, handler: str | None, method: str, status: int) -> None:
        """An answer that has gone out. handler: the path of the route; None: there is none."""
        if handler not in UNCOUNTED:
            self._answered.inc(1, handler=handler or NO_HANDLER, method=method, status=f"{status // 100}xx")

    def render(self) -> str:
        """The text that /metrics answers."""
        every = [
            series
            for name, series in vars(self).items()
            if isinstance(series, Series | Histogram) and not name.startswith("_")
        ]
        lines = [line for series in every for line in series.render(self.labels)]
        lines += [line for series in (self._started, self._answered) for line in series.render({})]
        return "\n".join(lines).replace("{} ", " ") + "\n"


def _labels(labels: dict[str, str]) -> str:
    escaped = ((key, value.replace("\\", r"\\").replace('"', r"\"")) for key, value in labels.items())
    return ",".join(f'{key}="{value}"' for key, value in escaped)
