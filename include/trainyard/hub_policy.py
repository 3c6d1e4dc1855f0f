"""Which files of a model repository are taken, left, or reason enough to refuse it. Pure: names, sizes,
config.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from trainyard.errors import Problem, Refused
from trainyard.store.keys import check_path

MAX_FILES = 20_000
# The Hub takes files up to 500 GB; metadata beyond 1 GiB and repositories beyond 8 TiB are not models to
# serve.
MAX_FILE = 500 * 10**9
MAX_METADATA = 1 << 30
MAX_TOTAL = 8 << 40

_PICKLE = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy"}
_CODE = {".py", ".pyc", ".pyx", ".so", ".dll", ".dylib", ".exe", ".sh", ".whl", ".jar"}
_TAKEN = {".safetensors", ".json", ".jinja", ".txt", ".tiktoken"}
# SentencePiece models are protocol buffers: data, no code.
_TAKEN_NAMES = {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}
# Folders that hold another form of the same weights, or what no server reads.
_OTHER_FORMS = {
    "original",
    "onnx",
    "openvino",
    "coreml",
    "gguf",
    "flax",
    "figures",
    "images",
    "assets",
    ".git",
}


@dataclass(frozen=True, order=True)
class HubFile:
    """path; size in bytes; lfs_sha256: digest when the file is in LFS; blob_id: git's SHA-1 of the blob (or
    of the LFS pointer); mode: git's file mode when the source tells it ("120000" is a symlink)."""

    path: str
    size: int
    lfs_sha256: str | None
    blob_id: str
    mode: str | None = None


@dataclass(frozen=True)
class Selection:
    """take: files to fetch, in path order; left: (path, why) of files that are not needed."""

    take: tuple[HubFile, ...]
    left: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Bytes of the files to fetch."""
        return sum(file.size for file in self.take)


def select(files: Iterable[HubFile], config: Mapping[str, Any] | None = None) -> Selection:
    """Sort a repository's files. config: its config.json, when it was read.

    Raises Refused with every broken rule at once.
    """
    take: list[HubFile] = []
    left: list[tuple[str, str]] = []
    problems: list[Problem] = []
    listed = sorted(files)
    converted = any(file.path.startswith("model") and file.path.endswith(".safetensors") for file in listed)
    for file in listed:
        problem = _name_problem(file)
        if problem:
            problems.append(problem)
            continue
        reason = _needless(file.path, converted)
        if reason:
            left.append((file.path, reason))
            continue
        problem = _content_problem(file)
        if problem:
            problems.append(problem)
        elif _is_taken(file.path):
            take.append(file)
        else:
            left.append((file.path, "not needed to serve"))
    problems += _repository_problems(take, bool(problems), any(path.endswith(".gguf") for path, _ in left))
    if config is not None:
        problems += config_problems(config)
    if problems:
        raise Refused(problems)
    return Selection(tuple(take), tuple(left))


def config_problems(config: Mapping[str, Any]) -> list[Problem]:
    """Rules that config.json breaks: code in the repository is never run."""
    found = []
    for where, section in _sections(config):
        if "auto_map" in section:
            field = f"config.json: {where}auto_map"
            found.append(
                Problem(
                    field,
                    section["auto_map"],
                    "it makes loaders run code from the repository (trust_remote_code)",
                    "Use an architecture that the engine itself knows, in a revision without `auto_map`",
                )
            )
    return found


def _sections(
    config: Mapping[str, Any], where: str = "", depth: int = 0
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    yield where, config
    if depth < 4:
        for name, value in config.items():
            if isinstance(value, Mapping) and name != "auto_map":
                yield from _sections(value, f"{where}{name}.", depth + 1)


def _name_problem(file: HubFile) -> Problem | None:
    try:
        check_path("file", file.path)
    except Refused as error:
        return error.problems[0]
    if file.mode == "120000":
        return Problem("file", file.path, "it is a symlink", "Use a revision that holds the file itself")
    if file.mode == "160000":
        return Problem(
            "file", file.path, "it is a git submodule", "Use a revision that holds the files themselves"
        )
    return None


def _needless(path: str, converted: bool) -> str:
    """converted: the repository has its weights as transformers names them too (model*.safetensors)."""
    parts = PurePosixPath(path).parts
    # Mistral puts its own form of the same weights beside them, pickled or not: never taken, never counted.
    if converted and len(parts) == 1 and parts[0].startswith("consolidated"):
        return "another form of the weights"
    if any(part.lower() in _OTHER_FORMS for part in parts[:-1]):
        return "another form of the weights, or no part of the model"
    if parts[-1].startswith("."):
        return "a hidden file"
    return ""


def _content_problem(file: HubFile) -> Problem | None:
    suffix = PurePosixPath(file.path).suffix.lower()
    if suffix in _PICKLE:
        return Problem(
            "file",
            file.path,
            "pickles can run code when they are loaded; only safetensors are taken",
            "Use a revision or a mirror of the model without it (convert weights with safetensors)",
        )
    if suffix in _CODE:
        return Problem(
            "file",
            file.path,
            "code from a model repository is never taken",
            "Use a revision or a mirror of the model without it, with an architecture that the engine knows",
        )
    limit = MAX_FILE if suffix == ".safetensors" else MAX_METADATA
    if not 0 <= file.size <= limit:
        return Problem(
            "file",
            file.path,
            f"its size of {file.size} bytes is beyond {limit}",
            "Use a properly sharded revision",
        )
    return None


def _is_taken(path: str) -> bool:
    name = PurePosixPath(path)
    if name.name.lower() in _TAKEN_NAMES or name.suffix.lower() in _TAKEN:
        return True
    # Licences travel with the weights.
    return name.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE", "USE_POLICY"))


def _repository_problems(take: list[HubFile], others: bool, gguf: bool) -> list[Problem]:
    found = []
    paths = {file.path for file in take}
    if "config.json" not in paths:
        found.append(
            Problem(
                "repository",
                "config.json",
                "a model has one at its root, and this has none",
                "Check the name",
            )
        )
    if not any(path.endswith(".safetensors") for path in paths) and not others:
        found.append(
            Problem(
                "repository",
                "*.gguf" if gguf else "*.safetensors",
                "its weights are GGUF, which no Neuron engine loads: there are no safetensors weights"
                if gguf
                else "there are no safetensors weights",
                "Use the repository that these were made of, or a converted revision",
            )
        )
    if sum(file.size for file in take) > MAX_TOTAL:
        found.append(Problem("repository", "size", f"more than {MAX_TOTAL} bytes in all", "Check the name"))
    if any(
        0 <= file.size < 200 and file.path.endswith(".safetensors") and file.lfs_sha256 is None
        for file in take
    ):
        found.append(
            Problem(
                "repository",
                "*.safetensors",
                "a shard of less than 200 bytes outside LFS looks like an LFS pointer, not weights",
                "Use a repository that was uploaded with LFS",
            )
        )
    return found
