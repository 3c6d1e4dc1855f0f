"""Where models come from: the Hugging Face Hub, through `huggingface_hub`. Everything is read at a pinned
commit."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from trainyard import hub_weights
from trainyard.errors import CorruptArtifact, HubUnavailable, NotFound, PermanentError, TrainyardError
from trainyard.hub_content import Content
from trainyard.hub_headers import HEADER_CAP, Header, parse_header, parse_length
from trainyard.hub_policy import HubFile
from trainyard.hub_tree import list_tree
from trainyard.neuron.models import Weights
from trainyard.store.keys import check_commit, check_repo

T = TypeVar("T")
TRIES = 4
# Longer waits are left to whoever called: a worker or a pod should not sleep for minutes here.
LONGEST_WAIT = 20.0
API_SECONDS = 20.0
# One request brings length and header of most shards.
HEADER_GUESS = 64 << 10
# An index names every tensor and its shard: 160 bytes each.
INDEX_CAP = 64 << 20
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True)
class About:
    """gated: the files need an accepted licence, and so a token; safetensors: the Hub's summary of the
    headers, if it has one."""

    gated: bool
    safetensors: Mapping[str, Any] | None


class Hub:
    """endpoint: the Hub's address without a path; token: of a reader, for gated and private repositories."""

    def __init__(self, endpoint: str, token: str | None = None) -> None:
        self.endpoint, self.token = endpoint.rstrip("/"), token
        self.content = Content(self.endpoint, token)

    def resolve(self, repo: str, revision: str) -> str:
        """The commit (40 hex digits) that a branch, tag or commit means now.

        Raises NotFound, PermanentError (gated, forbidden, moved), HubUnavailable.
        """
        check_repo("repo", repo)
        if not _REVISION.fullmatch(revision) or ".." in revision:
            raise PermanentError(
                f"revision = {revision!r} is no branch, tag or commit. Name one that the Hub shows."
            )
        info = self._call(
            f"{repo}@{revision}", lambda api: api.model_info(repo, revision=revision, timeout=API_SECONDS)
        )
        # The Hub redirects renamed repositories; a silent change of owner is not ours to accept.
        if info.id.lower() != repo.lower():
            raise PermanentError(
                f"{repo} was moved to {info.id} on the Hub. Name it by its new name if you trust it."
            )
        return check_commit("revision", info.sha)

    def files(self, repo: str, sha: str) -> list[HubFile]:
        """Every file of the commit, in path order. Raises as `resolve`."""
        check_repo("repo", repo)
        check_commit("revision", sha)
        return list_tree(self.content, repo, sha)

    def read_json(self, repo: str, sha: str, path: str, max_bytes: int = 16 << 20) -> dict[str, Any]:
        """A JSON object of the repository. Raises NotFound, CorruptArtifact (no JSON object, or too
        large)."""
        check_commit("revision", sha)
        body = self.content.read(repo, sha, path, max_bytes)
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise CorruptArtifact(f"{repo}@{sha}: {path} is no JSON ({error}).") from error
        if not isinstance(document, dict):
            raise CorruptArtifact(f"{repo}@{sha}: {path} is a JSON {type(document).__name__}, not an object.")
        return document

    def stream(self, repo: str, sha: str, path: str, size: int) -> Iterator[bytes]:
        """The file's `size` bytes, in pieces; broken connections are resumed where they broke."""
        check_commit("revision", sha)
        return self.content.stream(repo, sha, path, size)

    def header(self, repo: str, sha: str, file: HubFile) -> Header:
        """What a safetensors file says it holds, read by ranges. Raises CorruptArtifact."""
        check_commit("revision", sha)
        where = f"{repo}@{sha}: {file.path}"
        start = self.content.read_range(repo, sha, file.path, 0, min(HEADER_GUESS, file.size))
        length = parse_length(start, file.size, where)
        missing = 8 + length - len(start)
        if missing > 0:
            start += self.content.read_range(repo, sha, file.path, len(start), missing)
        return parse_header(start[8 : 8 + length], file.size, where)

    def headers(self, repo: str, sha: str, files: Iterable[HubFile]) -> dict[str, Header]:
        """`header` of every safetensors file among `files`, by path. HEADER_CAP bounds each."""
        return {
            file.path: self.header(repo, sha, file) for file in files if file.path.endswith(".safetensors")
        }

    def about(self, repo: str, sha: str) -> About:
        """What the Hub says of the commit, in one request. Raises as `resolve`."""
        check_repo("repo", repo)
        check_commit("revision", sha)
        # Without a revision the Hub answers for `main`, which a repository need not have.
        info = self._call(
            f"{repo}@{sha}",
            lambda api: api.model_info(
                repo, revision=sha, expand=["safetensors", "gated"], timeout=API_SECONDS
            ),
        )
        summary = {"parameters": info.safetensors.parameters} if info.safetensors else None
        return About(bool(info.gated), summary)  # gated: False, "auto" or "manual"

    def weights(self, repo: str, sha: str, files: Iterable[HubFile], about: About | None = None) -> Weights:
        """What the safetensors among `files` hold; asks nothing more where `about` says it, one request a
        shard at worst.

        Raises as `resolve`, and CorruptArtifact.
        """
        shards = hub_weights.shards_of(files)
        about = about or self.about(repo, sha)
        return (
            hub_weights.of_summary(about.safetensors, shards)
            or hub_weights.of_index(lambda path: self.read_json(repo, sha, path, max_bytes=INDEX_CAP), shards)
            or hub_weights.of_headers(self.headers(repo, sha, shards).values())
        )

    def _call(self, what: str, call: Callable[[Any], T]) -> T:
        """Run one API call, again after what passes by itself."""
        from huggingface_hub import HfApi

        # `token=False` keeps huggingface_hub from sending a token that it finds on this machine.
        api = HfApi(endpoint=self.endpoint, token=self.token or False)
        for attempt in range(TRIES):
            try:
                return call(api)
            except TrainyardError:
                raise
            except Exception as error:
                translated = _translated(error, what, self.endpoint)
                if translated is None:
                    raise
                if not isinstance(translated, HubUnavailable) or attempt == TRIES - 1:
                    raise translated from error
                wait = max(translated.retry_after or 0.0, random.uniform(0.2, 0.5) * 2**attempt)
                if wait > LONGEST_WAIT:
                    raise translated from error
                time.sleep(wait)
        raise AssertionError("unreachable")


