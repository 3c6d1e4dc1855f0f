"""The command `text-generation-launcher`: check, "download", start the shard, warm it up, serve."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from local.shims import logs
from local.shims.compiler.neff import check_model_runs
from local.shims.compiler.traced import read_model
from local.shims.faults import Faults, faults, take_memory
from local.shims.logs import ToolError
from local.shims.optimum.config import model_config, read_neuron_config
from local.shims.optimum.export import export_model
from local.shims.server.loading import Loaded, exported_weights, settle
from local.shims.silicon import Silicon, silicon
from local.shims.tgi import entry_point
from local.shims.tgi.flags import parser
from local.shims.tgi.metrics import TgiMetrics
from local.shims.versions import TGI, Stack, stack


class LauncherError(Exception):
    """What `main` of the launcher returns; printed as `Error: <this>`, exit code 1."""


def entrypoint(argv: list[str] | None = None) -> int:
    """The image's own entry point: take what is not given from the export, then launch."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        os.environ.update(entry_point.environment(arguments, stack(TGI), silicon()))
    except ToolError as error:
        logs.traceback(error, "tgi_entry_point.py:53 in main")
        return 1
    return main(arguments)


def main(argv: list[str] | None = None) -> int:
    """Serve an exported model with TGI's endpoints until SIGTERM."""
    given = parser().parse_args(argv)
    installed, devices, knobs = stack(TGI), silicon(), faults()
    try:
        _check_arguments(given)
        neuron = _download(given, installed, devices)
        loaded = _start_shard(given, neuron, devices, knobs)
        serving = _warm_up(given, neuron, loaded, knobs)
    except LauncherError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        return 1
    from local.shims.server import lifecycle
    from local.shims.tgi.endpoints import TgiServer

    options = argparse.Namespace(
        model=given.model_id,
        served_model_name=None,
        host=given.hostname if _is_address(given.hostname) else "0.0.0.0",
        port=given.port,
        api_key=given.api_key,
        shutdown_timeout=given.graceful_termination_timeout,
    )
    server: Any = functools.partial(
        TgiServer,
        max_input_tokens=given.max_input_tokens,
        max_concurrent_requests=given.max_concurrent_requests,
        max_stop_sequences=given.max_stop_sequences,
    )
    lifecycle.serve(options, installed, serving, knobs, server)
    return 0


def _is_address(host: str) -> bool:
    return host.replace(".", "").isdigit() or ":" in host


def _check_arguments(given: argparse.Namespace) -> None:
    if given.max_input_tokens is not None and given.max_input_length is not None:
        raise LauncherError(
            f'ArgumentValidation("Both `max_input_tokens` ({given.max_input_tokens}) and `max_input_length` '
            f"({given.max_input_length}) are set. Please define only `max_input_tokens` as "
            '`max_input_length is deprecated for naming consistency.")'
        )
    most, total = given.max_input_tokens or given.max_input_length, given.max_total_tokens
    if most is not None and total is not None and most >= total:
        raise LauncherError(
            f'ArgumentValidation("`max_input_tokens`({most}) must be < `max_total_tokens`({total})")'
        )
    given.max_input_tokens = most


def _download(given: argparse.Namespace, installed: Stack, devices: Silicon) -> dict[str, Any]:
    """The export's configuration. What is no export that fits is taken for a model that has none."""
    logs.tgi(f"Starting check and download process for {given.model_id}", thread="download")
    failure = ToolError("SystemError", "No neuron cores detected on the host.")
    if devices.present:
        try:
            if neuron := read_neuron_config(Path(given.model_id), installed):
                logs.tgi(f"Successfully downloaded weights for {given.model_id}", thread="download")
                return neuron
        except ToolError:
            pass  # the real one logs it at debug level only
        failure = ToolError(
            "ValueError",
            f"No cached version found for {given.model_id} with {{'batch_size': {given.max_batch_size}, "
            f"'sequence_length': {given.max_total_tokens}, 'num_cores': None, 'auto_cast_type': None}}."
            "You can start a discussion to request it on "
            "https://huggingface.co/aws-neuron/optimum-neuron-cache",
        )
    logs.tgi(f"Download encountered an error: \n{failure.kind}: {failure}", "ERROR", thread="download")
    raise LauncherError("DownloadError")


