"""NxD Inference: what `inference_demo` takes and writes, and what `vllm serve` makes of its artifacts."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local.checkpoints.tensorfile import read_entries
from local.checkpoints.weights import bf16_bytes
from local.shims.nxdi.demo import main
from local.shims.nxdi.quantizing import bf16_floats, e4m3_values, quantize
from local.shims.server import vllm

from .clients import chat, post
from .conftest import NO_WAIT, PATIENCE, TRN2, Call, Run, Served, environment, starting_servers

IMAGE = "public.ecr.aws/neuron/pytorch-inference-vllm-neuronx:0.16.0-neuronx-py312-sdk2.31.1-ubuntu24.04"
SETTINGS = {"NEURON_PLATFORM_TARGET_OVERRIDE": "trn2", "LOCAL_IMAGE": IMAGE}
CONFIG_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
LOADED = "Successfully loaded pre-compiled model artifacts from"
RECOMPILING = "Unable to find precompiled artifacts from {}. Recompiling..."
Command = list[str | Path]
Serve = Callable[..., Served]


ONE_BUCKET = ("--context-encoding-buckets", "1024", "--token-generation-buckets", "1024")


def demo(model: Path, output: Path, *flags: str | Path, model_type: str = "llama") -> Command:
    """The command line of a compile pod."""
    command: Command = ["inference_demo", "--model-type", model_type, "--task-type", "causal-lm", "run"]
    command += ["--model-path", model, "--compiled-model-path", output, "--torch-dtype", "bfloat16"]
    command += ["--tp-degree", "4", "--batch-size", "4", "--max-context-length", "1024", "--seq-len", "1024"]
    command += ["--is-continuous-batching", "--ctx-batch-size", "1", "--tkg-batch-size", "4"]
    command += ["--on-device-sampling", "--enable-bucketing", "--fused-qkv", "--logical-nc-config", "2"]
    return [*command, *flags, "--compile-only", "--prompt", "Hello"]


def compile_into(folder: Path, model: Path, *flags: str) -> Path:
    settings = environment(folder, faults=NO_WAIT, **SETTINGS)
    command = [str(part) for part in demo(model, folder / "compiled", *ONE_BUCKET, *flags)]
    subprocess.run(command, env=settings, check=True, capture_output=True, timeout=PATIENCE)
    return folder / "compiled"


@pytest.fixture(scope="module")
def sharded(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_into(tmp_path_factory.mktemp("sharded"), checkpoint, "--save-sharded-checkpoint")


@pytest.fixture(scope="module")
def graphs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled from a folder that is gone when it is served, as a compile pod's is."""
    folder = tmp_path_factory.mktemp("graphs")
    shutil.copytree(checkpoint, folder / "model")
    compiled = compile_into(folder, folder / "model")
    shutil.rmtree(folder / "model")
    return compiled


def deployed(compiled: Path, model: Path, target: Path, *, weights: bool) -> Path:
    """One directory as a server has it: the compiled set, and the model's own files."""
    shutil.copytree(compiled, target)
    for path in model.iterdir():
        if weights or path.suffix != ".safetensors":
            shutil.copy(path, target)
    return target


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serve]:
    with starting_servers() as begin:

        def _serve(model: Path, *flags: str, artifacts: Path | None = None, **settings: Any) -> Served:
            command: Command = ["vllm", "serve", model, "--served-model-name", "tiny", "alias"]
            command += ["--tensor-parallel-size", "4", "--max-model-len", "1024", "--max-num-seqs", "4"]
            command += ["--num-gpu-blocks-override", "4", *flags]
            if artifacts is not None:
                settings["NEURON_COMPILED_ARTIFACTS"] = str(artifacts)
            return begin(command, tmp_path, faults=NO_WAIT, LOCAL_IMAGE=IMAGE, **settings)

        yield _serve


def answers(served: Served) -> bool:
    status, answer = post(f"{served.url}/v1/chat/completions", chat(max_tokens=4, model="alias"))
    return (status, answer["usage"]["completion_tokens"]) == (200, 4)


