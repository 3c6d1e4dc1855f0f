"""The `vllm` command: `vllm serve MODEL …`, `vllm --version`."""

from __future__ import annotations

import argparse
import os
import sys

from local.shims import logs
from local.shims.faults import faults, take_memory
from local.shims.logs import ToolError
from local.shims.server.options import parse
from local.shims.silicon import silicon
from local.shims.versions import NATIVE, NXDI, OPTIMUM, Stack, stack


def installed_stack() -> Stack:
    """The stack of the image; without one, what the environment of the engines tells."""
    if "NEURON_COMPILED_ARTIFACTS" in os.environ:
        return stack(NXDI)
    if any(name == "VLLM_CACHE_ROOT" or name.startswith("VLLM_NEURON_") for name in os.environ):
        return stack(NATIVE)
    return stack(OPTIMUM)


def main(argv: list[str] | None = None) -> int:
    """Serve, or show the version."""
    arguments = sys.argv[1:] if argv is None else argv
    installed = installed_stack()
    if arguments[:1] in (["--version"], ["-v"]):
        print(installed.vllm)
        return 0
    if arguments[:1] != ["serve"]:
        known = "{chat,complete,serve,bench,collect-env,run-batch}"
        print(f"usage: vllm [-h] [-v] {known} ...\nvllm: error: only `serve` is here", file=sys.stderr)
        return 2
    return run(parse(arguments[1:], installed), installed)


def run(given: argparse.Namespace, installed: Stack) -> int:
    """Load the model, then serve until SIGTERM; a failure to load ends with a traceback and code 1."""
    if given.model_tag is not None:
        given.model = given.model_tag
    if os.environ.get("LOCAL_REAL_VLLM") == "1":
        from local.shims.server.real import hand_over

        hand_over(given)
    knobs, devices = faults(), silicon()
    logs.vllm(f"vLLM API server version {installed.vllm}")
    logs.vllm(f"non-default args: {{'model': {given.model!r}}}", place="utils.py:233")
    held = take_memory(knobs.oom_mib)
    from local.shims.server.loading import load

    try:
        if knobs.crash_on_start:
            raise ToolError("RuntimeError", knobs.crash_on_start)
        loaded = load(given, installed, devices, knobs)
    except ToolError as error:
        logs.traceback(error, "vllm/v1/engine/core.py:699 in run_engine_core")
        failed = ToolError("RuntimeError", "Engine core initialization failed. See root cause above.")
        logs.traceback(failed, "vllm/entrypoints/cli/serve.py:57 in cmd")
        return 1
    from local.shims.server.lifecycle import serve

    serve(given, installed, loaded, knobs)
    del held
    return 0


if __name__ == "__main__":
    sys.exit(main())
