"""The `neuronx-cc` command: HLO in, NEFF out, taking the time that the timing model gives it.

Flags: neuronx-cc's CLI reference. The NEFF's content follows from HLO, flags and compiler version alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from local.shims.compiler.graph import parameters
from local.shims.compiler.neff import neff
from local.shims.faults import faults, take_memory
from local.shims.versions import stack

TARGETS = ("inf2", "trn1", "trn1n", "trn2", "trn3")


def parser() -> argparse.ArgumentParser:
    """The compile sub-command's flags."""
    top = argparse.ArgumentParser(prog="neuronx-cc")
    top.add_argument("--version", action="version", version=f"NeuronX Compiler version {stack().neuronxcc}")
    compiling = top.add_subparsers(dest="command", required=True).add_parser("compile")
    compiling.add_argument("model", type=Path)
    compiling.add_argument("--framework", choices=["XLA"], required=True)
    compiling.add_argument("--target", choices=TARGETS, required=True)
    compiling.add_argument("--output", type=Path, default=Path("file.neff"))
    compiling.add_argument(
        "--model-type", choices=["generic", "transformer", "unet-inference"], default="generic"
    )
    compiling.add_argument("--auto-cast", choices=["none", "matmult", "all"], default="none")
    compiling.add_argument("--auto-cast-type", choices=["bf16", "fp16", "tf32", "fp8_e4m3"], default="bf16")
    compiling.add_argument("-O", "--optlevel", choices=["1", "2", "3"], default="2")
    compiling.add_argument("--lnc", "--logical-nc-config", type=int, choices=[1, 2], default=1)
    compiling.add_argument("--distribution-strategy", choices=["llm-training"])
    compiling.add_argument("--tensorizer-options")
    compiling.add_argument("--internal-hlo2tensorizer-options")
    compiling.add_argument("--hlo2tensorizer-options")
    compiling.add_argument("--enable-saturate-infinity", action="store_true")
    compiling.add_argument("--enable-mixed-precision-accumulation", action="store_true")
    compiling.add_argument("--logfile", type=Path)
    compiling.add_argument("--workdir", type=Path)
    compiling.add_argument("--verbose", default="user")
    return top


def main(argv: list[str] | None = None) -> int:
    """Compile one module; 70 is the compiler's own exit code for an internal error."""
    arguments = sys.argv[1:] if argv is None else argv
    given = parser().parse_args(arguments)
    knobs = faults()
    try:
        hlo = given.model.read_bytes()
    except OSError as error:
        print(f"[ERROR] cannot read {given.model}: {error.strerror}", file=sys.stderr)
        return 1
    began = time.monotonic()
    held = take_memory(knobs.oom_mib)
    # A model is compiled in two phases, one graph and then all others; a plugin that has one says so.
    phases = int(os.environ.get("LOCAL_COMPILE_PHASES", "2"))
    duration = seconds(hlo, knobs.compile_seconds, phases)
    while (left := began + duration - time.monotonic()) > 0 or _has_to_wait(knobs.compile_until):
        print(".", end="", file=sys.stderr, flush=True)
        time.sleep(min(left, max(0.5, duration / 20)) if left > 0 else 0.5)
    del held
    if knobs.compile_exit:
        said = _internal_error(given.model, knobs.compile_exit)
        print(said, file=sys.stderr, flush=True)
        _log(given.logfile, said)
        return knobs.compile_exit
    places = {str(given.model), str(given.output), str(given.logfile)}
    flags = [argument for argument in arguments if argument not in places]
    given.output.write_bytes(neff(hlo, flags, stack().neuronxcc, given.target))
    _log(given.logfile, "Compiler status PASS")
    print("\nCompiler status PASS", file=sys.stderr, flush=True)
    return 0


def _has_to_wait(until: str) -> bool:
    return bool(until) and not Path(until).exists()


def _log(path: Path | None, said: str) -> None:
    if path is not None:
        path.write_text(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ')} INFO 1 [root]: {said}\n")


def seconds(hlo: bytes, asked: float | None, phases: int = 2) -> float:
    """How long one of a model's graphs takes: a second for a tiny model, two minutes for 70 B parameters.

    Real compilations take minutes to hours; here only the order between models is kept.
    """
    if asked is not None:
        return asked / phases
    try:
        config: dict[str, Any] = json.loads(hlo[hlo.index(b"{") :])["model"]
    except (ValueError, KeyError):
        return 0.5
    return 0.6 + 0.5 * math.sqrt(math.sqrt(parameters(config) / 1e6))


def _internal_error(model: Path, code: int) -> str:
    return (
        f"\n[ERROR] [NCC_INLA001] Unhandled exception with message: Internal tensorizer error: {model.name}: "
        f"DotTransform: assertion failed (exit code {code})\n"
        "[ERROR] Please open a support ticket at https://github.com/aws-neuron/aws-neuron-sdk/issues/new"
    )
