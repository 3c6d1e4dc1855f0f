"""Where a spec's model comes from: its revision, pinned, and what a plan must know before a byte moves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainyard import hub_policy, hub_weights
from trainyard.errors import NotFound, Problem, Refused
from trainyard.hub import Hub
from trainyard.neuron.models import Weights
from trainyard.sources import Address, open_source, parse
from trainyard.sources.base import Listing, Source
from trainyard.sources.mirror import MirroredModel
from trainyard.spec import ModelSource
from trainyard.store.bundles import missing_blobs
from trainyard.store.objects import Objects

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONFIG = "config.json"


@dataclass(frozen=True)
class Published:
    """What a source says of a model. revision: 40 hex digits; weights: what they hold; content: what stands
    for the weights' values in a fingerprint; gated: its files need a token."""

    revision: str
    config: dict[str, Any]
    weights: Weights
    content: Mapping[str, str]
    gated: bool = False


@dataclass(frozen=True)
class Origin:
    """A spec's model. hub, objects: made when they are needed; folders: the folders of `file://` sources are
    those of this machine, and may be read (a fetch pod sees none of them)."""

    model: ModelSource
    hub: Callable[[], Hub]
    objects: Callable[[], Objects]
    folders: bool = False

    @property
    def address(self) -> Address:
        """Raises Refused."""
        if self.model.source is None:
            return Address("hf", self.model.repo, self.model.revision)
        return parse(self.model.source, "model.source")

    def source(self) -> Source:
        """The place itself, opened; nothing is read yet. Raises Refused for a folder that cannot be seen."""
        if self.address.kind == "hf":
            from trainyard.sources.hub import HubSource

            return HubSource(self.hub(), self.model.repo, self.model.revision)
        if self.address.kind == "file" and not self.folders:
            raise Refused(self._unseen())
        # Neither a bucket nor a folder asks the Hub.
        return open_source(self.address, self.objects(), Hub("http://hub.invalid"))

    def pin(self) -> str:
        """40 hex digits that mean these files for ever: a commit, or a digest of what lies there now.

        Raises Refused, NotFound, PermanentError, HubUnavailable, StoreUnavailable.
        """
        if self.address.kind != "hf" and _COMMIT.fullmatch(self.model.revision):
            return self.model.revision
        return self.source().pin()

    def read(self) -> Published:
        """Raises as `pin`; Refused for what the policy does not let in, Conflict if the source does not hold
        the pinned revision any more, CorruptArtifact."""
        return self._from_hub() if self.address.kind == "hf" else self._from_listing()

    def _from_hub(self) -> Published:
        hub, repo = self.hub(), self.model.repo
        revision = self.pin()
        config = hub.read_json(repo, revision, _CONFIG, max_bytes=1 << 20)
        # What the fetch would refuse is refused here, before a pod exists: code, pickles, bad paths.
        shards = hub_weights.shards_of(hub_policy.select(hub.files(repo, revision), config).take)
        about = hub.about(repo, revision)
        content = {file.path: file.lfs_sha256 or file.blob_id for file in shards}
        return Published(revision, config, hub.weights(repo, revision, shards, about), content, about.gated)

    def _from_listing(self) -> Published:
        listing, revision = self._listing()
        files = listing.files(revision)
        hub_policy.select(files)
        config = listing.read_json(revision, _CONFIG)
        shards = hub_weights.shards_of(hub_policy.select(files, config).take)
        weights = hub_weights.of_index(lambda path: listing.read_json(revision, path), shards)
        weights = weights or hub_weights.of_headers(listing.headers(revision, shards).values())
        # The revision is made of the contents already, and is the same whoever read them.
        return Published(revision, config, weights, {"revision": revision})

    def _listing(self) -> tuple[Listing, str]:
        """The model in S3 where it is there by this revision: the source may hold another one by now."""
        named = bool(_COMMIT.fullmatch(self.model.revision))
        if named and not (self.address.kind == "file" and self.folders):
            try:
                mirrored = MirroredModel(self.objects(), self.model.repo, self.model.revision)
            except NotFound:
                pass
            else:
                # A commit of the Hub has 40 digits, too, and may be in S3 under the same name.
                ours = mirrored.manifest.source.startswith(f"{self.address.kind}://")
                if ours and not missing_blobs(self.objects(), mirrored.manifest.files):
                    return mirrored, self.model.revision
        source = self.source()
        return source, self.model.revision if named else source.pin()

    def _unseen(self) -> Problem:
        where = f"{self.model.repo}, revision {self.model.revision[:12]}, which is not in S3"
        return Problem(
            "model.source",
            self.model.source,
            f"neither Airflow nor a fetch pod sees the folders of a machine, and this is {where}",
            f"Run `trainyard store add {self.model.source} {self.model.repo}` where the folder lies, and "
            "name the revision that it prints as model.revision.",
        )
