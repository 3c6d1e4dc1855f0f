"""Brings a server to its steady state, and finds out whether it answers sensibly at all."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from threading import Thread
from typing import Any

from trainyard.bench.exchange import Exchange
from trainyard.bench.metrics import parse_metrics
from trainyard.bench.pages import get_page
from trainyard.bench.pictures import Painter
from trainyard.bench.script import question
from trainyard.bench.words import prompt
from trainyard.bench.workload import Workload, payload
from trainyard.errors import PermanentError, TransientError

WINDOW = 3  # generations whose median is compared with the median of as many before
SETTLED = 0.20
LEAST_BUCKET = 128  # tokens: of NxDI's and of the native plugin's
SAFE = 0.9  # of the longest prompt: as much as may be asked for by a count of words
CHAT = "/v1/chat/completions"
FINISHED = ("stop", "length")


@dataclass(frozen=True)
class Bucket:
    """latencies: seconds of each successful round of `together` generations, in order. settled: they stopped
    changing."""

    url: str
    prompt_tokens: int
    latencies: tuple[float, ...]
    failures: tuple[str, ...]
    settled: bool
    together: int = 1


@dataclass(frozen=True)
class Smoke:
    """A prompt asked twice. problem: what is wrong with the answers; empty if nothing is."""

    url: str
    prompt: str
    answer: str
    finish_reason: str
    usage: dict[str, Any] | None
    problem: str


def settled(latencies: Sequence[float]) -> bool:
    """The median of the last three is within 20 % of the median of the three before."""
    if len(latencies) < 2 * WINDOW:
        return False
    last = statistics.median(latencies[-WINDOW:])
    before = statistics.median(latencies[-2 * WINDOW : -WINDOW])
    return abs(last - before) <= SETTLED * before


def visits(longest: int, together: int) -> list[tuple[int, int]]:
    """(tokens of a prompt, how many at once), so that every bucket of a server is visited.

    Engines compile for prompts of 128, 256, 512 … tokens up to the longest, and generate for 1, 2, 4 …
    sequences up to the batch: a first visit to each pays for loading it. A visit lies in the middle of its
    bucket, where a tokenizer that counts a little otherwise does no harm; a last bucket too narrow for that
    is left out.
    """
    most = max(1, int(longest * SAFE))
    sizes = [LEAST_BUCKET]
    while sizes[-1] * 2 <= longest:
        sizes.append(sizes[-1] * 2)
    inside = {min(most, size * 3 // 4) for size in sizes}
    middle = (sizes[-1] + longest) // 2
    if sizes[-1] < middle <= most:
        inside.add(middle)
    batches = [2**power for power in range(1, together.bit_length()) if 2**power < together]
    if together > 1:
        batches.append(together)
    return [(tokens, 1) for tokens in sorted(inside)] + [(min(inside), batch) for batch in batches]


def warm_bucket(
    url: str,
    model: str,
    prompt_tokens: int,
    *,
    rounds: int,
    output_tokens: int,
    timeout: float,
    together: int = 1,
    asking: Workload | None = None,
    silences: int | None = None,
) -> Bucket:
    """Generate with prompts of one length until the latency settles, at most `rounds` times `together`.

    asking: how a server is asked, with pictures where it has those. silences: first rounds without a single
    answer in time after which it gives up. Raises `PermanentError` if not a single round succeeds;
    `TransientError` if nobody listened at all: a server that was taken away says nothing of its model.
    """
    how = asking or Workload()
    painter = Painter(how.images.width, how.images.height) if how.images else None

    def ask(number: int) -> Exchange:
        seed = f"warmup/{prompt_tokens}/{together}/{number}"
        pictures = (painter.data_url(seed),) if painter else ()
        body = how.payload(model, [question(prompt(prompt_tokens, seed), pictures)], output_tokens)
        return Exchange(url.rstrip("/") + how.path, body, timeout=timeout).run()

    latencies: list[float] = []
    failures: list[str] = []
    silent = 0
    for number in range(rounds):
        first = number * together
        asked = _all_at_once(ask, range(first, first + together))
        failed = [f"{one.error}: {one.detail}" for one in asked if not one.ok]
        failures += failed
        if not failed:  # a round takes as long as its slowest
            latencies.append(round(max((one.ended or 0.0) - one.started for one in asked), 6))
        silent += all(one.error == "timeout" for one in asked)
        if settled(latencies) or silent == number + 1 == silences:
            break
    if not latencies:
        gone = all(gone_away(failure) for failure in failures)
        raise (TransientError if gone else PermanentError)(
            f"{url} answered none of {number + 1} generations with prompts of {prompt_tokens} tokens"
            f"{f', {together} at once' if together > 1 else ''}; the last: {failures[-1]}"
        )
    return Bucket(url, prompt_tokens, tuple(latencies), tuple(failures), settled(latencies), together)


def gone_away(problem: str) -> bool:
    """problem: of a `Bucket` or a `Smoke`."""
    return problem.startswith("connect: ")


def _all_at_once(ask: Callable[[int], Exchange], numbers: Iterable[int]) -> list[Exchange]:
    """Daemons: an executor's threads would keep whoever presses Ctrl-C until the last answer is there."""
    asked = [(number, Future[Exchange]()) for number in numbers]

    def one(number: int, answer: Future[Exchange]) -> None:
        try:
            answer.set_result(ask(number))
        except BaseException as error:
            answer.set_exception(error)

    for number, answer in asked:
        Thread(target=one, args=(number, answer), daemon=True).start()
    return [answer.result() for _, answer in asked]


