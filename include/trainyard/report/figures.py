"""Figures of a phase as rows of a table, for the page and the text. docs/load-figures.md has the formulas.

A summary may be of an older version: rows that it has nothing for are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TITLES = {
    "ttft": "Time to first token",
    "itl": "Inter-token time",
    "tpot": "Time per output token",
    "e2e": "End to end",
    "ttft_from_intended": "First token, from when it was due",
    "e2e_from_intended": "End to end, from when it was due",
}
COLUMNS = ("mean", "p50", "p90", "p95", "p99", "p99.9")
SECONDS_FROM = 10.0  # a metric whose p99 is beyond is shown in seconds
KINDS = {
    "connect": "no connection",
    "timeout": "no complete answer in time",
    "http_4xx": "refused",
    "http_5xx": "the server failed",
    "malformed": "not HTTP, or not the JSON of the protocol",
    "error_event": "an error inside an answer that began with 200",
    "cut": "the connection ended in the middle",
    "empty": "a complete 200 without text",
    "no_done": "complete, without its [DONE]",
    "no_usage": "complete, without token counts",
}


@dataclass(frozen=True)
class Latency:
    """One metric: a row an arm, a cell a column of COLUMNS, all in `unit`."""

    metric: str
    title: str
    unit: str
    rows: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Row:
    """One figure. cells: by arm, as text."""

    name: str
    cells: Mapping[str, str]


def latencies(summary: Mapping[str, Any]) -> list[Latency]:
    """From when a request was due only where that is not when it was sent: in an open loop."""
    arms: Mapping[str, Any] = summary.get("arms") or {}
    open_loop = "scheduled" in (summary.get("generator") or {})
    found = []
    for metric, title in TITLES.items():
        if metric.endswith("intended") and not open_loop:
            continue
        own = {arm: figures.get(metric) or {} for arm, figures in arms.items()}
        own = {arm: figures for arm, figures in own.items() if figures.get("count")}
        if not own:
            continue
        long = max(figures.get("p99", 0.0) for figures in own.values()) >= SECONDS_FROM
        factor = 1.0 if long else 1000.0
        rows = {
            arm: tuple(
                say_figure(figures[name] * factor) if name in figures else "–" for name in COLUMNS
            )
            for arm, figures in own.items()
        }  # fmt: skip
        found.append(Latency(metric, title, "s" if long else "ms", rows))
    return found


def rates(summary: Mapping[str, Any]) -> list[Row]:
    """Counts, throughput, goodput and cost."""

    def figure(key: str, part: str = "") -> Callable[[Mapping[str, Any]], Any]:
        return lambda figures: ((figures.get(part) or {}) if part else figures).get(key)

    wanted: list[tuple[str, Callable[[Mapping[str, Any]], Any], Callable[[Any], str]]] = [
        ("Requests", figure("requests"), say_figure),
        ("Failed", figure("failed"), say_figure),
        ("Cut off at the end", figure("censored"), say_figure),
        ("Seconds", figure("seconds"), say_figure),
        ("Requests/s", figure("requests_per_second"), say_figure),
        ("Input tokens/s", figure("input_tokens_per_second"), say_figure),
        ("Output tokens/s", figure("output_tokens_per_second"), say_figure),
        ("Goodput, requests/s", figure("requests_per_second", "goodput"), say_figure),
        ("Goodput, share", figure("share", "goodput"), lambda share: f"{share:.1%}".replace("%", " %")),
        ("NeuronCores", lambda figures: (figures.get("economy") or {}).get("cores") or None, say_figure),
        ("Output tokens/s per core", figure("output_tokens_per_second_per_core", "economy"), say_figure),
        ("$/h", figure("dollars_per_hour", "economy"), say_dollars),
        ("$ per million output tokens", figure("dollars_per_million_output_tokens", "economy"), say_dollars),
        ("$ per million tokens in and out", figure("dollars_per_million_tokens", "economy"), say_dollars),
    ]
    arms: Mapping[str, Any] = summary.get("arms") or {}
    found = []
    for name, pick, say in wanted:
        values = {arm: pick(figures) for arm, figures in arms.items()}
        if any(value is not None for value in values.values()):
            cells = {arm: "–" if value is None else say(value) for arm, value in values.items()}
            found.append(Row(name, cells))
    return found


def load(summary: Mapping[str, Any]) -> str:
    """What was sent: `open loop, poisson, 5, 10, 20 requests/s; 256 tokens in, 64 out (medians)`."""
    if summary.get("synthetic") is False:
        return "none of ours, real traffic was watched"
    workload: Mapping[str, Any] = summary.get("workload") or {}
    if not workload:
        return ""
    told = [_loop(workload)]
    lengths = [figures["lengths"] for figures in (summary.get("arms") or {}).values() if "lengths" in figures]
    if lengths and all("p50" in lengths[0][part] for part in ("prompt", "output")):
        told.append(
            f"{lengths[0]['prompt']['p50']:.0f} tokens in, {lengths[0]['output']['p50']:.0f} out (medians)"
        )
    return "; ".join(told)


def stopped(summary: Mapping[str, Any], *, why: bool = True) -> str:
    """`after 40 pairs: itl`, where an alarm ended the load early; without `why` only when it did."""
    found: Mapping[str, Any] = summary.get("stopped") or {}
    if not found:
        return ""
    when = f"after {found['pairs']} pairs" if found.get("pairs") else ""
    if not when and found.get("at") is not None:
        when = f"after {found['at']:.0f} s"
    reasons = ", ".join(map(str, found.get("reasons") or ())) if why else ""
    return ": ".join(filter(None, [when or "early", reasons]))


def _loop(workload: Mapping[str, Any]) -> str:
    arrivals: Mapping[str, Any] | None = workload.get("arrivals")
    if not arrivals:
        return f"closed loop, {workload.get('concurrency', '?')} at once"
    process = str(arrivals.get("process") or "poisson")
    stages = arrivals.get("stages") or ([arrivals] if arrivals.get("rate") is not None else [])
    if not stages:
        return "open loop, a trace"
    rates = [
        f"{stage['rate']:g}"
        + (f" to {stage['to']:g}" if stage.get("to") not in (None, stage["rate"]) else "")
        for stage in stages
    ]
    return f"open loop, {process}, {', '.join(rates)} requests/s"


def limits(summary: Mapping[str, Any]) -> str:
    """What goodput was counted under: `ttft 1 s, itl 100 ms`."""
    for figures in (summary.get("arms") or {}).values():
        found = (figures.get("goodput") or {}).get("limits")
        if found:
            return ", ".join(f"{name} {say_limit(seconds)}" for name, seconds in found.items())
    return ""


def prices(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """What dollars were reckoned from, and the arms of which."""
    found: dict[str, list[str]] = {}
    for arm, figures in (summary.get("arms") or {}).items():
        price = (figures.get("economy") or {}).get("price")
        if price:
            found.setdefault(str(price), []).append(arm)
    return found


def health(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of the load generator: what was seen, and what was allowed where the summary says it."""
    generator: Mapping[str, Any] = summary.get("generator") or {}
    workload: Mapping[str, Any] = summary.get("workload") or {}
    if not generator:
        return []
    allowed_lag, allowed_cpu = workload.get("max_loop_lag_seconds"), workload.get("max_cpu_share")
    within = f", allowed {say_limit(allowed_lag)}" if allowed_lag else ""
    busy = f", allowed {allowed_cpu:.0%}" if allowed_cpu else ""
    rows = []
    if generator.get("achieved") is not None:
        rows.append(("Sent of the schedule", f"{generator['achieved']:.2%} of {generator['scheduled']:.0f}"))
    for key, name in (("send_lag_p99_seconds", "Sent late"), ("loop_lag_p99_seconds", "Event loop late")):
        if generator.get(key) is not None:
            rows.append((f"{name} (p99)", f"{generator[key] * 1000:.2f} ms{within}"))
    if generator.get("cpu_share") is not None:
        rows.append(("Busy", f"{generator['cpu_share']:.0%} of a core{busy}"))
    return [(name, text.replace("%", " %")) for name, text in rows]


def say_figure(number: float) -> str:
    """Four digits that count, thousands apart: `0.1234`, `12.3`, `1,234`."""
    if isinstance(number, int) or abs(number) >= 1000:
        return f"{number:,.0f}"
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def say_dollars(dollars: float) -> str:
    return f"{dollars:,.2f}" if dollars >= 0.1 else f"{dollars:.4f}"


def say_limit(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"
