"""Builds `trainyard.pyz`: the jobs and, inside, botocore with what it needs. Same inputs, same bytes.

    python -m trainyard.jobs.zipapp [OUT]     (build/trainyard.pyz)

Everything is stored, not deflated: the bytes then do not depend on the zlib at hand, and the probe starts
faster. The vendored packages are one member (`vendor.zip`), so that Python reads a short directory at each
start.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

from trainyard.jobs.vendor import DIGEST, VENDOR

DISTRIBUTIONS = ("botocore", "jmespath", "python-dateutil", "six", "urllib3")
# Of botocore's 100 MB of service descriptions: S3, STS (IRSA), and what every client reads.
BOTOCORE_DATA = ("s3", "sts", "sso", "sso-oidc")
OWN = ("__init__.py", "errors.py", "hub*.py", "jobs/*.py", "store/*.py")
# They run in our own job image only, with Locust beside them.
NOT_IN_ZIPAPP = ("crew.py", "loadtest.py", "loadwatch.py", "traces.py", "warmup.py")
MAIN = """import sys

from trainyard.jobs.__main__ import main

sys.exit(main())
"""


def build(out: Path) -> str:
    """Write the zipapp; returns its SHA-256."""
    vendored, licences = _vendored()
    vendor = _archive(vendored)
    members = {
        "__main__.py": MAIN.encode(),
        VENDOR: vendor,
        DIGEST: hashlib.sha256(vendor).hexdigest().encode() + b"\n",
        **licences,
        **_own(),
    }
    content = b"#!/usr/bin/env python3\n" + _archive(members)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)
    out.chmod(0o755)
    return hashlib.sha256(content).hexdigest()


def _own() -> dict[str, bytes]:
    package = Path(__file__).parents[1]
    found = {path for pattern in OWN for path in package.glob(pattern)}
    files = [path for path in found if path.name not in NOT_IN_ZIPAPP]
    return {f"trainyard/{path.relative_to(package).as_posix()}": path.read_bytes() for path in files}


def _vendored() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Files of the packages, and their licences with a list of versions."""
    files: dict[str, bytes] = {}
    licences: dict[str, bytes] = {}
    versions = {}
    for name in DISTRIBUTIONS:
        found = distribution(name)
        versions[name] = found.version
        for path, source in _files(found):
            top = path.parts[0]
            if top.endswith(".dist-info"):
                if path.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE", "COPYING", "AUTHORS")):
                    licences[f"licenses/{name}/{path.name}"] = source.read_bytes()
            elif _is_needed(path):
                files[str(path)] = source.read_bytes()
    missing = [
        name for name in DISTRIBUTIONS if not any(key.startswith(f"licenses/{name}/") for key in licences)
    ]
    if missing:
        raise RuntimeError(f"no licence text found for {', '.join(missing)}: it may not be passed on without")
    licences["licenses/versions.json"] = json.dumps(versions, indent=1, sort_keys=True).encode() + b"\n"
    return files, licences


def _files(found: Distribution) -> Iterator[tuple[PurePosixPath, Path]]:
    for file in found.files or ():
        path = PurePosixPath(str(file))
        if ".." not in path.parts and "__pycache__" not in path.parts:
            yield path, Path(str(found.locate_file(file)))


def _is_needed(path: PurePosixPath) -> bool:
    if path.suffix in (".pyc", ".pyi", ".so") or path.name == "py.typed":
        return False
    if path.parts[:2] == ("botocore", "data"):
        # endpoints.json and its like lie beside the services' folders.
        return len(path.parts) == 3 or path.parts[2] in BOTOCORE_DATA
    # dateutil's own time zones: never used here.
    return path.suffix != ".gz"


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, wherever it is built
            archive.writestr(entry, members[name])
    return buffer.getvalue()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: python -m trainyard.jobs.zipapp [OUT]")
    out = Path(sys.argv[1] if len(sys.argv) == 2 else "build/trainyard.pyz")
    print(f"{build(out)}  {out}")
