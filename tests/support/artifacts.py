"""Models on the local Hub and compile results in S3: random bytes, large enough to be moved in parts."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.hub import LocalHub
from trainyard.store import keys
from trainyard.store.documents import encode
from trainyard.store.manifests import FileEntry
from trainyard.store.objects import Objects
from trainyard.store.staging import StagedResult, staged_file, staged_result

INPUTS = {"tp": 4}
# Of the bundle that victims publish.
PUBLISHED = (1_500_000, 400_000, 3000, 3000, 3000, 3000)


def model_files(seed: int, sizes: tuple[int, ...]) -> dict[str, bytes]:
    """A model's files with shards of these many bytes of tensors; the same seed gives the same bytes."""
    source = random.Random(seed)
    files = {"config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "seed": seed}).encode()}
    for number, size in enumerate(sizes, 1):
        header = {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
        text = json.dumps(header).encode()
        name = f"model-{number:05}-of-{len(sizes):05}.safetensors"
        files[name] = len(text).to_bytes(8, "little") + text + source.randbytes(size)
    files["tokenizer.json"] = json.dumps({"vocabulary": source.randbytes(2000).hex()}).encode()
    return files


def publish_on_hub(hub: LocalHub, repo: str, files: Mapping[str, bytes]) -> str:
    """Returns the commit."""
    with tempfile.TemporaryDirectory() as folder:
        for name, body in files.items():
            (Path(folder) / name).write_bytes(body)
        return hub.publish(repo, Path(folder))


def bundle_files(seed: int, sizes: tuple[int, ...]) -> dict[str, bytes]:
    source = random.Random(seed)
    files = {f"neff/{number}.neff": source.randbytes(size) for number, size in enumerate(sizes)}
    return {**files, "config.json": json.dumps({"seed": seed}).encode()}


def stage(store: Objects, fingerprint: str, attempt: str, files: Mapping[str, bytes]) -> str:
    """What a compile leaves; returns its prefix."""
    prefix = keys.staging(fingerprint, attempt)
    entries = []
    for path, body in files.items():
        store.put(staged_file(prefix, path), body)
        entries.append(FileEntry(path, len(body), hashlib.sha256(body).hexdigest()))
    result = StagedResult(fingerprint, attempt, tuple(entries), 1.5, None)
    store.put(staged_result(prefix), encode(result.to_json()))
    return prefix
