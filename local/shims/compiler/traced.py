"""`model.pt`: what `torch.jit.save` writes of a traced model, a zip with the NEFFs inside."""

from __future__ import annotations

import zipfile
from pathlib import Path

from local.shims.logs import ToolError


def write_model(path: Path, neffs: dict[str, bytes]) -> None:
    """`model.pt`: a TorchScript archive (a zip) with the NEFFs inside, the same bytes for the same NEFFs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        members = {
            "code/__torch__.py": b"class NxDModel(Module):\n  __parameters__ = []\n",
            "version": b"3\n",
        }
        members |= {f"neffs/{key}.neff": neff for key, neff in sorted(neffs.items())}
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}", date_time=(1980, 1, 1, 0, 0, 0)), content)


def read_model(path: Path) -> list[str]:
    """Check `model.pt` and name its graphs; raises ToolError as torch words a missing or damaged archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ToolError(
                    "RuntimeError", f"PytorchStreamReader failed reading file {damaged}: file read failed"
                )
            return [Path(name).stem for name in archive.namelist() if name.endswith(".neff")]
    except FileNotFoundError:
        raise ToolError("ValueError", f"The provided filename {path} does not exist") from None
    except zipfile.BadZipFile:
        raise ToolError(
            "RuntimeError", "PytorchStreamReader failed reading zip archive: failed finding central directory"
        ) from None