def _start_shard(
    given: argparse.Namespace, neuron: dict[str, Any], devices: Silicon, knobs: Faults
) -> Loaded:
    """Load the export onto the devices, in what is a process of its own in reality."""
    folder = Path(given.model_id)
    logs.tgi("Starting shard", thread="shard-manager")
    held = take_memory(knobs.oom_mib)
    try:
        if knobs.crash_on_start:
            raise ToolError("RuntimeError", knobs.crash_on_start)
        config = model_config(folder)
        if knobs.recompile:
            folder = _exported_again(folder, neuron, devices)
        else:
            logs.tgi("Loading model on neuron devices (this can take a few minutes).")
        if neuron["batch_size"] > 1 and not neuron["continuous_batching"]:
            raise ToolError("ValueError", "The neuron model must be compiled with continuous_batching=True.")
        read_model(folder / "model.pt")
        check_model_runs(folder / "model.pt", devices)
        if neuron["tp_degree"] > devices.available_cores():
            raise ToolError(
                "RuntimeError",
                f"nrt_init: {neuron['tp_degree']} Neuron cores are needed, "
                f"{devices.available_cores()} are available.",
            )
        loaded = settle(
            config,
            exported_weights(folder, folder, neuron),
            devices,
            degree=neuron["tp_degree"],
            max_model_len=neuron["sequence_length"],
            max_num_seqs=neuron["batch_size"],
        )
    except ToolError as error:
        logs.tgi(f"Shard complete standard error output:\n\n{error.kind}: {error}", "ERROR")
        logs.tgi("Shard 0 failed to start", "ERROR")
        raise LauncherError("ShardCannotStart") from None
    finally:
        del held
    logs.tgi("Shard ready in 1.0s", thread="shard-manager")
    return loaded


def _exported_again(folder: Path, neuron: dict[str, Any], devices: Silicon) -> Path:
    """The knob: as if the export could not be used, compile while starting."""
    import tempfile

    settings = {"batch_size": neuron["batch_size"], "sequence_length": neuron["sequence_length"]}
    logs.tgi(f"Exporting model to neuron with config: {settings | {'num_cores': neuron['tp_degree']}}.")
    os.environ["NEURON_COMPILE_CACHE_URL"] = tempfile.mkdtemp(prefix="neuron-compile-cache-")
    output = Path(tempfile.mkdtemp(prefix="neuron-export-"))
    export_model(
        folder,
        output,
        task="text-generation",
        target=devices.target,
        batch_size=neuron["batch_size"],
        sequence_length=neuron["sequence_length"],
        degree=neuron["tp_degree"],
        weights=False,
    )
    (output / "checkpoint").symlink_to((folder / "checkpoint").resolve())
    return output


def _warm_up(given: argparse.Namespace, neuron: dict[str, Any], loaded: Loaded, knobs: Faults) -> Loaded:
    """The router's checks and its warm-up request; nothing listens before it is answered."""
    logs.tgi("Starting Webserver")
    most, total = given.max_input_tokens or 1024, given.max_total_tokens or 2048
    given.max_input_tokens, given.max_total_tokens = most, total
    positions = int(model_config(Path(given.model_id)).get("max_position_embeddings", 4096))
    prefill = given.max_batch_prefill_tokens or min(4096, positions)
    failure = ""
    if most >= total:
        failure = "`max_input_tokens` must be < `max_total_tokens`"
    elif most > prefill:
        failure = f"`max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: {prefill} and {most}"
    elif given.max_batch_size == 0:
        failure = "`max_batch_size` must be > 0"
    if failure:
        print(f'Error: ArgumentValidation("{failure}")', flush=True)
        return _crashed()
    logs.tgi("Warming up model", target="text_generation_router_v2")
    requests = min(-(-prefill // most), given.max_batch_size or prefill)
    if requests > neuron["batch_size"]:
        print(
            'Error: Backend(Warmup(Generation("Inconsistent batch_size configuration: Please make sure the '
            f"batch_size in the compiled model (currently {neuron['batch_size']}) matches the batch_size "
            'passed to TGI.")))',
            flush=True,
        )
        return _crashed()
    supported = neuron["batch_size"] * neuron["sequence_length"]
    if total > supported:
        print(f"Error: Backend(NotEnoughMemory({total}))", flush=True)
        return _crashed()
    if knobs.never_ready:
        import signal

        signal.pause()  # the warm-up request is never answered
    logs.tgi(f"Setting max batch total tokens to {supported}", target="text_generation_router_v2")
    logs.tgi("Using backend V3", target="text_generation_router_v2")
    return replace(
        loaded,
        max_model_len=min(total, loaded.max_model_len),
        max_num_seqs=min(given.max_batch_size or loaded.max_num_seqs, loaded.max_num_seqs),
        make_metrics=functools.partial(TgiMetrics, max_input_tokens=most),
    )


def _crashed() -> NoReturn:
    logs.tgi("Webserver Crashed", "ERROR")
    logs.tgi("Shutting down shards")
    raise LauncherError("WebserverFailed")
