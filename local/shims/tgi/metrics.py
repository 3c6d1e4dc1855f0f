"""The router's Prometheus series: `tgi_*`, without a model's name, and only once something was counted."""

from __future__ import annotations

from local.shims.server.metrics import Histogram, Metrics, Series

DURATIONS = tuple(round(0.0001 * 1.5**power, 10) for power in range(1, 36))
# Series of this server by what the engine counts in the base class.
HISTOGRAMS = {
    "tgi_request_duration": "end_to_end",
    "tgi_request_queue_duration": "queue",
    "tgi_request_inference_duration": "inference",
    "tgi_request_mean_time_per_token_duration": "inter_token",
    "tgi_request_generated_tokens": "request_generation_tokens",
    "tgi_request_input_length": "request_prompt_tokens",
}


class TgiMetrics(Metrics):
    """What the engine counts, under TGI's names."""

    def __init__(self, model: str, max_model_len: int, *, max_input_tokens: int) -> None:
        super().__init__(model, max_model_len)
        hundredths = [max_model_len / 100 * part for part in range(1, 101)]
        lengths = [max_input_tokens / 100 * part for part in range(1, 101)]
        for name in ("end_to_end", "queue", "inference", "inter_token"):
            setattr(self, name, Histogram(_public(name), "", DURATIONS))
        self.request_generation_tokens = Histogram(
            _public("request_generation_tokens"), "", tuple(hundredths)
        )
        self.request_prompt_tokens = Histogram(_public("request_prompt_tokens"), "", tuple(lengths))
        self.requests = Series("counter", "tgi_request_count", "Total number of requests")
        self.failures = Series("counter", "tgi_request_failure", "Number of failed requests")
        self._calls = Series(
            "counter", "tgi_batch_inference_count", "Inference calls per method (prefill or decode)"
        )

    def stepped(self, kind: str, size: int) -> None:
        self._calls.inc(1, method="prefill" if kind == "encode" else "decode")

    def render(self) -> str:
        """Nothing of a server that was never asked: a series begins with its first value."""
        lines: list[str] = []
        for series in (self.requests, self.failures, self._calls):
            if series.values:
                lines += _plain(series)
        if self._calls.values:
            lines += _gauge("tgi_queue_size", self.waiting)
            lines += _gauge("tgi_batch_current_size", self.running)
        if done := sum(
            count for key, count in self.success.values.items() if ("finished_reason", "abort") not in key
        ):
            lines += ["# TYPE tgi_request_success counter", f"tgi_request_success {int(done)}"]
        for name in HISTOGRAMS.values():
            histogram: Histogram = getattr(self, name)
            if sum(histogram.counts):
                lines += histogram.render({})
        return "\n".join(lines) + "\n"


def _public(name: str) -> str:
    return next(public for public, inner in HISTOGRAMS.items() if inner == name)


def _plain(series: Series) -> list[str]:
    return [line.replace("{}", "") for line in series.render({})]


def _gauge(name: str, series: Series) -> list[str]:
    return [f"# TYPE {name} gauge", f"{name} {series.values[()]:g}"]