def test_a_compiled_set_holds_weights_only_when_asked_to(sharded: Path, graphs: Path) -> None:
    def files(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    bare = {"model.pt", "neuron_config.json"}
    assert files(graphs) == bare
    assert files(sharded) == bare | {f"weights/tp{rank}_sharded_checkpoint.safetensors" for rank in range(4)}


def test_neuron_config_is_the_models_with_nxds_own_inside(sharded: Path, checkpoint: Path) -> None:
    content = json.loads((sharded / "neuron_config.json").read_text())
    assert (content["model_type"], content["_name_or_path"]) == ("llama", str(checkpoint))
    assert "torch_dtype" not in content
    neuron = content["neuron_config"]
    assert {name: neuron[name] for name in ("tp_degree", "seq_len", "max_batch_size", "ctx_batch_size")} == {
        "tp_degree": 4,
        "seq_len": 1024,
        "max_batch_size": 4,
        "ctx_batch_size": 1,
    }
    assert (neuron["save_sharded_checkpoint"], neuron["torch_dtype"]) == (True, "bfloat16")


def test_every_bucket_is_a_graph_and_weights_are_part_of_none(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    first = run(*demo(checkpoint, tmp_path / "a"), faults=NO_WAIT, **SETTINGS)
    assert first.stderr.count("Call compiler with cmd") == 2 * len((128, 256, 512, 1024))
    assert "SKIPPING pre-sharding the checkpoints. The checkpoints will be sharded" in first.stderr
    again = run(*demo(checkpoint, tmp_path / "b", "--save-sharded-checkpoint"), faults=NO_WAIT, **SETTINGS)
    assert again.stderr.count("Using a cached neff at") == 8
    assert "Pre-sharding checkpoints." in again.stderr


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"--prompt": None}, 2, "the following arguments are required: --prompt"),
        ({"--model-type": "llama4"}, 2, "argument --model-type: invalid choice: 'llama4'"),
        ({"--served-model-name": "x"}, 2, "unrecognized arguments: --served-model-name x"),
        ({"--torch-dtype": "bf16"}, 1, "AssertionError: Unsupported dtype: bf16"),
        ({"--task-type": "text-generation"}, 1, "AssertionError: Unsupported task: llama/text-generation"),
        (
            {"--max-context-length": "2048"},
            1,
            "AssertionError: max_context_length cannot be more than max_length",
        ),
    ],
)
def test_a_wrong_command_line_is_refused_as_the_real_one_words_it(
    checkpoint: Path, tmp_path: Path, call: Call, change: dict[str, str | None], code: int, said: str
) -> None:
    command = demo(checkpoint, tmp_path / "compiled")
    for name, value in change.items():
        if name not in command:
            command += [name, str(value)]
        elif value is None:
            del command[command.index(name) : command.index(name) + 2]
        else:
            command[command.index(name) + 1] = value
    refused = call(main, *command[1:], **SETTINGS)
    assert (refused.returncode, said in refused.stderr) == (code, True)


def test_a_host_without_devices_has_to_say_for_what_it_compiles(
    checkpoint: Path, tmp_path: Path, call: Call
) -> None:
    refused = call(main, *demo(checkpoint, tmp_path / "compiled")[1:])
    assert refused.returncode == 1
    assert "RuntimeError: Unsupported Platform" in refused.stderr


