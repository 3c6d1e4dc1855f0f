"""The real `huggingface_hub` as client: what it asks, finds and refuses."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from local.hub.repository import git_oid, publish

from .conftest import REPO, TOKEN, RunningHub


def download(hub: RunningHub, target: Path, revision: str = "main", token: str | bool = TOKEN) -> Path:
    return Path(snapshot_download(REPO, revision=revision, cache_dir=target, endpoint=hub.url, token=token))


def test_every_name_of_a_revision_resolves_to_its_commit(hub: RunningHub) -> None:
    api = hub.api()
    shas = {name: api.model_info(REPO, revision=name).sha for name in ("main", "v1", "feature/x", hub.first)}
    assert shas == {"main": hub.second, "v1": hub.first, "feature/x": hub.first, hub.first: hub.first}


def test_an_abbreviated_sha_is_no_revision(hub: RunningHub) -> None:
    with pytest.raises(RevisionNotFoundError):
        hub.api().model_info(REPO, revision=hub.first[:7])


def test_model_info_has_sizes_and_digests_when_asked(hub: RunningHub) -> None:
    files = {file.rfilename: file for file in hub.api().model_info(REPO, files_metadata=True).siblings or []}
    config = hub.sources[1] / "config.json"
    assert files["config.json"].size == config.stat().st_size
    assert files["config.json"].blob_id == git_oid(config.read_bytes())
    assert files["config.json"].lfs is None
    shard = files["model-00001-of-00002.safetensors"]
    assert shard.lfs is not None
    assert len(shard.lfs.sha256) == 64
    plain = hub.api().model_info(REPO).siblings or []
    assert plain[0].size is None


def test_model_info_counts_parameters_from_the_shards(hub: RunningHub) -> None:
    found = hub.api().model_info(REPO).safetensors
    assert found is not None
    assert found.parameters == {"BF16": found.total}
    assert found.total > 1_000_000


def test_a_snapshot_is_the_published_files(hub: RunningHub, tmp_path: Path) -> None:
    folder = download(hub, tmp_path, hub.first)
    assert folder.name == hub.first
    names = sorted(path.name for path in hub.sources[0].iterdir())
    assert filecmp.cmpfiles(hub.sources[0], folder, names, shallow=False) == (names, [], [])


def test_a_snapshot_sends_every_byte_once_and_the_log_proves_it(hub: RunningHub, tmp_path: Path) -> None:
    download(hub, tmp_path, hub.first)
    expected = sum(path.stat().st_size for path in hub.sources[0].iterdir())
    assert sum(line["sent"] for line in hub.gets("^/(?!api/)", sent=expected)) == expected


def test_a_tree_lists_folders_and_pages_by_link_header(hub: RunningHub) -> None:
    api = hub.api()
    top = {entry.path for entry in api.list_repo_tree(REPO)}
    assert "extra" in top
    assert "extra/deep/note.txt" not in top
    deep = [entry.path for entry in api.list_repo_tree(REPO, recursive=True, expand=True)]
    assert {"extra", "extra/deep", "extra/deep/note.txt"} <= set(deep)
    assert [entry.path for entry in api.list_repo_tree(REPO, "extra/deep")] == ["extra/deep/note.txt"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO, "nowhere"))


def test_paths_info_leaves_out_what_does_not_exist(hub: RunningHub) -> None:
    found = hub.api().get_paths_info(REPO, ["config.json", "extra", "nothing"])
    assert [entry.path for entry in found] == ["config.json", "extra"]


def test_refs_and_commits_are_listed(hub: RunningHub) -> None:
    api = hub.api()
    refs = api.list_repo_refs(REPO)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {
        "main": hub.second,
        "feature/x": hub.first,
    }
    assert [(tag.name, tag.ref) for tag in refs.tags] == [("v1", "refs/tags/v1")]
    assert [commit.title for commit in api.list_repo_commits(REPO)] == ["Second", "First"]


def test_a_new_commit_on_a_branch_shows_at_once(hub: RunningHub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    sha = publish(hub.root, "acme/moving", tmp_path)
    assert hub.api().model_info("acme/moving").sha == sha
    assert publish(hub.root, "acme/moving", tmp_path) == sha
    (tmp_path / "config.json").write_text('{"a": 1}')
    later = publish(hub.root, "acme/moving", tmp_path)
    assert hub.api().model_info("acme/moving").sha == later != sha


def test_models_are_found_by_search_and_author(hub: RunningHub) -> None:
    assert REPO in [model.id for model in hub.api().list_models(search="TIN")]
    assert list(hub.api().list_models(author="nobody")) == []


@pytest.mark.parametrize("repo", ["acme/none", "acme/..", "none"])
def test_a_repository_that_is_none_is_not_found(hub: RunningHub, repo: str) -> None:
    for token in (TOKEN, False):
        with pytest.raises((RepositoryNotFoundError, HfHubHTTPError, ValueError)):
            hub.api(token).model_info(repo)


def test_a_private_repository_is_not_there_for_strangers(hub: RunningHub) -> None:
    hub.fault(private=[REPO])
    assert hub.api().model_info(REPO).sha == hub.second
    with pytest.raises(RepositoryNotFoundError):
        hub.api(False).model_info(REPO)


def test_a_gated_repository_shows_itself_but_not_its_files(hub: RunningHub, tmp_path: Path) -> None:
    hub.fault(gated=[REPO])
    assert hub.api(False).model_info(REPO).gated == "manual"
    with pytest.raises(GatedRepoError) as refused:
        HfApi(endpoint=hub.url, token=False).hf_hub_download(REPO, "config.json", cache_dir=tmp_path)
    assert refused.value.response.status_code == 401
    hub.fault(denied=[REPO])
    with pytest.raises(GatedRepoError, match="authorized list") as refused:
        hub.api().hf_hub_download(REPO, "config.json", cache_dir=tmp_path)
    assert refused.value.response.status_code == 403


def test_a_wrong_token_is_told_so(hub: RunningHub) -> None:
    assert hub.api().whoami()["name"] == "local"
    with pytest.raises(HfHubHTTPError) as refused:
        hub.api("hf_wrong").whoami()
    assert refused.value.response.status_code == 401


def test_a_download_survives_a_broken_connection(hub: RunningHub, tmp_path: Path) -> None:
    shard = "model-00002-of-00002.safetensors"
    hub.fault(rules=[{"match": f"cdn-lfs/.*{shard}", "method": "GET", "truncate": 1000, "count": 1}])
    path = Path(hub.api().hf_hub_download(REPO, shard, cache_dir=tmp_path))
    assert path.read_bytes() == (hub.sources[1] / shard).read_bytes()
    gets = hub.gets("cdn-lfs", 2)
    assert [line["sent"] for line in gets] == [1000, path.stat().st_size]


def test_an_overloaded_hub_is_asked_again(hub: RunningHub, tmp_path: Path) -> None:
    overload = {"match": "resolve/.*/config.json", "method": "GET", "status": 429}
    hub.fault(rules=[overload | {"retry_after": 1, "count": 1}])
    path = Path(hub.api().hf_hub_download(REPO, "config.json", cache_dir=tmp_path))
    assert path.read_bytes() == (hub.sources[1] / "config.json").read_bytes()
    gets = hub.gets("config.json", 2)
    assert [line["status"] for line in gets] == [429, 200]
    # As long as Retry-After asked, but for what the clock was put right by meanwhile.
    assert gets[1]["time"] - gets[0]["time"] >= 0.9
