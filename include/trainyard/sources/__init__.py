"""Where a model's files may come from: the Hub, a prefix in S3, a folder. One protocol (`base.Source`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainyard.sources.address import Address, parse

if TYPE_CHECKING:
    from trainyard.hub import Hub
    from trainyard.sources.base import Source
    from trainyard.store.objects import Objects


def open_source(address: Address, objects: Objects, hub: Hub) -> Source:
    """objects: the store, whose credentials read S3 sources too; hub: for `hf://`. Reads nothing yet."""
    if address.kind == "hf":
        from trainyard.sources.hub import HubSource

        return HubSource(hub, address.place, address.revision or "main")
    if address.kind == "s3":
        from trainyard.sources.bucket import BucketSource

        return BucketSource(objects, address.place)
    from trainyard.sources.folder import FolderSource

    return FolderSource(address.place)


__all__ = ["Address", "open_source", "parse"]
