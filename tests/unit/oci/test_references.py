"""Names of artifacts, and what ECR is known not to take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.errors import Refused
from trainyard.oci.artifacts import ECR_LAYER_BYTES, ECR_LAYERS, Artifact, Blob, check_fits, to_oci
from trainyard.oci.references import Reference, Subject, parse_reference, parse_subject
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest

ECR = "123456789012.dkr.ecr.us-east-2.amazonaws.com"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{ECR}/models/llama:v1", Reference(ECR, "models/llama", "v1")),
        ("127.0.0.1:5000/m:latest", Reference("127.0.0.1:5000", "m", "latest")),
        (f"ghcr.io/a/b@sha256:{'a' * 64}", Reference("ghcr.io", "a/b", None, f"sha256:{'a' * 64}")),
        # The digest says which; the tag is a remark.
        (f"ghcr.io/a/b:v1@sha256:{'a' * 64}", Reference("ghcr.io", "a/b", None, f"sha256:{'a' * 64}")),
    ],
)
def test_references_are_read(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "llama:v1", "ghcr.io/a", "ghcr.io/A:v1", "ghcr.io/a:v 1", "ghcr.io/../a:v1", "ghcr.io/a//b:v1",
        "ghcr.io/a@sha256:1", "ghcr.io/a:v1@", "http://ghcr.io/a:v1", "user:pw@ghcr.io/a:v1",
        "ghcr.io/a:v1\n",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="REGISTRY/REPOSITORY"):
        parse_reference(text)


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        found = parse_reference(text)
    except Refused:
        return
    assert parse_reference(str(found)) == found


def test_a_push_needs_a_tag() -> None:
    with pytest.raises(Refused):
        parse_reference(f"ghcr.io/a/b@sha256:{'a' * 64}", tag_needed=True)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (ECR, "us-east-2"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "eu-west-1"),
        ("ghcr.io", None),
        (f"{ECR}.evil.example", None),
        (f"{ECR}:443", None),
    ],
)
def test_ecr_is_known_by_its_host_name(host: str, region: str | None) -> None:
    assert Reference(host, "m", "v1").ecr_region == region


def test_plain_http_is_for_this_machine_only() -> None:
    assert Reference("localhost:5000", "m", "v1").scheme == "http"
    assert Reference("localhost.evil.example", "m", "v1").scheme == "https"
    assert Reference("10.0.0.1:5000", "m", "v1").scheme == "https"


def test_subjects_are_read_and_branches_are_refused() -> None:
    assert parse_subject("bundle:f1") == Subject("bundle", fingerprint="f1")
    assert parse_subject(f"model:org/name@{'a' * 40}").revision == "a" * 40
    for text in ("model:org/name@main", "model:org/name", "bundle:", "f1", "bundle:../x"):
        with pytest.raises(Refused):
            parse_subject(text)


def artifact(*blobs: Blob) -> Artifact:
    files = tuple(FileEntry(blob.path, blob.size, blob.sha256) for blob in blobs)
    return Artifact(ModelManifest("org/name", "a" * 40, files), b"{}", blobs)


def test_what_ecr_does_not_take_is_refused_before_a_byte_moves() -> None:
    large = artifact(Blob("a" * 64, ECR_LAYER_BYTES + 1, "model.safetensors"))
    many = artifact(*(Blob(f"{number:064x}", 1, f"{number}.json") for number in range(ECR_LAYERS + 1)))
    for wrong, word in ((large, r"model\.safetensors"), (many, "500 layers")):
        with pytest.raises(Refused, match=word):
            check_fits(wrong, Reference(ECR, "m", "v1"))
        check_fits(wrong, Reference("ghcr.io", "m", "v1"))


def test_the_same_artifact_is_the_same_manifest() -> None:
    one = artifact(Blob("a" * 64, 1, "x.json"))
    assert to_oci(one) == to_oci(one)
    assert to_oci(one)["artifactType"] == "application/vnd.trainyard.model.v1"
