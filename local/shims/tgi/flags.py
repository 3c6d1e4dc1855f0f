"""The command line of `text-generation-launcher`."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

TEXTS = """revision dtype kv-cache-dtype quantize shard-uds-path master-addr huggingface-hub-cache
weights-cache-override rope-scaling otlp-endpoint otlp-service-name cors-allow-origin api-key
tokenizer-config-path lora-adapters usage-stats"""
NUMBERS = """num-shard speculate max-input-tokens max-input-length max-total-tokens max-batch-prefill-tokens
max-batch-total-tokens max-batch-size"""
SWITCHES = "trust-remote-code disable-custom-kernels json-output disable-grammar-support env"
DEFAULTS = {
    "validation-workers": 2,
    "max-concurrent-requests": 128,
    "max-best-of": 2,
    "max-stop-sequences": 4,
    "max-top-n-tokens": 5,
    "max-waiting-tokens": 20,
    "prometheus-port": 9000,
    "master-port": 29500,
    "max-client-batch-size": 4,
    "payload-limit": 2_000_000,
    "graceful-termination-timeout": 90,
}


class Parser(argparse.ArgumentParser):
    """clap's wording of a wrong command line."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            first = message.removeprefix("unrecognized arguments: ").split()[0]
            message = f"unexpected argument '{first}' found"
        self.exit(
            2, f"error: {message}\n\nUsage: {self.prog} [OPTIONS]\n\nFor more information, try '--help'.\n"
        )


def parser() -> Parser:
    """The launcher's flags. Each has an environment variable of its name, as clap's `env` gives it."""
    top = Parser("text-generation-launcher", allow_abbrev=False)
    top.add_argument("--model-id", default=os.environ.get("MODEL_ID", "bigscience/bloom-560m"))
    # In a pod HOSTNAME is the pod's name, which is no address: the router then takes 0.0.0.0.
    top.add_argument("--hostname", default=os.environ.get("HOSTNAME", "0.0.0.0"))
    top.add_argument("-p", "--port", type=int, default=int(os.environ.get("PORT", "80")))
    top.add_argument("--sharded", choices=["true", "false"])
    top.add_argument("--waiting-served-ratio", type=float, default=0.3)
    top.add_argument("--cuda-memory-fraction", type=float, default=1.0)
    for name in TEXTS.split():
        top.add_argument(f"--{name}", default=os.environ.get(_variable(name)))
    for name in NUMBERS.split():
        value = os.environ.get(_variable(name))
        top.add_argument(f"--{name}", type=int, default=int(value) if value else None)
    for name, default in DEFAULTS.items():
        top.add_argument(f"--{name}", type=int, default=int(os.environ.get(_variable(name), default)))
    for name in SWITCHES.split():
        top.add_argument(f"--{name}", action="store_true")
    return top


def _variable(name: str) -> str:
    return name.replace("-", "_").upper()
