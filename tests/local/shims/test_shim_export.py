"""`optimum-cli export neuron`: layouts, cache, refusals, faults."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from local.checkpoints.checkpoint import write_checkpoint
from local.checkpoints.shape import Shape
from local.checkpoints.tensorfile import read_entries
from local.shims.compiler.shards import join_shards

from .conftest import NO_WAIT, TRN2, Run, export_command

CACHE = "neuron-compile-cache/neuronxcc-2.21.33363.0+82129205"
KEYS = {
    *(
        [
            "_serialized_key",
            "optimum_neuron_version",
            "neuronxcc_version",
            "checkpoint_id",
            "checkpoint_revision",
        ]
    ),
    *(["batch_size", "max_batch_size", "continuous_batching", "speculation_length", "sequence_length"]),
    *(["tp_degree", "ep_degree", "pp_degree", "torch_dtype", "n_active_tokens", "max_context_length"]),
    *(["output_logits", "fused_qkv", "target", "on_device_sampling", "max_topk", "start_rank_id"]),
    *(["local_ranks_size", "capacity_factor", "glu_mlp"]),
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_has_the_real_layout(exported: Path) -> None:
    assert set(files(exported)) == {
        "config.json",
        "generation_config.json",
        "model.pt",
        "neuron_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        *(f"checkpoint/weights/tp{rank}_sharded_checkpoint.safetensors" for rank in range(4)),
    }


def test_the_neuron_config_has_every_key(exported: Path) -> None:
    config = json.loads((exported / "neuron_config.json").read_text())
    assert set(config) == KEYS
    assert config["continuous_batching"] is True
    assert (config["target"], config["tp_degree"], config["batch_size"]) == ("trn2", 4, 4)
    assert (config["optimum_neuron_version"], config["checkpoint_id"]) == ("0.4.5", None)


def test_the_shards_are_the_checkpoint_in_parts(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    joined = tmp_path / "joined.safetensors"
    join_shards(exported / "checkpoint" / "weights", joined, exported / "config.json")

    def values(paths: list[Path]) -> dict[str, bytes]:
        return {e.name: p.read_bytes()[e.start : e.stop] for p in paths for e in read_entries(p)}

    assert values([joined]) == values(sorted(checkpoint.glob("*.safetensors")))


def test_the_graphs_are_in_the_model_file(exported: Path) -> None:
    names = zipfile.ZipFile(exported / "model.pt").namelist()
    neffs = [name for name in names if name.endswith(".neff")]
    assert neffs == ["model/neffs/context_encoding_model.neff", "model/neffs/token_generation_model.neff"]


def test_a_weights_only_revision_is_a_cache_hit_with_the_same_graph(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    other = write_checkpoint(tmp_path / "other", seed=2)
    first = run(*export_command(checkpoint, tmp_path / "a"), faults=NO_WAIT)
    second = run(*export_command(other, tmp_path / "b"), faults=NO_WAIT)
    assert first.stderr.count("Call compiler with cmd: neuronx-cc compile --target=trn2") == 2
    assert "Call compiler" not in second.stderr
    assert second.stderr.count("Using a cached neff at") == 2
    changed = {
        name for name, content in files(tmp_path / "a").items() if files(tmp_path / "b")[name] != content
    }
    assert changed == {f"checkpoint/weights/tp{rank}_sharded_checkpoint.safetensors" for rank in range(4)}


@pytest.mark.parametrize("flags", [{"batch_size": 2}, {"sequence_length": 512}, {"tensor_parallel_size": 2}])
def test_another_shape_is_another_graph(
    checkpoint: Path, exported: Path, tmp_path: Path, run: Run, flags: dict[str, int]
) -> None:
    run(*export_command(checkpoint, tmp_path / "a", **flags), faults=NO_WAIT)
    assert (tmp_path / "a" / "model.pt").read_bytes() != (exported / "model.pt").read_bytes()


def test_the_cache_has_the_real_layout(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    run(*export_command(checkpoint, tmp_path / "a"), faults=NO_WAIT)
    modules = list((tmp_path / CACHE).iterdir())
    assert len(modules) == 2
    for module in modules:
        assert {path.name for path in module.iterdir()} == {
            "model.hlo_module.pb",
            "compile_flags.json",
            "model.neff",
            "model.done",
        }


def test_a_failed_compilation_poisons_its_entry_until_a_retry_is_asked_for(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    command = export_command(checkpoint, tmp_path / "a")
    failed = run(*command, faults=NO_WAIT | {"compile_exit": 70})
    assert failed.returncode == 1
    assert "returned non-zero exit status 70" in failed.stderr
    entry = next((tmp_path / CACHE).iterdir())
    assert {path.name for path in entry.iterdir()} == {
        "model.hlo_module.pb",
        "compile_flags.json",
        "model.log",
    }
    again = run(*command, faults=NO_WAIT)
    assert again.returncode == 1
    assert "Got a cached failed neff at" in again.stderr
    retried = run(*command, faults=NO_WAIT, NEURON_CC_FLAGS="--retry_failed_compilation")
    assert retried.returncode == 0
    assert not (entry / "model.log").exists()


def test_the_cache_folder_is_chosen_by_flag_then_by_url(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    url, flag = tmp_path / "by-url", tmp_path / "by-flag"
    settings = {"NEURON_COMPILE_CACHE_URL": str(url)}
    run(*export_command(checkpoint, tmp_path / "a"), faults=NO_WAIT, **settings)
    assert len(list(url.glob("neuronxcc-*/MODULE_*+*"))) == 2
    run(
        *export_command(checkpoint, tmp_path / "b"),
        faults=NO_WAIT,
        NEURON_CC_FLAGS=f"--cache_dir={flag}",
        **settings,
    )
    assert len(list(flag.glob("neuronxcc-*/MODULE_*+*"))) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"tensor_parallel_size": 3}, "tensor_parallel_size 3 is not supported on trn2"),
        ({"task": "feature-extraction"}, "Model type llama is not supported for task feature-extraction"),
    ],
)
def test_what_cannot_run_is_not_exported(
    checkpoint: Path, tmp_path: Path, run: Run, flags: dict[str, object], message: str
) -> None:
    refused = run(*export_command(checkpoint, tmp_path / "a", **flags))
    assert refused.returncode == 1
    assert message in refused.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--instance_type", "trn2", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--instance_type", "p5"], "invalid choice: 'p5'"),
        ([], "the following arguments are required: --instance_type"),
    ],
)
def test_wrong_flags_are_refused_with_code_2(
    checkpoint: Path, run: Run, arguments: list[str], message: str
) -> None:
    refused = run("optimum-cli", "export", "neuron", "-m", checkpoint, *arguments, "out")
    assert refused.returncode == 2
    assert message in refused.stderr


def test_a_model_without_a_neuron_class_is_refused(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(checkpoint, tmp_path / "mamba")
    config = json.loads((checkpoint / "config.json").read_text()) | {"model_type": "mamba"}
    (tmp_path / "mamba" / "config.json").write_text(json.dumps(config))
    refused = run(*export_command(tmp_path / "mamba", tmp_path / "a"))
    assert "Model type mamba is not supported for task text-generation" in refused.stderr


def test_a_checkpoint_with_a_missing_shard_is_refused(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(checkpoint, tmp_path / "half")
    (tmp_path / "half" / "model-00002-of-00002.safetensors").unlink()
    refused = run(*export_command(tmp_path / "half", tmp_path / "a"), faults=NO_WAIT)
    assert refused.returncode == 1
    assert "No such file or directory" in refused.stderr


def test_an_instance_type_is_optional_where_there_is_one(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    command = [
        "optimum-cli",
        "export",
        "neuron",
        "-m",
        checkpoint,
        "--tensor_parallel_size",
        "4",
        tmp_path / "a",
    ]
    assert run(*command, silicon=TRN2, faults=NO_WAIT).returncode == 0
    config = json.loads((tmp_path / "a" / "neuron_config.json").read_text())
    assert (config["target"], config["batch_size"], config["sequence_length"]) == ("trn2", 1, 4096)
    assert config["continuous_batching"] is False


def test_an_unknown_fault_knob_is_refused(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    refused = run(*export_command(checkpoint, tmp_path / "a"), faults={"slowly": 2})
    assert refused.returncode == 1
    assert "unknown knob slowly" in refused.stderr


def test_the_registry_of_exports_is_looked_up(exported: Path, tmp_path: Path, run: Run) -> None:
    lookup = ["optimum-cli", "neuron", "cache", "lookup", "acme/tiny"]
    assert "No cached entries found for acme/tiny." in run(*lookup).stdout
    (tmp_path / "registry" / "acme" / "tiny").mkdir(parents=True)
    shutil.copy(exported / "neuron_config.json", tmp_path / "registry" / "acme" / "tiny" / "one.json")
    found = run(*lookup, "--instance_type", "trn2", LOCAL_NEURON_CACHE_REGISTRY=str(tmp_path / "registry"))
    assert found.stdout.splitlines()[-1].split() == ["4", "1024", "4", "bfloat16", "trn2"]


def test_a_lookup_says_no_with_code_0_and_fails_for_what_it_cannot_ask(
    exported: Path, checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    lookup = ["optimum-cli", "neuron", "cache", "lookup", "acme/tiny"]
    assert run(*lookup).returncode == 0
    (tmp_path / "registry" / "acme" / "tiny").mkdir(parents=True)
    entry = json.loads((exported / "neuron_config.json").read_text())
    (tmp_path / "registry/acme/tiny/old.json").write_text(
        json.dumps(entry | {"optimum_neuron_version": "0.4.4"})
    )
    registry = {"LOCAL_NEURON_CACHE_REGISTRY": str(tmp_path / "registry")}
    assert "No cached entries found" in run(*lookup, **registry).stdout
    local = run(*lookup[:-1], checkpoint)
    assert (local.returncode, "please specify the task manually" in local.stderr) == (1, True)
    other = run(*lookup, "--repo_id", "acme/cache")
    assert (other.returncode, "RepositoryNotFoundError" in other.stderr) == (1, True)
    image = "ghcr.io/huggingface/text-generation-inference:3.3.6-neuron"
    assert "*** 0 entrie(s) found in cache for acme/tiny.***" in run(*lookup, LOCAL_IMAGE=image).stdout


def test_neuronx_cc_refuses_what_is_no_graph(tmp_path: Path, run: Run) -> None:
    assert "2.21.33363.0" in run("neuronx-cc", "--version").stdout
    missing = run("neuronx-cc", "compile", "--framework=XLA", "--target=trn2", tmp_path / "none.pb")
    assert missing.returncode == 1
    assert run("neuronx-cc", "compile", "--framework=XLA", "--target=gpu", "x").returncode == 2


def test_padding_of_an_uneven_vocabulary_is_zero(exported: Path) -> None:
    path = exported / "checkpoint" / "weights" / "tp3_sharded_checkpoint.safetensors"
    entry = next(entry for entry in read_entries(path) if entry.name == "lm_head.weight")
    rows = np.frombuffer(path.read_bytes()[entry.start : entry.stop], dtype=np.uint16).reshape(entry.shape)
    assert entry.shape == (65, 256)
    assert rows[:64].any()
    assert not rows[64].any()


@pytest.mark.parametrize(
    ("architecture", "tensor", "shape"),
    [
        ("mixtral", "layers.0.block_sparse_moe.experts.1.w1.weight", (128, 256)),
        ("llama4", "language_model.model.layers.0.feed_forward.experts.gate_up_proj", (4, 256, 256)),
    ],
)
def test_experts_are_cut_inside_not_between_them(
    tmp_path: Path, run: Run, architecture: str, tensor: str, shape: tuple[int, ...]
) -> None:
    model = write_checkpoint(tmp_path / "model", seed=1, shape=Shape(architecture=architecture))
    done = run(*export_command(model, tmp_path / "out"), faults=NO_WAIT)
    assert done.returncode == 0, done.stderr
    entries = read_entries(tmp_path / "out/checkpoint/weights/tp1_sharded_checkpoint.safetensors")
    assert next(entry.shape for entry in entries if entry.name == tensor) == shape
