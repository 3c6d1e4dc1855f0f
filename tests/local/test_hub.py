"""The Hub's client against the local Hub, through the real huggingface_hub."""

from __future__ import annotations

from dataclasses import replace

import pytest

from local.checkpoints.checkpoint import write_checkpoint
from local.checkpoints.shape import Shape
from tests.support.hub import LocalHub
from trainyard import hub as hub_module
from trainyard import hub_weights
from trainyard.errors import CorruptArtifact, HubUnavailable, NotFound, PermanentError, Refused
from trainyard.hub import Hub
from trainyard.hub_weights import of_headers, of_index, of_summary, shards_of
from trainyard.neuron.models import Weights

REPO = "tests/Tiny-Llama"


@pytest.fixture(scope="module")
def published(hub_process: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_checkpoint(folder, seed=1, shape=Shape())
    return hub_process.publish(REPO, folder, tag="v1")


@pytest.fixture
def client(hub: LocalHub, published: str) -> Hub:
    return Hub(hub.endpoint)


def test_branches_tags_and_commits_are_pinned_to_the_commit(client: Hub, published: str) -> None:
    for revision in ("main", "v1", published):
        assert client.resolve(REPO, revision) == published


def test_what_is_missing_is_said_apart_repository_or_revision(client: Hub) -> None:
    with pytest.raises(NotFound, match="not that revision"):
        client.resolve(REPO, "no-such-branch")
    with pytest.raises(NotFound, match="does not exist"):
        client.resolve("tests/nothing", "main")


@pytest.mark.parametrize(
    ("repo", "revision"), [("../etc", "main"), ("a/b/c", "main"), (REPO, "../x"), (REPO, "")]
)
def test_names_that_could_lead_elsewhere_are_refused_before_asking(
    client: Hub, repo: str, revision: str
) -> None:
    with pytest.raises((Refused, PermanentError)):
        client.resolve(repo, revision)


def test_gated_is_not_taken_for_missing(client: Hub, hub: LocalHub, published: str) -> None:
    # As on the real Hub: everybody may look a gated model up, and files need the licence to be accepted.
    hub.break_by(gated=[REPO])
    assert client.resolve(REPO, "main") == published
    with pytest.raises(PermanentError, match="licence") as caught:
        client.read_json(REPO, published, "config.json")
    assert not isinstance(caught.value, NotFound)


def test_a_private_repository_is_not_found_and_the_message_speaks_of_a_token(
    client: Hub, hub: LocalHub
) -> None:
    hub.break_by(private=[REPO])
    with pytest.raises(NotFound, match="token"):
        client.resolve(REPO, "main")


def test_a_hub_that_recovers_is_waited_for(client: Hub, hub: LocalHub, published: str) -> None:
    hub.break_by({"match": "api/models", "status": 503, "count": 1})
    assert client.resolve(REPO, "main") == published


def test_a_hub_that_stays_broken_is_unavailable_and_says_when_to_ask_again(
    client: Hub, hub: LocalHub
) -> None:
    hub.break_by({"match": "api/models", "status": 429, "retry_after": 120})
    with pytest.raises(HubUnavailable) as caught:
        client.resolve(REPO, "main")
    assert caught.value.retry_after == 120


def test_nobody_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "TRIES", 1)
    with pytest.raises(HubUnavailable):
        Hub("http://127.0.0.1:1").resolve(REPO, "main")


def test_files_come_with_size_and_digest(client: Hub, published: str) -> None:
    files = client.files(REPO, published)
    assert files == sorted(files)
    shards = [file for file in files if file.path.endswith(".safetensors")]
    assert shards
    assert all(file.lfs_sha256 and file.size > 0 for file in shards)


def test_config_and_headers_are_read_without_the_weights(client: Hub, hub: LocalHub, published: str) -> None:
    assert client.read_json(REPO, published, "config.json")["model_type"] == "llama"
    with pytest.raises(CorruptArtifact, match="larger"):
        client.read_json(REPO, published, "config.json", max_bytes=10)
    with pytest.raises(NotFound):
        client.read_json(REPO, published, "nothing.json")
    files = client.files(REPO, published)
    headers = client.headers(REPO, published, files)
    sizes = {file.path: file.size for file in files}
    assert headers
    assert all(0 < header.data_bytes < sizes[path] for path, header in headers.items())


