"""`trainyard bench`: a load test of any OpenAI-compatible server, with a report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from trainyard.bench.knee import Step, knee, steps
from trainyard.bench.load import run_load
from trainyard.bench.samples import Sample, pack
from trainyard.bench.warmup import warm_bucket
from trainyard.bench.workload import Workload
from trainyard.errors import Problem, Refused, TrainyardError
from trainyard.report.document import Phase, Report
from trainyard.report.html import render_html

ARM, BASELINE = "server", "baseline"
SHOWN = ("ttft", "itl", "tpot", "e2e", "ttft_from_intended", "e2e_from_intended")
QUANTILES = ("p50", "p90", "p95", "p99", "p99.9", "max")
WARM_ROUNDS = 12
MODELS_SECONDS = 10.0


@dataclass(frozen=True)
class Question:
    """What the command line asks. arrivals: see `bench.arrivals`; None: a closed loop."""

    url: str
    baseline: str | None
    model: str | None
    workload: Workload
    seed: int
    warm_up: bool
    out: Path
    ttft_limit: float | None = None


def ask(question: Question, console: Console, *, as_json: bool) -> int:
    """Runs it, writes the report. 0: measured; 1: nothing succeeded, or the generator was the bottleneck."""
    urls = {ARM: [base(question.url)]} | ({BASELINE: [base(question.baseline)]} if question.baseline else {})
    model = question.model or first_model(urls[ARM][0])
    workload = question.workload
    if question.warm_up:
        for (url,) in urls.values():
            bucket = warm_bucket(
                url,
                model,
                workload.prompt_tokens,
                rounds=WARM_ROUNDS,
                output_tokens=min(16, workload.output_tokens),
                timeout=workload.timeout_seconds,
            )
            if not as_json:
                state = "settled" if bucket.settled else "has not settled"
                console.print(f"warm-up of {url}: latency {state} after {len(bucket.latencies)}")
    began = datetime.now(UTC).isoformat()
    samples, summary = run_load(model=model, arms=urls, workload=workload, seed=question.seed)
    schedule = workload.schedule
    sweep = {
        arm: steps([s for s in samples if s.arm == arm], schedule.stages, limit=question.ttft_limit)
        for arm in urls
        if schedule is not None and len(schedule.stages) > 1
    }
    summary["sweep"] = {
        arm: {
            "steps": [asdict(step) for step in found],
            "knee": asdict(top) if (top := knee(found)) else None,
        }
        for arm, found in sweep.items()
    }
    ended = datetime.now(UTC).isoformat()
    write(question.out, samples, summary, report(question, model, samples, summary, began, ended))
    if as_json:
        console.out(json.dumps(summary, indent=2), highlight=False)
    else:
        console.print("\n".join(lines(summary, sweep)), soft_wrap=True, markup=False, highlight=False)
        console.print(f"{question.out}/report.html, summary.json, samples.ndjson.gz", soft_wrap=True)
    succeeded = all(figures["succeeded"] for figures in summary["arms"].values())
    return 0 if succeeded and summary["generator"]["valid"] else 1


def base(url: str) -> str:
    """The server's address, with or without the /v1 that OpenAI's clients are given. Raises Refused."""
    if not url.startswith(("http://", "https://")):
        raise Refused(Problem("url", url, "is not an http(s) address", "Such as http://127.0.0.1:8000"))
    return url.rstrip("/").removesuffix("/v1")


def first_model(url: str) -> str:
    """What the server serves. Raises TrainyardError where it does not say."""
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=MODELS_SECONDS, trust_env=False)
        return str(answer.raise_for_status().json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TrainyardError(f"{url}/v1/models names no model ({error!r}); say which with --model") from error


def parse_stages(text: str, seconds: float) -> list[dict[str, float]]:
    """`5,10,20` or `0-50,50`: requests a second, each for `seconds`. Raises Refused."""
    rows = []
    for word in text.split(","):
        low, dash, high = word.partition("-")
        try:
            rows.append({"seconds": seconds, "rate": float(low), "to": float(high if dash else low)})
        except ValueError:
            remedy = "Such as 5,10,20, or 0-50 for a ramp"
            raise Refused(Problem("rate", word, "is no rate", remedy)) from None
    return rows


def read_trace(path: Path) -> list[float]:
    """Moments of a JSONL trace, from its first: `timestamp` in milliseconds (as Mooncake's), or `at` in
    seconds. Raises Refused."""
    moments = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            moments.append(float(row["at"]) if "at" in row else float(row["timestamp"]) / 1000)
        except (ValueError, KeyError, TypeError) as error:
            remedy = "Give `at` in seconds or `timestamp` in milliseconds"
            raise Refused(Problem(f"{path}:{number}", line[:80], "is no arrival", remedy)) from error
    moments.sort()
    return [round(moment - moments[0], 6) for moment in moments]


def report(
    question: Question,
    model: str,
    samples: Sequence[Sample],
    summary: Mapping[str, Any],
    began: str,
    ended: str,
) -> Report:
    workload, generator = question.workload, summary["generator"]
    loop = f"closed, {workload.concurrency} at once" if workload.arrivals is None else "open, by schedule"
    facts = {
        "Server": base(question.url),
        **({"Baseline": base(question.baseline)} if question.baseline else {}),
        "Loop": loop,
        "Prompt and answer": f"about {workload.prompt_tokens} and {workload.output_tokens} tokens",
        "Seed": str(question.seed),
    }
    return Report(
        release=f"Load test of {model}",
        model=model,
        outcome="measured" if generator["valid"] else "invalid",
        reason="; ".join(f"The load generator was the bottleneck: {why}" for why in generator["reasons"]),
        started_at=began,
        finished_at=ended,
        facts=facts,
        phases=(Phase(name="load", summary=summary, samples=tuple(samples)),),
    )


def write(folder: Path, samples: Sequence[Sample], summary: Mapping[str, Any], page: Report) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.ndjson.gz").write_bytes(pack(samples))
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / "report.html").write_text(render_html(page))


def lines(summary: Mapping[str, Any], sweep: Mapping[str, Sequence[Step]]) -> Iterator[str]:
    """The figures as text, milliseconds."""
    for arm, figures in summary["arms"].items():
        kinds = ", ".join(f"{kind} {count}" for kind, count in figures["failures"].items())
        yield (
            f"{arm}: {figures['requests']} requests, {figures['failed']} failed"
            f"{f' ({kinds})' if kinds else ''}, {figures['censored']} cut off; "
            f"{figures['requests_per_second']:.2f} requests/s, "
            f"{figures['output_tokens_per_second']:.0f} tokens/s"
        )
        yield f"  {'ms':20}" + "".join(f"{name:>10}" for name in QUANTILES)
        for metric in SHOWN:
            found = figures[metric]
            closed = metric.endswith("intended") and "scheduled" not in summary["generator"]
            if found["count"] and not closed:
                numbers = "".join(f"{found[name] * 1000:10.2f}" for name in QUANTILES)
                yield f"  {metric:20}{numbers}"
        for step in sweep.get(arm, ()):
            first = "–" if step.ttft_p95 is None else f"{step.ttft_p95 * 1000:.0f} ms"
            mark = "+" if step.good else "-"
            yield f"  {mark} {step.offered:g}/s offered, {step.served:g}/s served, ttft p95 {first}"
        if arm in sweep:
            top = knee(sweep[arm])
            yield f"  knee: {f'{top.offered:g} requests/s' if top else 'below the first rate'}"
    generator = summary["generator"]
    lag, late = generator.get("loop_lag_p99_seconds"), generator.get("send_lag_p99_seconds")
    yield (
        f"generator: {'valid' if generator['valid'] else 'INVALID'}, "
        f"loop lag p99 {_ms(lag)}, send lag p99 {_ms(late)}, {generator.get('cpu_share', 0):.0%} of a core"
    )
    yield from (f"  {reason}" for reason in generator["reasons"])


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1000:.2f} ms"
