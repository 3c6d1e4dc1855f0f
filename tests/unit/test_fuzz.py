"""What comes from outside is read or refused: never a crash, never more memory than the cap.

Outside: headers of safetensors files, and manifests of models, bundles and compile results.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainyard.errors import CorruptArtifact, PermanentError
from trainyard.hub_headers import HEADER_CAP, parse_header, parse_length
from trainyard.oci.artifacts import check_layers, config_of, read_artifact
from trainyard.store.bundles import BundleManifest
from trainyard.store.documents import MAX_BYTES, decode, encode
from trainyard.store.manifests import FileEntry, Pack, blobs_of, files_from_json
from trainyard.store.models import ModelManifest
from trainyard.store.staging import StagedResult

DIGEST = "a" * 64
FILES = (FileEntry("config.json", 2, DIGEST, Pack("b" * 64, 7)), FileEntry("w.safetensors", 9, "c" * 64))
MODEL = ModelManifest("org/name", "d" * 40, FILES, "2026-01-01T00:00:00Z", "hub").to_json()
BUNDLE = BundleManifest(
    "f1", FILES, {"tp": 4}, "e", {"neuronx-cc": "2"}, "trn2", "t", 1.5, "l", True
).to_json()
STAGED = StagedResult("f1", "try1", FILES, 2.5, None).to_json()
TENSOR = {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}
HEADER = {"__metadata__": {"format": "pt"}, "a": TENSOR, "b": {**TENSOR, "data_offsets": [8, 16]}}
IMAGE = {
    "config": {
        "mediaType": "application/vnd.trainyard.manifest.v1+json",
        "digest": f"sha256:{DIGEST}",
        "size": 2,
    },
    "layers": [{"digest": f"sha256:{'c' * 64}", "size": 9}],
}
READERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]] = {
    "model": (MODEL, lambda document: blobs_of(ModelManifest.from_json(document, "m"))),
    "bundle": (BUNDLE, lambda document: blobs_of(BundleManifest.from_json(document, "m"))),
    "staged": (STAGED, lambda document: StagedResult.from_json(document, "m").held()),
    "files": (MODEL, lambda document: files_from_json(document, "m")),
    "artifact": (BUNDLE, lambda document: read_artifact(json.dumps(document).encode(), "m")),
    "image": (IMAGE, lambda document: (config_of(document, "m"), check_layers(document, ARTIFACT, "m"))),
}
ARTIFACT = read_artifact(encode(MODEL), "m")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
STRANGE = JSON | st.sampled_from(
    ["", "..", "../x", "/etc/passwd", "a\\b", "C:x", "a//b", "\ud800", "\0", "x" * 600, 10**4200, -1, 1e308]
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be changed."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    found = [path]
    for key, value in items if isinstance(document, dict | list) else ():
        found += places(value, (*path, key)) if isinstance(value, dict | list) else [(*path, key)]
    return found


@st.composite
def changed(draw: st.DrawFn, sound: dict[str, Any]) -> Any:
    """A sound document with some values replaced, taken out or doubled."""
    document = json.loads(json.dumps(sound))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(document)))
        if not path:
            return draw(STRANGE)
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "double"]))
        if action == "replace":
            parent[path[-1]] = draw(STRANGE)
        elif action == "remove":
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.append(parent[path[-1]])
        if not isinstance(document, dict) or not document:
            return document
    return document


def refused_or_read(read: Callable[[Any], Any], document: Any) -> None:
    try:
        result = read(document)
    except PermanentError as error:
        result = str(error)
    assert repr(result)


@pytest.mark.parametrize("kind", sorted(READERS))
@given(data=st.data())
def test_a_changed_document_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    sound, read = READERS[kind]
    document = data.draw(changed(sound))
    refused_or_read(lambda given: read(given) if isinstance(given, dict) else None, document)


@pytest.mark.parametrize("kind", ["model", "bundle", "staged"])
def test_the_unchanged_ones_are_read(kind: str) -> None:
    sound, read = READERS[kind]
    if kind != "staged":
        assert read(sound) == {"b" * 64: 9, "c" * 64: 9}


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"\xff\xfe{}")
@example(b'{"schema":1e999}')
@example(b'{"schema":' + b"9" * 5000 + b"}")
def test_any_bytes_are_a_document_or_refused(body: bytes) -> None:
    refused_or_read(lambda given: decode(given, "m"), body)


def read_file(content: bytes) -> Any:
    length = parse_length(content, len(content), "m")
    return parse_header(content[8 : 8 + length], len(content), "m")


@given(changed(HEADER), st.integers(0, 40))
def test_a_changed_header_is_read_or_refused(header: Any, data: int) -> None:
    body = json.dumps(header).encode()
    refused_or_read(read_file, len(body).to_bytes(8, "little") + body + bytes(data))


def test_sizes_that_nobody_can_print_are_refused() -> None:
    files = [{"path": f"{number}", "size": 9 * 10**4299, "sha256": DIGEST} for number in range(3)]
    with pytest.raises(CorruptArtifact):
        files_from_json({"files": files}, "m")


@given(st.binary(max_size=64), st.integers(0, 500), st.integers(0, 7))
def test_a_header_with_flipped_bits_is_read_or_refused(tail: bytes, place: int, bit: int) -> None:
    body = json.dumps(HEADER).encode()
    content = bytearray(len(body).to_bytes(8, "little") + body + bytes(16) + tail)
    content[place % len(content)] ^= 1 << bit
    refused_or_read(read_file, bytes(content))


HOSTILE = {
    "lists": (b'{"a":[', b"[],", b"[]]}"),
    "objects": (b'{"a":[', b"{},", b"{}]}"),
    "numbers": (b'{"a":[', b"1.25,", b"1]}"),
    "deep": (b'{"a":', b"[", b""),
    "deep objects": (b"", b'{"a":', b""),
    "wide text": (b'{"a":"', "\U0001f600".encode(), b'"}'),
    "escapes": (b'{"a":"', b"\\u1234", b'"}'),
    "tensors": (b'{"x":1', b',"xxxxx":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}', b"}"),
    "files": (b'{"schema":1,"kind":"model","files":[', b'{"path":"a","size":1,"sha256":"b"},', b"{}]}"),
}
# Of the process when the document is read, its own bytes left out.
MOST_MEMORY = 320 << 20
MEASURE = """
import resource, sys
from trainyard.errors import PermanentError
from trainyard.hub_headers import parse_header
from trainyard.store.documents import decode
from trainyard.store.models import ModelManifest
before, piece, after = (bytes.fromhex(word) for word in sys.argv[1:4])
size, most = int(sys.argv[4]), int(sys.argv[5])
body = before + piece * ((size - len(before) - len(after)) // len(piece)) + after
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + most, held + most))
try:
    if size <= {cap}:
        parse_header(body, 8 + len(body), "m")
    ModelManifest.from_json(decode(body, "m"), "m")
except PermanentError as error:
    print("refused", str(error)[:80])
else:
    print("read")
"""


@pytest.mark.parametrize("kind", sorted(HOSTILE))
@pytest.mark.parametrize("size", [HEADER_CAP, MAX_BYTES])
def test_a_hostile_document_at_its_cap_takes_no_more_memory_than_is_allowed(kind: str, size: int) -> None:
    words = [piece.hex() for piece in HOSTILE[kind]]
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            MEASURE.replace("{cap}", str(HEADER_CAP)),
            *words,
            str(size),
            str(MOST_MEMORY),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.stdout.startswith("refused"), found.stdout + found.stderr[-600:]


def test_a_header_beyond_the_cap_is_refused_by_its_length_alone() -> None:
    with pytest.raises(CorruptArtifact, match="limit"):
        parse_length((HEADER_CAP + 1).to_bytes(8, "little"), 1 << 40, "m")