@pytest.mark.parametrize("fault", [{"truncate": 50_000, "count": 3}, {"status": 500, "count": 2}, {}])
def test_a_stream_that_breaks_goes_on_where_it_broke(
    client: Hub, hub: LocalHub, published: str, fault: dict[str, int]
) -> None:
    shard = max(client.files(REPO, published), key=lambda file: file.size)
    whole = b"".join(client.stream(REPO, published, shard.path, shard.size))
    hub.break_by({"match": "safetensors", "method": "GET", **fault})
    assert b"".join(client.stream(REPO, published, shard.path, shard.size)) == whole
    assert len(whole) == shard.size


def test_a_hub_that_ignores_ranges_is_coped_with(client: Hub, hub: LocalHub, published: str) -> None:
    shard = max(client.files(REPO, published), key=lambda file: file.size)
    whole = b"".join(client.stream(REPO, published, shard.path, shard.size))
    hub.break_by({"match": "safetensors", "ignore_range": True})
    assert client.content.read_range(REPO, published, shard.path, 100, 50) == whole[100:150]


def test_the_hub_says_what_the_weights_are_without_sending_a_file(
    client: Hub, hub: LocalHub, published: str
) -> None:
    files = client.files(REPO, published)
    before = len(hub.requests())
    about = client.about(REPO, published)
    weights = client.weights(REPO, published, files, about)
    assert [request["path"] for request in hub.requests()[before:]] == [
        f"/api/models/{REPO}/revision/{published}"
    ]
    headers = client.headers(REPO, published, files).values()
    assert dict(weights.parameters) == {"BF16": sum(header.parameters for header in headers)}
    assert weights.total == sum(header.data_bytes for header in headers)
    assert weights.source == "headers"


def test_a_summary_of_another_revision_is_not_believed(client: Hub, published: str) -> None:
    # The Hub keeps one summary a repository. Here the files that are asked about are of another size.
    files = [replace(file, size=file.size * 9) for file in client.files(REPO, published)]
    shards = shards_of(files)
    small = {"parameters": {"BF16": 1000}}
    assert of_summary(small, shards) is None
    assert of_summary({"parameters": {"F2_NEW": 1000}}, shards) is None
    assert of_summary({"parameters": {"BF16": -5}}, shards) is None
    assert of_summary(None, shards) is None


def test_without_a_summary_index_and_headers_say_the_same(client: Hub, published: str) -> None:
    files = client.files(REPO, published)
    shards = shards_of(files)
    exact = of_headers(client.headers(REPO, published, files).values())
    indexed = of_index(lambda path: client.read_json(REPO, published, path), shards)
    assert indexed == Weights(exact.total, source="index")
    # An index that is of other files, is none, or is not there.
    assert of_index(lambda path: {"metadata": {"total_size": 5 * 10**15}}, shards) is None
    assert of_index(lambda path: {"weight_map": {}}, shards) is None
    assert of_index(lambda path: client.read_json(REPO, published, "nothing.json"), shards) is None
    assert of_index(lambda path: client.read_json(REPO, published, path), shards[:1]) is None


def test_headers_are_read_where_nothing_else_is_right(
    client: Hub, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = client.files(REPO, published)
    whole = client.weights(REPO, published, files)
    monkeypatch.setattr(hub_weights, "of_summary", lambda *_: None)
    monkeypatch.setattr(hub_weights, "of_index", lambda *_: None)
    assert client.weights(REPO, published, files) == whole


def test_a_gated_repository_is_known_before_its_files_are_asked_for(
    client: Hub, hub: LocalHub, published: str
) -> None:
    assert client.about(REPO, published).gated is False
    hub.break_by(gated=[REPO])
    assert client.about(REPO, published).gated is True
    assert client.weights(REPO, published, client.files(REPO, published)).total > 0
