"""`trainyard bench`: a load test of any OpenAI-compatible server, with a report."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from rich.console import Console

from trainyard.bench.cost import Hardware
from trainyard.bench.goodput import Limits
from trainyard.bench.load import run_load
from trainyard.bench.samples import Sample, pack
from trainyard.bench.tls import context
from trainyard.bench.warmup import visits, warm_bucket
from trainyard.bench.workload import Workload
from trainyard.errors import Problem, Refused, TrainyardError
from trainyard.report.document import Phase, Report
from trainyard.report.phases import failures
from trainyard.report.text import render_summary
from trainyard_cli.asked import asked
from trainyard_cli.bench_report import in_short, make_room, with_economy, write

ARM, BASELINE = "server", "baseline"
WARM_ROUNDS, WARM_TOKENS = 12, 8
MOST_TOGETHER = 64
MODELS_SECONDS = 10.0
SILENCES = 3  # rounds of the warm-up without one answer in time: nobody is there
SAID = 120  # characters of an answer that is none


@dataclass(frozen=True)
class Question:
    """What the command line asks. arrivals: see `bench.arrivals`; None: a closed loop. limits: of goodput,
    and of a sweep. hardware: of each server. page: instead of report.html in `out`."""

    url: str
    baseline: str | None
    model: str | None
    workload: Workload
    seed: int
    warm_up: bool
    out: Path
    limits: Limits = field(default_factory=Limits)
    hardware: Hardware | None = None
    page: Path | None = None


def ask(question: Question, console: Console, *, as_json: bool) -> int:
    """Runs it, writes the report. 0: measured; 1: nothing succeeded, or the generator was the bottleneck."""
    urls = {ARM: [base(question.url)]}
    if question.baseline is not None:
        urls[BASELINE] = [base(question.baseline, "--baseline")]
    make_room(question.out, question.page)
    model = question.model or first_model(urls[ARM][0])
    workload = question.workload
    if question.warm_up:
        for (url,) in urls.values():
            if not as_json:
                console.print(f"warming up {url}", soft_wrap=True, highlight=False)
            words = warm(url, model, workload)
            if not as_json:
                console.print(words, soft_wrap=True, highlight=False)
    began = datetime.now(UTC).isoformat()
    samples, summary = run_load(
        model=model,
        arms=urls,
        workload=workload,
        seed=question.seed,
        limits=question.limits,
        say=None if as_json else lambda words: console.print(words, soft_wrap=True, highlight=False),
    )
    summary = with_economy(summary, question.hardware)
    ended = datetime.now(UTC).isoformat()
    told = report(question, model, summary, began, ended)
    page = write(question.out, pack(samples), summary, told, question.page)
    if as_json:
        console.out(json.dumps(summary, indent=2), highlight=False)
    else:
        lines = [*render_summary(summary), *said(summary, samples)]
        console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
        console.print(
            f"{page}; {question.out}/report.json, summary.json, samples.ndjson.gz",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
    return 0 if outcome(summary) == "measured" else 1


def outcome(summary: Mapping[str, Any]) -> str:
    """invalid: the generator was too slow. unanswered: one of the servers had no success at all."""
    if not summary["generator"]["valid"]:
        return "invalid"
    every = all(figures["succeeded"] for figures in summary["arms"].values())
    return "measured" if every else "unanswered"


def warm(url: str, model: str, workload: Workload) -> str:
    """Visits every bucket that the workload can reach, until latency settles; none of it is measured.

    Raises PermanentError or TransientError where the server does not answer.
    """
    together = min(workload.concurrency, MOST_TOGETHER)
    buckets = [
        warm_bucket(
            url,
            model,
            tokens,
            rounds=WARM_ROUNDS,
            output_tokens=WARM_TOKENS,
            timeout=workload.timeout_seconds,
            together=at_once,
            asking=workload,
            silences=SILENCES,
        )
        for tokens, at_once in visits(workload.longest_prompt, together)
    ]
    moving = [f"{one.prompt_tokens} x {one.together}" for one in buckets if not one.settled]
    generations = sum(len(one.latencies) * one.together for one in buckets)
    state = f"has not settled at {', '.join(moving)} (tokens x at once)" if moving else "settled"
    return f"warm-up of {url}: {len(buckets)} buckets, {generations} generations, latency {state}"


def said(summary: Mapping[str, Any], samples: Sequence[Sample]) -> Iterator[str]:
    """What the servers said when they failed, once a kind."""
    for row in failures(summary["arms"], samples):
        if row["example"]:
            yield f"{row['kind']}, such as: {row['example']}"


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the load generators and removes what they wrote, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def base(url: str, field: str = "url") -> str:
    """The server's address, with or without the /v1 that OpenAI's clients are given. Raises Refused."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        good = False
    if not good or not url.isprintable() or " " in url or parts.query or parts.fragment:
        raise Refused(Problem(field, url, "is not an http(s) address", "Such as http://127.0.0.1:8000"))
    return url.rstrip("/").removesuffix("/v1")


def first_model(url: str) -> str:
    """What the server serves. Raises TrainyardError where it does not say."""
    where, key = f"{url}/v1/models", os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(where, headers=headers, timeout=MODELS_SECONDS, trust_env=False, verify=context())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        trust = ", and SSL_CERT_FILE names a list with its certificate" if "CERTIFICATE" in str(error) else ""
        raise TrainyardError(
            f"{where} does not answer ({error}). See that the server is up, and this its address{trust}"
        ) from error
    words = f"it answers {answer.status_code}: {answer.text[:SAID]!r}"
    if answer.status_code in (401, 403):
        remedy = "Correct OPENAI_API_KEY" if key else "Set OPENAI_API_KEY, which is sent as a bearer token"
        raise TrainyardError(f"{where} lets nobody in: {words}. {remedy}")
    try:
        return str(answer.raise_for_status().json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TrainyardError(
            f"{where} names no model: {words}. Correct the address, or say which with --model"
        ) from error


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


def report(
    question: Question,
    model: str,
    summary: Mapping[str, Any],
    began: str,
    ended: str,
) -> Report:
    workload = question.workload
    facts = {
        "Server": base(question.url),
        **({"Baseline": base(question.baseline)} if question.baseline else {}),
        **asked(workload, question.seed),
        "Seed": str(question.seed),
    }
    return Report(
        release=f"Load test of {model}",
        model=model,
        outcome=outcome(summary),
        reason=in_short(summary),
        started_at=began,
        finished_at=ended,
        facts=facts,
        phases=(Phase(name="load", summary=summary),),
    )
