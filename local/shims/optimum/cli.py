"""The `optimum-cli` command line: `export neuron`, `neuron serve`, `neuron cache`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from local.shims import logs
from local.shims.faults import faults
from local.shims.logs import ToolError
from local.shims.silicon import silicon
from local.shims.versions import OPTIMUM, Stack, stack

INSTANCE_TYPE_SINCE = (0, 4)
INSTANCE_TYPES = ("trn1", "inf2", "trn1n", "trn2")
# Options of models other than decoders: taken, and without effect on a decoder, as in the real command.
IGNORED_FLAGS = (
    "--disable_neuron_cache",
    "--trust-remote-code",
    "--inline-weights-neff",
    "--disable-validation",
    "--dynamic-batch-size",
    "--output_hidden_states",
    "--output_attentions",
)
IGNORED_TEXT = ("--subfolder", "--cache_dir", "--compiler_workdir", "--unet")
IGNORED_NUMBERS = (
    "--text_batch_size",
    "--image_batch_size",
    "--num_beams",
    "--num_choices",
    "--num_channels",
    "--width",
    "--height",
    "--image_size",
    "--patch_size",
    "--num_images_per_prompt",
    "--audio_sequence_length",
)
IGNORED_LISTS = (
    "--lora_model_ids",
    "--lora_weight_names",
    "--lora_adapter_names",
    "--lora_scales",
    "--controlnet_ids",
    "--ip_adapter_id",
    "--ip_adapter_subfolder",
    "--ip_adapter_weight_name",
    "--ip_adapter_scale",
)


def parser(installed: Stack = OPTIMUM) -> argparse.ArgumentParser:
    """Every sub-command of this version; those of other back ends are not there."""
    top = argparse.ArgumentParser("optimum-cli", usage="optimum-cli")
    commands = top.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export").add_subparsers(dest="exporter", required=True)
    older = installed.optimum_release < INSTANCE_TYPE_SINCE
    add_export_arguments(exporting.add_parser("neuron"), older=older)
    neuron = commands.add_parser("neuron").add_subparsers(dest="action", required=True)
    if not older:
        add_serve_arguments(neuron.add_parser("serve"))
    cache = neuron.add_parser("cache").add_subparsers(dest="cache_action", required=True)
    add_cache_arguments(cache, older=older)
    return top


def add_export_arguments(export: argparse.ArgumentParser, *, older: bool) -> None:
    """`optimum-cli export neuron`; the instance type is required where there is no Neuron device.

    Before 0.4 there is no such flag, and decoders take their degree from --num_cores alone.
    """
    export.add_argument("-m", "--model", required=True, help="Model ID on huggingface.co or path on disk.")
    export.add_argument("output", type=Path)
    export.add_argument("--task", default="auto")
    if older:
        export.add_argument("--tensor_parallel_size", type=int, default=1)
        export.add_argument("--num_cores", type=int)
    else:
        export.add_argument("--instance_type", choices=INSTANCE_TYPES, required=not silicon().present)
        export.add_argument("--tensor_parallel_size", "--num_cores", type=int, default=1)
    export.add_argument("--batch_size", type=int)
    export.add_argument("--sequence_length", type=int)
    export.add_argument("--auto_cast", choices=["none", "matmul", "all"])
    export.add_argument("--auto_cast_type", choices=["bf16", "fp16", "tf32"], default="bf16")
    export.add_argument("--torch_dtype", choices=["bfloat16", "float16", "float32"], default="float32")
    export.add_argument("--atol", type=float)
    level = export.add_mutually_exclusive_group()
    for name in ("-O1", "-O2", "-O3"):
        level.add_argument(name, action="store_true")
    for name in IGNORED_FLAGS:
        export.add_argument(name, action="store_true")
    for name in IGNORED_TEXT:
        export.add_argument(name)
    for name in IGNORED_NUMBERS:
        export.add_argument(name, type=int)
    for name in IGNORED_LISTS:
        export.add_argument(name, nargs="*")


def add_serve_arguments(serve: argparse.ArgumentParser) -> None:
    """`optimum-cli neuron serve`; what it does not know it hands to vLLM."""
    serve.add_argument("-m", "--model", required=True)
    serve.add_argument("--served_model_name", "--served-model-name")
    serve.add_argument("--task", choices=["generate", "embed"], default="generate")
    serve.add_argument("--tensor_parallel_size", "--tensor-parallel-size", type=int)
    serve.add_argument("--batch_size", "--batch-size", type=int)
    serve.add_argument("--sequence_length", "--sequence-length", type=int)
    serve.add_argument("--port", type=int, default=8080)
    serve.add_argument("--allow_non_cached_model", "--allow-non-cached-model", action="store_true")


def add_cache_arguments(cache: argparse._SubParsersAction[argparse.ArgumentParser], *, older: bool) -> None:
    """`optimum-cli neuron cache create|set|synchronize|lookup`; before 0.4 `lookup` selects nothing."""
    create = cache.add_parser("create")
    create.add_argument("-n", "--name")
    create.add_argument("--public", action="store_true")
    cache.add_parser("set").add_argument("name")
    synchronize = cache.add_parser("synchronize")
    synchronize.add_argument("--repo_id")
    synchronize.add_argument("--cache_dir")
    lookup = cache.add_parser("lookup")
    lookup.add_argument("model_id")
    lookup.add_argument("--task")
    lookup.add_argument("--repo_id")
    if older:
        return
    lookup.add_argument("--instance_type", choices=INSTANCE_TYPES)
    lookup.add_argument("--dtype", choices=["bfloat16", "float16"])
    for name in ("--tensor_parallel_size", "--batch_size", "--sequence_length"):
        lookup.add_argument(name, type=int)


def main(argv: list[str] | None = None) -> int:
    """Run one command; failures end as the interpreter's own, with exit code 1 and a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    serving = arguments[:2] == ["neuron", "serve"]
    installed = stack(OPTIMUM)
    given, unknown = parser(installed).parse_known_args(arguments)
    if unknown and not serving:
        parser(installed).error(f"unrecognized arguments: {' '.join(unknown)}")
    faults()  # refuses a knob that does not exist
    try:
        if given.command == "export":
            from local.shims.optimum.export import export

            export(given)
        elif given.action == "serve":
            from local.shims.optimum.serve import serve

            return serve(given, unknown)
        else:
            from local.shims.optimum.hub_cache import run

            run(given)
    except ToolError as error:
        if given.command == "export":
            logs.traceback(error, "optimum/exporters/neuron/__main__.py:809 in main")
            command = "python3 -m optimum.exporters.neuron " + " ".join(arguments[2:])
            message = f"Command '{command}' returned non-zero exit status 1."
            error = ToolError("subprocess.CalledProcessError", message)
        logs.traceback(error, "optimum/commands/optimum_cli.py:219 in main")
        return 1
    return 0
