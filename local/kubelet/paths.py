"""Rewriting of mount paths: processes have no mount namespace, so `/models/x` must become a folder of the
pod.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

# A path begins at the start, after `file://`, or after a character that cannot be part of a longer path or
# of a URL;
# it ends where no character follows that would make it another name. So `s3://models`, `http://h:1/models`,
# `/data/models` and `/models-old` stay as they are.
_BEFORE = r"(?:(?<=file://)|(?<![\w./\-~})*+%@]))"
_AFTER = r"(?![\w\-+%@~]|\.[\w\-])"


class PathMap:
    """Container paths and the host folders that stand for them."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        """`mounts`: absolute container path (no trailing slash) -> host path."""
        self.mounts = {_clean(path): host for path, host in mounts.items()}
        longest = sorted(self.mounts, key=len, reverse=True)
        self._pattern = (
            re.compile(f"{_BEFORE}({'|'.join(map(re.escape, longest))}){_AFTER}") if longest else None
        )

    def rewrite(self, text: str) -> str:
        """Replace every mount path in `text`, the longest first, each place once."""
        if self._pattern is None or "/" not in text:
            return text
        return self._pattern.sub(lambda found: str(self.mounts[found.group(1)]), text)

    def host(self, path: str) -> Path | None:
        """Host path of a container path, None when it lies in no mount."""
        path = _clean(path)
        for mount in sorted(self.mounts, key=len, reverse=True):
            if path == mount:
                return self.mounts[mount]
            if path.startswith(mount.rstrip("/") + "/"):
                return self.mounts[mount] / path[len(mount) :].lstrip("/")
        return None


def _clean(path: str) -> str:
    return path.rstrip("/") or "/"


def safe_join(root: Path, relative: str) -> Path:
    """`root / relative`, refusing what leaves `root`; raises ValueError."""
    joined = (root / relative.lstrip("/")).resolve()
    if joined != root.resolve() and root.resolve() not in joined.parents:
        raise ValueError(f"path {relative!r} leads out of its volume")
    return joined
