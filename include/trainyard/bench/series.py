"""Which series of a server's `/metrics` say how it serves: their names, engine by engine.

vLLM: vllm/v1/metrics/loggers.py, and prometheus-fastapi-instrumentator for `http_requests_total` (statuses in
groups, "5xx"). TGI: router/src/infer and router/src/server.rs; its first token is not measured, and its time
a token is the mean of each request.
"""

from __future__ import annotations

# The first of them that a server has.
HISTOGRAMS = {
    "ttft": ("vllm:time_to_first_token_seconds",),
    "itl": (
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
        "tgi_request_mean_time_per_token_duration",
    ),
    "e2e": ("vllm:e2e_request_latency_seconds", "tgi_request_duration"),
}
FINISHED = "vllm:request_success_total"  # by finished_reason; despite its name it counts `error` as well
STARTED = "process_start_time_seconds"
ANSWERED = "http_requests_total"  # by handler and status: what never became a generation fails here only
GENERATING = ("/v1/chat/completions", "/v1/completions")
TGI_ASKED, TGI_SUCCEEDED, TGI_FAILED = "tgi_request_count", "tgi_request_success", "tgi_request_failure"

COUNTERS = (FINISHED, STARTED, ANSWERED, TGI_ASKED, TGI_SUCCEEDED, TGI_FAILED)
_NAMES = frozenset(COUNTERS) | {
    f"{name}_{part}" for names in HISTOGRAMS.values() for name in names for part in ("bucket", "sum", "count")
}


def needed(text: str) -> str:
    """The lines of a scrape that somebody reads; a whole page of vLLM's has ten times as many."""
    return "".join(f"{line}\n" for line in text.splitlines() if _name(line) in _NAMES)


def _name(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]