def ask_smoke(url: str, model: str, text: str, *, output_tokens: int, timeout: float) -> Smoke:
    """Ask the same twice at temperature 0, once streamed and once whole."""
    answers = [
        Exchange(
            url.rstrip("/") + CHAT,
            payload(model, text, output_tokens=output_tokens, stream=stream),
            timeout=timeout,
        ).run()
        for stream in (True, False)
    ]
    first = answers[0]
    problem = next(filter(None, (_problem(answer, output_tokens) for answer in answers)), "")
    if not problem and answers[0].text != answers[1].text:
        one, two = (answer.text[:60] for answer in answers)
        problem = f"two answers at temperature 0 differ: {one!r} and {two!r}"
    return Smoke(url, text, first.text, first.finish_reason, first.usage, problem)


def _problem(answer: Exchange, output_tokens: int) -> str:
    if not answer.ok:
        return f"{answer.error}: {answer.detail}"
    if not answer.text.strip():
        return "the answer is blank"
    if answer.finish_reason not in FINISHED:
        return f"finish_reason is {answer.finish_reason!r}, not one of {', '.join(FINISHED)}"
    usage = answer.usage or {}
    asked, made, total = (usage.get(f"{part}_tokens") for part in ("prompt", "completion", "total"))
    if not (isinstance(asked, int) and isinstance(made, int) and asked > 0 and made > 0):
        return f"its token counts are {usage}"
    if asked + made != total:
        return f"its token counts do not add up: {usage}"
    if made > output_tokens:
        return f"it has {made} tokens, {output_tokens} were allowed"
    return ""


def inspect_server(url: str, model: str, *, timeout: float) -> dict[str, Any]:
    """`/health`, `/v1/models` and `/metrics`: what they say.

    Raises `PermanentError` if one of them answers wrongly, `TransientError` if it does not answer.
    """
    _get(url, "/health", timeout)
    try:
        names = [str(entry["id"]) for entry in json.loads(_get(url, "/v1/models", timeout))["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError(f"{url}/v1/models is no list of models: {error!r}") from error
    # TGI calls a model by its directory, and takes any name in a request.
    if model not in names and not any(name.startswith("/") for name in names):
        raise PermanentError(f"{url} serves {', '.join(names) or 'nothing'}, not {model}")
    try:
        points = parse_metrics(_get(url, "/metrics", timeout).decode())
    except ValueError as error:
        raise PermanentError(f"{url}/metrics cannot be read: {error}") from error
    if not points:
        raise PermanentError(f"{url}/metrics is empty")
    return {"url": url, "models": names, "metrics": len(points)}


def _get(url: str, path: str, timeout: float) -> bytes:
    try:
        status, body = get_page(url, path, timeout)
    except OSError as error:
        raise TransientError(f"{url}{path} does not answer: {error}") from error
    if status >= 500:
        raise TransientError(f"{url}{path} answers {status}: {body[:200]!r}")
    if status != 200:
        raise PermanentError(f"{url}{path} answers {status}: {body[:200]!r}")
    return body


def as_rows(items: Sequence[Bucket | Smoke]) -> list[dict[str, Any]]:
    return [asdict(item) for item in items]