def _translated(error: Exception, what: str, endpoint: str) -> TrainyardError | None:
    from huggingface_hub import errors

    # Gated is a kind of "not found" to huggingface_hub: ask for it first.
    if isinstance(error, errors.GatedRepoError):
        return PermanentError(
            f"{what} is gated on {endpoint}. Accept its licence there with the account of the token, and "
            "give that "
            "token as the Kubernetes Secret that the release names (HF_TOKEN)."
        )
    if isinstance(error, errors.DisabledRepoError):
        return PermanentError(f"{what} was disabled on {endpoint}. Use another repository.")
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFound(
            f"{what}: {endpoint} has the repository but not that revision. Check branch, tag or commit."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return NotFound(
            f"{what} does not exist on {endpoint}, or is private. Check the name; for a private one give a "
            "token."
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return PermanentError(
                f"{what}: {endpoint} refuses the token ({status}). Renew it, or give it read access."
            )
        if status == 429 or status >= 500:
            return HubUnavailable(
                f"{what}: {endpoint} answers {status}.", retry_after=_retry_after(error.response)
            )
        if status == 404:
            return NotFound(f"{what} does not exist on {endpoint}.")
        return PermanentError(
            f"{what}: {endpoint} answers {status}: {error.server_message or 'no reason given'}."
        )
    # httpx's base class, whichever httpx this huggingface_hub brings.
    if isinstance(error, (errors.HTTPError, ConnectionError, TimeoutError)):  # type: ignore[attr-defined]
        return HubUnavailable(f"{what}: {endpoint} does not answer ({type(error).__name__}: {error}).")
    if isinstance(error, errors.HFValidationError):
        return PermanentError(f"{what}: {error}")
    return None


def _retry_after(response: Any) -> float | None:
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None


__all__ = ["HEADER_CAP", "About", "Hub", "HubFile"]
