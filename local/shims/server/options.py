"""`vllm serve`'s command line: the flags that deployments use, unknown ones refused as argparse does."""

from __future__ import annotations

import argparse
import json
from typing import Any, NoReturn

from local.shims.versions import Stack

SHUTDOWN_TIMEOUT_SINCE = (0, 18)
SWITCHES = (
    "--trust-remote-code",
    "--enforce-eager",
    "--disable-log-stats",
    "--disable-log-requests",
    "--enable-log-requests",
    "--disable-frontend-multiprocessing",
    "--enable-request-id-headers",
    "--enable-auto-tool-choice",
    "--enable-server-load-tracking",
    "--disable-uvicorn-access-log",
)
TOGGLES = ("enable-prefix-caching", "enable-chunked-prefill", "async-scheduling")
TEXTS = (
    "--tokenizer",
    "--tokenizer-mode",
    "--revision",
    "--load-format",
    "--model-loader-extra-config",
    "--chat-template",
    "--generation-config",
    "--override-generation-config",
    "--quantization",
    "--kv-cache-dtype",
    "--root-path",
    "--response-role",
    "--uvicorn-log-level",
    "--task",
    "--runner",
    "--distributed-executor-backend",
    "--additional-config",
    "--compilation-config",
    "--hf-overrides",
    "--download-dir",
)
NUMBERS = (
    "--max-num-batched-tokens",
    "--block-size",
    "--num-gpu-blocks-override",
    "--pipeline-parallel-size",
    "--data-parallel-size",
    "--max-logprobs",
    "--seed",
    "--swap-space",
    "--api-server-count",
)


class Parser(argparse.ArgumentParser):
    """vLLM's FlexibleArgumentParser: underscores in flags stand for dashes."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"usage: {self.prog} [model_tag] [options]\n{self.prog}: error: {message}\n")


def parser(installed: Stack) -> Parser:
    """The flags of `vllm serve` in this version."""
    serve = Parser("vllm serve", allow_abbrev=False)
    serve.add_argument("model_tag", nargs="?")
    serve.add_argument("--model", default="Qwen/Qwen3-0.6B")
    serve.add_argument("--served-model-name", nargs="+")
    serve.add_argument("--host")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--api-key")
    serve.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    serve.add_argument("--max-model-len", type=human_number)
    serve.add_argument("--max-num-seqs", type=int)
    serve.add_argument("--gpu-memory-utilization", type=float)
    serve.add_argument("--limit-mm-per-prompt", type=json_object)
    serve.add_argument(
        "--dtype", choices=["auto", "bfloat16", "float", "float16", "float32", "half"], default="auto"
    )
    for name in SWITCHES:
        serve.add_argument(name, action="store_true")
    for name in TOGGLES:
        serve.add_argument(f"--{name}", action=argparse.BooleanOptionalAction)
    for name in TEXTS:
        serve.add_argument(name)
    for name in NUMBERS:
        serve.add_argument(name, type=int)
    if installed.vllm_release >= SHUTDOWN_TIMEOUT_SINCE:
        serve.add_argument("--shutdown-timeout", type=int, default=0)
    return serve


def parse(arguments: list[str], installed: Stack) -> argparse.Namespace:
    """Parse after `vllm serve`; ends the process with code 2 when a flag is unknown."""
    return parser(installed).parse_args([dashes(argument) for argument in arguments])


def dashes(argument: str) -> str:
    """`--served_model_name=a_b` as `--served-model-name=a_b`."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, refused in vLLM's words."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"Value {text} cannot be converted to {json.loads}.")
    return found


def human_number(text: str) -> int:
    """vLLM's numbers with a suffix: 4k is 4000, 4K is 4096."""
    factors = {"k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20}
    if text[-1:] in factors:
        return int(float(text[:-1]) * factors[text[-1]])
    return int(text)
