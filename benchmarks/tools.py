"""The peers themselves, as people run them: told to ask the truth server, and what they report of it.

They are looked for in TRAINYARD_PEERS, folders of programs as in PATH; see benchmarks/peers/requirements.txt.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.model import NotMeasured
from trainyard.bench.stamps import offset

LIMIT_SECONDS = 300.0
PROMPT_TOKENS = 64
# Two of them count tokens themselves, or want to. Words of one token each need no download.
TOKENIZER = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = {word: number for number, word in enumerate(["<unk>", "tok", *(f"w{n}" for n in range(2000))])}
made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", chat_template=template)
fast.save_pretrained(sys.argv[1])
"""


@dataclass(frozen=True)
class Load:
    """What is asked of a server: requests in all, streams at once, tokens each."""

    url: str
    requests: int
    streams: int
    tokens: int


@dataclass(frozen=True)
class Outcome:
    """firsts: moments at which first tokens came, of the clock that all processes share. cpu: processor
    seconds of the tool with all its processes, from its start to its end."""

    firsts: tuple[float, ...]
    cpu: float


@dataclass(frozen=True)
class Tool:
    """program: its file name. command: its arguments, given the load, a tokenizer's folder and one to write
    to. read: when each first token came, as it left that there."""

    name: str
    program: str
    command: Callable[[Load, Path, Path], Sequence[str]]
    read: Callable[[Path], list[float]]

    def find(self) -> Path:
        """Raises NotMeasured."""
        folders = os.environ.get("TRAINYARD_PEERS", "")
        found = shutil.which(self.program, path=folders) if folders else None
        if found is None:
            raise NotMeasured(f"there is no {self.program} in TRAINYARD_PEERS={folders!r}")
        return Path(found)

    def version(self) -> str:
        """As its own environment says. Raises NotMeasured."""
        words = f"from importlib.metadata import version; print(version({self.program!r}))"
        return self._call([str(self.find().parent / "python"), "-c", words], None).strip()

    def run(self, load: Load, folder: Path) -> Outcome:
        """folder: an empty one. Raises NotMeasured."""
        program, words = self.find(), folder / "tokenizer"
        self._call([str(program.parent / "python"), "-c", TOKENIZER, str(words)], folder)
        before = _childrens_cpu()
        self._call([str(program), *self.command(load, words, folder)], folder)
        cpu = _childrens_cpu() - before
        try:
            return Outcome(tuple(self.read(folder)), cpu)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise NotMeasured(f"{self.name} left no TTFT: {error!r}") from error

    def _call(self, command: Sequence[str], folder: Path | None) -> str:
        """What it printed."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=LIMIT_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotMeasured(f"{self.name}: {error}") from error
        if done.returncode:
            raise NotMeasured(f"{self.name} broke down: {(done.stderr or done.stdout)[-300:]}")
        return done.stdout


def _childrens_cpu() -> float:
    """Seconds of processor, of all processes that we or they have waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _aiperf(load: Load, tokenizer: Path, folder: Path) -> Sequence[str]:
    return [
        "profile", "--model", "m", "--url", load.url, "--endpoint-type", "chat", "--streaming",
        "--concurrency", str(load.streams), "--request-count", str(load.requests),
        "--tokenizer", str(tokenizer), "--use-server-token-count",
        "--isl", str(PROMPT_TOKENS), "--osl", str(load.tokens), "--osl-stddev", "0",
        "--extra-inputs", json.dumps({"temperature": 0.0, "max_tokens": load.tokens}),
        "--ui", "none", "--artifact-dir", str(folder / "aiperf"),
    ]  # fmt: skip


def _read_aiperf(folder: Path) -> list[float]:
    firsts = []
    for line in (folder / "aiperf" / "profile_export.jsonl").read_text().splitlines():
        row = json.loads(line)
        started = row["metadata"]["request_start_ns"] / 1e9 - _ahead()
        firsts.append(started + row["metrics"]["time_to_first_token"]["value"] / 1e3)
    return firsts


def _guidellm(load: Load, tokenizer: Path, folder: Path) -> Sequence[str]:
    return [
        "run", "--backend",
        f"kind=openai_http,target={load.url},model=m,request_format=/v1/chat/completions",
        "--profile", f"kind=concurrent,streams={load.streams}",
        "--constraint", f"kind=max_requests,count={load.requests}",
        "--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={load.tokens}",
        "--tokenizer", f"kind=huggingface_auto,model={tokenizer}",
        "--output", f"kind=json,path={folder / 'guidellm.json'}", "--disable-console",
    ]  # fmt: skip


def _read_guidellm(folder: Path) -> list[float]:
    requests: Any = json.loads((folder / "guidellm.json").read_text())["benchmarks"][0]["requests"]
    return [one["info"]["timings"]["first_token_iteration"] - _ahead() for one in requests["successful"]]


def _vllm(load: Load, tokenizer: Path, folder: Path) -> Sequence[str]:
    return [
        "bench", "serve", "--backend", "openai-chat", "--endpoint", "/v1/chat/completions",
        "--base-url", load.url, "--model", "m", "--tokenizer", str(tokenizer), "--dataset-name", "random",
        "--random-input-len", str(PROMPT_TOKENS), "--random-output-len", str(load.tokens), "--ignore-eos",
        "--num-prompts", str(load.requests), "--max-concurrency", str(load.streams),
        "--percentile-metrics", "ttft", "--metric-percentiles", "99", "--ready-check-timeout-sec", "0",
        "--disable-tqdm", "--save-result", "--save-detailed",
        "--result-dir", str(folder), "--result-filename", "vllm.json",
    ]  # fmt: skip


def _read_vllm(folder: Path) -> list[float]:
    found = json.loads((folder / "vllm.json").read_text())
    # Its clock is time.perf_counter, which Linux makes of CLOCK_MONOTONIC.
    return [start + ttft for start, ttft in zip(found["start_times"], found["ttfts"], strict=True)]


def _ahead() -> float:
    """Seconds that the wall clock, by which two of them stamp, is ahead."""
    return offset() / 1e9


TOOLS = (
    Tool("vllm bench serve", "vllm", _vllm, _read_vllm),
    Tool("GuideLLM", "guidellm", _guidellm, _read_guidellm),
    Tool("AIPerf", "aiperf", _aiperf, _read_aiperf),
)
