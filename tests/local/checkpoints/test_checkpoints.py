"""Checkpoints: the same seed the same bytes, another seed other weights only, files that loaders take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from local.checkpoints.checkpoint import write_checkpoint
from local.checkpoints.shape import Shape
from local.checkpoints.tensorfile import read_entries
from local.checkpoints.tokenizer import byte_alphabet, tokenizer_json
from local.checkpoints.weights import bf16_bytes, split


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "one", seed=1)


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert contents(write_checkpoint(tmp_path / "again", seed=1)) == contents(folder)


def test_another_seed_changes_weights_and_readme_only(folder: Path, tmp_path: Path) -> None:
    before, after = contents(folder), contents(write_checkpoint(tmp_path / "two", seed=2))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "README.md",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }


def test_the_number_of_shards_does_not_change_the_values(folder: Path, tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path / "whole", seed=1, shape=Shape(shards=1))

    def values(place: Path) -> dict[str, bytes]:
        return {
            entry.name: path.read_bytes()[entry.start : entry.stop]
            for path in place.glob("*.safetensors")
            for entry in read_entries(path)
        }

    assert values(whole) == values(folder)


def test_the_safetensors_library_reads_every_tensor_of_the_index(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shapes = dict(Shape().tensors())
    total = 0
    for file in set(index["weight_map"].values()):
        with safetensors.safe_open(folder / file, "np") as opened:
            for name in opened.keys():  # noqa: SIM118 - a handle, not a mapping
                part = opened.get_slice(name)
                assert index["weight_map"][name] == file
                assert part.get_dtype() == "BF16"
                assert tuple(part.get_shape()) == shapes.pop(name)
                total += 2 * int(np.prod(part.get_shape()))
    assert shapes == {}
    assert index["metadata"]["total_size"] == total


def test_a_file_that_was_cut_short_is_refused(folder: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match="not fully covered"):
        read_entries(cut)


def test_tensor_parallelism_of_four_divides_the_default_shape() -> None:
    shape = Shape()
    assert [shape.heads % 4, shape.kv_heads % 4, shape.intermediate % 4] == [0, 0, 0]
    assert shape.head_dim == 64


@pytest.mark.parametrize(
    ("sizes", "rule"),
    [
        ({"hidden": 250}, "not divisible by heads"),
        ({"kv_heads": 3}, "not divisible by kv_heads"),
        ({"vocab": 100}, "256 bytes"),
        ({"layers": 0}, "positive"),
        ({"hidden": 12}, "odd"),
    ],
)
def test_an_impossible_shape_is_refused(sizes: dict[str, int], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Shape(**sizes)


def test_a_folder_with_files_is_not_written_over(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="not empty"):
        write_checkpoint(folder, seed=3)


@given(st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100))
def test_bf16_is_the_nearest_of_its_neighbours(value: float) -> None:
    bits = int.from_bytes(bf16_bytes(np.array([value], dtype=np.float32)), "little")

    def read(pattern: int) -> float:
        return float(np.array([pattern << 16], dtype="<u4").view("<f4")[0])

    error = abs(read(bits) - value)
    neighbours = [read(other) for other in (bits - 1, bits + 1) if other >= 0 and not np.isnan(read(other))]
    assert all(error <= abs(other - value) for other in neighbours)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 6))
def test_shards_keep_every_tensor_once_and_in_order(sizes: list[int], shards: int) -> None:
    tensors = [(f"t{number}", (size,)) for number, size in enumerate(sizes)]
    groups = split(tensors, shards)
    assert [tensor for group in groups for tensor in group] == tensors
    assert 1 <= len(groups) <= shards
    assert all(groups)


def test_the_tokenizer_has_one_token_a_byte() -> None:
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256
    assert alphabet[ord("A")] == "A"
    assert alphabet[ord(" ")] == "\u0120"
    assert tokenizer_json()["model"]["vocab"]["A"] == 65


@pytest.mark.parametrize(
    ("architecture", "model_type", "tensor", "shape"),
    [
        ("mistral", "mistral", "model.layers.1.mlp.up_proj.weight", (512, 256)),
        ("mixtral", "mixtral", "model.layers.1.block_sparse_moe.experts.3.w2.weight", (256, 512)),
        ("qwen3", "qwen3", "model.layers.0.self_attn.k_norm.weight", (64,)),
        ("qwen3_moe", "qwen3_moe", "model.layers.0.mlp.experts.2.down_proj.weight", (256, 512)),
        ("qwen3_vl", "qwen3_vl", "model.language_model.layers.1.self_attn.q_norm.weight", (64,)),
        ("qwen3_vl", "qwen3_vl", "model.visual.patch_embed.proj.weight", (32, 3, 2, 16, 16)),
        ("qwen3_vl", "qwen3_vl", "model.visual.deepstack_merger_list.0.norm.bias", (128,)),
        (
            "llama4",
            "llama4",
            "language_model.model.layers.1.feed_forward.experts.gate_up_proj",
            (4, 256, 1024),
        ),
    ],
)
def test_other_architectures_have_the_names_of_published_checkpoints(
    tmp_path: Path, architecture: str, model_type: str, tensor: str, shape: tuple[int, ...]
) -> None:
    place = write_checkpoint(tmp_path / "other", seed=1, shape=Shape(architecture=architecture))
    config = json.loads((place / "config.json").read_text())
    assert config["model_type"] == model_type
    assert config.get("text_config", config)["num_hidden_layers"] == 2
    entries = {entry.name: entry for path in place.glob("*.safetensors") for entry in read_entries(path)}
    assert entries[tensor].shape == shape
    index = json.loads((place / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(entries)


def test_a_model_with_eyes_has_the_files_and_tokens_of_its_processors(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "seeing", seed=1, shape=Shape(architecture="qwen3_vl"))
    config = json.loads((place / "config.json").read_text())
    processor = json.loads((place / "preprocessor_config.json").read_text())
    assert config["vision_config"]["patch_size"] == processor["patch_size"] == 16
    assert config["text_config"]["rope_scaling"]["mrope_section"] == [12, 10, 10]
    added = json.loads((place / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    assert ids["<|image_pad|>"] == config["image_token_id"]
    assert max(ids.values()) == config["text_config"]["vocab_size"] - 1


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="architecture 'gpt5' is unknown: give one of llama, mistral"):
        Shape(architecture="gpt5")