def test_heads_are_padded_and_the_environment_says_how_many_cores_make_one(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    command = demo(checkpoint, tmp_path / "compiled", *ONE_BUCKET, "--tp-degree", "8")
    assert run(*command, faults=NO_WAIT, NEURON_LOGICAL_NC_CONFIG="1", **SETTINGS).returncode == 0
    neuron = json.loads((tmp_path / "compiled/neuron_config.json").read_text())["neuron_config"]
    assert (neuron["tp_degree"], neuron["logical_nc_config"]) == (8, 1)


def test_a_failed_compilation_leaves_its_configuration_and_poisons_the_cache(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    command = demo(checkpoint, tmp_path / "compiled", *ONE_BUCKET)
    failed = run(*command, faults=NO_WAIT | {"compile_exit": 70}, **SETTINGS)
    assert failed.returncode == 1
    assert "returned non-zero exit status 70" in failed.stderr
    assert [path.name for path in (tmp_path / "compiled").iterdir()] == ["neuron_config.json"]
    assert "Got a cached failed neff at" in run(*command, faults=NO_WAIT, **SETTINGS).stderr
    retried = run(*command, faults=NO_WAIT, NEURON_CC_FLAGS="--retry_failed_compilation", **SETTINGS)
    assert retried.returncode == 0


def test_the_cache_of_the_flags_wins_over_the_variable(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    places = {
        "NEURON_CC_FLAGS": f"--cache_dir={tmp_path / 'a'}",
        "NEURON_COMPILE_CACHE_URL": str(tmp_path / "b"),
    }
    command = demo(checkpoint, tmp_path / "compiled", *ONE_BUCKET)
    assert run(*command, faults=NO_WAIT, **places, **SETTINGS).returncode == 0
    assert list((tmp_path / "a").glob("neuronxcc-*/MODULE_*/model.neff"))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("dtype", "stored"), [("int8", "I8"), ("f8e4m3", "F8_E4M3")])
def test_quantized_weights_are_written_and_sharded(
    checkpoint: Path, tmp_path: Path, run: Run, dtype: str, stored: str
) -> None:
    (tmp_path / "quantized").mkdir()
    flags: Command = ["--quantized", "--quantization-dtype", dtype, "--save-sharded-checkpoint"]
    flags += ["--quantization-type", "per_channel_symmetric", *ONE_BUCKET]
    flags += ["--quantized-checkpoints-path", tmp_path / "quantized"]
    done = run(*demo(checkpoint, tmp_path / "compiled", *flags), faults=NO_WAIT, **SETTINGS)
    assert done.returncode == 0, done.stderr
    entries = {
        entry.name: entry
        for entry in read_entries(tmp_path / "compiled/weights/tp1_sharded_checkpoint.safetensors")
    }
    assert entries["layers.0.mlp.up_proj.weight"].dtype == stored
    assert entries["layers.0.mlp.up_proj.scale"].shape == (128, 1)
    assert entries["layers.0.mlp.down_proj.scale"].shape == (256, 1)
    assert entries["norm.weight"].dtype == "BF16"


def test_quantizing_needs_a_place_for_the_weights(checkpoint: Path, tmp_path: Path, call: Call) -> None:
    refused = call(main, *demo(checkpoint, tmp_path / "compiled", "--quantized")[1:], **SETTINGS)
    assert "AssertionError: quantized_checkpoints_path is required" in refused.stderr


@pytest.mark.parametrize("dtype", ["int8", "f8e4m3"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_quantized_values_times_their_scale_are_the_values(dtype: str, per_channel: bool) -> None:
    drawn = np.random.default_rng(3).normal(size=(8, 64)).astype(np.float32)
    values = bf16_floats(bf16_bytes(drawn)).reshape(drawn.shape)
    stored, scale = quantize(values, dtype, per_channel=per_channel)
    if dtype == "int8":
        weights = np.frombuffer(stored, np.int8).astype(np.float32)
        allowed = 0.5 * np.broadcast_to(scale, values.shape)
    else:
        codes = np.frombuffer(stored, np.uint8)
        weights = e4m3_values()[codes & 0x7F] * np.where(codes & 0x80, -1, 1)
        allowed = np.abs(values) / 16 + scale * 2.0**-9
    assert (np.abs(weights.reshape(values.shape) * scale - values) <= allowed + 1e-6).all()


def test_sharded_artifacts_are_served_without_the_models_weights(
    sharded: Path, checkpoint: Path, tmp_path: Path, serving: Serve
) -> None:
    folder = deployed(sharded, checkpoint, tmp_path / "r1", weights=False)
    override = '{"override_neuron_config":{"skip_warmup":true}}'
    served = serving(folder, "--additional-config", override, artifacts=folder)
    assert answers(served)
    log = served.log()
    assert f"{LOADED} {folder}" in log
    assert "Using pre-compiled artifacts, override_neuron_config will be ignored" in log
    assert "Loading presharded checkpoints for ranks: 0...3" in log
    assert "Call compiler" not in log


def test_graphs_alone_are_served_with_the_weights_beside_them(
    graphs: Path, checkpoint: Path, tmp_path: Path, serving: Serve
) -> None:
    folder = deployed(graphs, checkpoint, tmp_path / "r1", weights=True)
    served = serving(folder, artifacts=folder)
    assert answers(served)
    assert f"{LOADED} {folder}" in served.log()
    assert "Sharding weights on load..." in served.log()


def _lacks_a_shard(folder: Path) -> None:
    (folder / "weights" / "tp2_sharded_checkpoint.safetensors").unlink()


def _is_no_json(folder: Path) -> None:
    (folder / "neuron_config.json").write_text("{")


def _lacks_the_model(folder: Path) -> None:
    (folder / "model.pt").unlink()


@pytest.mark.parametrize("damage", [_lacks_a_shard, _is_no_json, _lacks_the_model])
def test_what_is_missing_is_silently_compiled_again_into_the_artifacts(
    sharded: Path,
    checkpoint: Path,
    tmp_path: Path,
    serving: Serve,
    damage: Callable[[Path], None],
) -> None:
    shutil.copytree(sharded, tmp_path / "other")
    damage(tmp_path / "other")
    few = '{"override_neuron_config":{"enable_bucketing":false}}'
    served = serving(checkpoint, "--additional-config", few, artifacts=tmp_path / "other")
    assert answers(served)
    log = served.log()
    assert LOADED not in log
    assert RECOMPILING.format(tmp_path / "other") in log
    assert "Call compiler with cmd" in log or "Using a cached neff" in log
    content = json.loads((tmp_path / "other" / "neuron_config.json").read_text())
    assert content["neuron_config"]["save_sharded_checkpoint"] is False


def serve_command(model: Path) -> Command:
    return [
        "vllm",
        "serve",
        model,
        "--tensor-parallel-size",
        "4",
        "--max-model-len",
        "1024",
        "--max-num-seqs",
        "4",
    ]


@pytest.mark.parametrize(
    ("file", "silicon", "said"),
    [
        ("model.pt", TRN2, "PytorchStreamReader failed reading zip archive"),
        (
            "weights/tp0_sharded_checkpoint.safetensors",
            TRN2,
            "SafetensorError: Error while deserializing header",
        ),
        (None, {"instance_type": "trn1.32xlarge", "devices": [0, 1]}, "the NEFF was compiled for trn2"),
        (None, None, "Failed to infer device type"),
    ],
)
def test_what_is_damaged_or_does_not_fit_the_chip_ends_the_server(
    sharded: Path,
    checkpoint: Path,
    tmp_path: Path,
    call: Call,
    file: str | None,
    silicon: dict[str, Any] | None,
    said: str,
) -> None:
    folder = deployed(sharded, checkpoint, tmp_path / "r1", weights=False)
    if file is not None:
        (folder / file).write_bytes(b"broken")
    settings = {"NEURON_COMPILED_ARTIFACTS": str(folder), "LOCAL_IMAGE": IMAGE}
    ended = call(vllm.main, *serve_command(folder)[1:], silicon=silicon, **settings)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Recompiling" not in ended.stderr


def test_without_the_variable_a_local_model_is_always_compiled(
    checkpoint: Path, tmp_path: Path, call: Call
) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    command = [*serve_command(tmp_path / "model")]
    ended = call(
        vllm.main, *command[1:], silicon=TRN2, faults=NO_WAIT | {"compile_exit": 70}, LOCAL_IMAGE=IMAGE
    )
    assert "neuron-compiled-artifacts" in ended.stderr
    assert "Recompiling..." in ended.stderr
