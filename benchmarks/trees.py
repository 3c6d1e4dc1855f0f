"""Trees that are published and materialised: ours as the processes that do it, and the peers' commands."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.model import NotMeasured, Options
from benchmarks.moving import Run, measured, tool
from benchmarks.servers import S3, s3

# What the compile pod does with its output, and then the task `publish`.
PUBLISH = """
import sys
from pathlib import Path
from trainyard.store.bundles import publish_bundle
from trainyard.store.objects import Objects, client
from trainyard.store.staging import StagedResult, stage_tree, write_result
bucket, folder, fingerprint = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
store, prefix = Objects(client(), bucket), f"staging/{fingerprint}/a1/"
paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
files, held = stage_tree(store, prefix, folder, paths)
write_result(store, prefix, StagedResult(fingerprint, "a1", files, 1.0, None, held), {})
publish_bundle(store, fingerprint, prefix, inputs={}, engine="bench", versions={}, target="trn2")
"""
FINGERPRINT = "bench"


@dataclass
class Yard:
    options: Options
    s3: S3
    s5cmd: str
    openssl: str

    def __post_init__(self) -> None:
        self._numbers = itertools.count()

    @property
    def environment(self) -> dict[str, str]:
        paths = (self.options.repository, self.options.repository / "include")
        return {**os.environ, **self.s3.environment, "PYTHONPATH": os.pathsep.join(map(str, paths))}

    def publish(self, bucket: str, folder: Path) -> Run:
        command = [sys.executable, "-c", PUBLISH, bucket, str(folder), FINGERPRINT]
        return measured(command, self.environment)

    def materialise(self, bucket: str, into: Path) -> Run:
        """The job as a pod runs it, Python's start included."""
        sources = [{"manifest": f"bundles/{FINGERPRINT}/manifest.json", "into": str(into)}]
        job = json.dumps({"bucket": bucket, "sources": sources})
        return measured(
            [sys.executable, "-m", "trainyard.jobs", "materialise"],
            {**self.environment, "TRAINYARD_JOB": job},
        )

    def copy(self, source: str, target: str) -> Run:
        """s5cmd, with its own choice of workers."""
        return measured([self.s5cmd, "cp", source, target], self.environment)

    def digests(self, folder: Path) -> Run:
        """OpenSSL's: coreutils' sha256sum is many times slower."""
        files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
        return measured([self.openssl, "dgst", "-sha256", *files], self.environment)

    @contextmanager
    def folder(self, *, keep: bool = False) -> Iterator[Path]:
        """An empty folder for what comes; deleted afterwards.

        keep: until the end of all. For seconds after a deletion ext4 searches for inodes that were not used
        of late, which takes longer than anything else that is done for a small file.
        """
        place = self.options.scratch / f"come-{next(self._numbers)}"
        try:
            yield place
        finally:
            if not keep:
                shutil.rmtree(place, ignore_errors=True)

    def name(self) -> str:
        """Of a bucket that no round had before."""
        return f"bench-{next(self._numbers)}"


@contextmanager
def yard(options: Options) -> Iterator[Yard]:
    """Raises NotMeasured."""
    s5cmd, openssl = tool("s5cmd"), tool("openssl")
    with s3(options) as store:
        yield Yard(options, store, s5cmd, openssl)


def together(first: Run, second: Run) -> Run:
    """One after the other."""
    return Run(
        first.seconds + second.seconds,
        first.cpu + second.cpu,
        max(first.peak, second.peak),
        first.written + second.written,
        "",
    )


def check(folder: Path, files: int) -> None:
    """A peer that skipped something was not fast. Raises NotMeasured."""
    found = sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))
    if found != files:
        raise NotMeasured(f"{found} of {files} files arrived in {folder}")
