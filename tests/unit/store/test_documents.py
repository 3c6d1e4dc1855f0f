from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.errors import CorruptArtifact, PermanentError, TrainyardError
from trainyard.store.bundles import BundleManifest
from trainyard.store.channels import Channel
from trainyard.store.documents import check_schema, decode, encode, take
from trainyard.store.leases import _Grant
from trainyard.store.manifests import FileEntry, check_tree
from trainyard.store.models import ModelManifest
from trainyard.store.staging import StagedResult

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DIGEST = "0" * 64


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_document_are_refused_never_a_crash(body: bytes) -> None:
    with pytest.raises(TrainyardError):
        decode(body, "x.json")


@pytest.mark.parametrize("schema", [0, -1, "1", None, True, 1.5])
def test_an_unknown_schema_is_refused(schema: object) -> None:
    with pytest.raises(PermanentError, match="schema"):
        decode(json.dumps({"schema": schema}).encode(), "x.json")


def test_a_newer_schema_is_refused_by_its_name_and_an_older_one_is_read() -> None:
    with pytest.raises(PermanentError, match=r"x.json has schema 2, written by a newer Trainyard.*up to 1"):
        decode(b'{"schema": 2}', "x.json")
    check_schema({"schema": 1}, "x.json", newest=3)
    with pytest.raises(PermanentError, match="newer"):
        check_schema({"schema": 4}, "x.json", newest=3)


def test_a_pinned_document_is_the_one_that_was_checked() -> None:
    body = encode({"schema": 1, "files": []})
    assert decode(body, "x", hashlib.sha256(body).hexdigest()) == {"schema": 1, "files": []}
    with pytest.raises(CorruptArtifact, match="changed since"):
        decode(encode({"schema": 1, "files": [1]}), "x", hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("kind", [ModelManifest, BundleManifest, StagedResult, Channel, _Grant])
@settings(max_examples=40)
@given(document=st.dictionaries(st.sampled_from(["files", "repo", "kind", "token", "model", "x"]), JSON))
def test_any_json_is_read_or_refused_but_never_crashes_a_reader(
    kind: type, document: dict[str, object]
) -> None:
    try:
        kind.from_json({**document, "schema": 1}, "x.json")  # type: ignore[attr-defined]
    except CorruptArtifact:
        pass


def test_documents_come_back_as_they_were_written() -> None:
    files = (FileEntry("a/b.json", 3, DIGEST), FileEntry("c", 0, DIGEST))
    model = ModelManifest("org/name", "a" * 40, files, "2026-01-01T00:00:00Z", "http://hub")
    bundle = BundleManifest(
        "f1", files, {"tp": 4}, "optimum", {"neuronx-cc": "2.1"}, "trn2", "t", 1.5, None, True
    )
    staged = StagedResult("f1", "a1", files, 2.0, "logs/x")
    for document in (model, bundle, staged):
        assert type(document).from_json(decode(encode(document.to_json()), "x"), "x") == document


def test_a_number_is_not_true_and_true_is_not_a_number() -> None:
    for kind in (int, float):
        with pytest.raises(CorruptArtifact):
            take({"n": True}, "n", kind, "x")
    with pytest.raises(CorruptArtifact):
        take({"n": 1}, "n", bool, "x")


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a"]])
def test_files_that_cannot_lie_in_one_tree_are_refused(paths: list[str]) -> None:
    with pytest.raises(CorruptArtifact):
        check_tree([FileEntry(path, 1, DIGEST) for path in paths], "x")


@pytest.mark.parametrize(
    "broken",
    [{"path": "../x"}, {"size": -1}, {"size": "3"}, {"sha256": "A" * 64}, {"path": "/x"}, {"sha256": None}],
)
def test_a_file_entry_that_lies_is_refused(broken: dict[str, object]) -> None:
    good = {"path": "x", "size": 3, "sha256": DIGEST}
    FileEntry.from_json(good, "m")
    with pytest.raises(CorruptArtifact, match="m"):
        FileEntry.from_json({**good, **broken}, "m")
