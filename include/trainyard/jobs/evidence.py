"""What a server that has started shows of itself: its metrics, and the files below its bundle's folder.

    python trainyard.pyz evidence --port 8000 --folder DIR

Prints one line of JSON: {"metrics": text, "files": [paths below DIR]}. Our own hidden files are left out.
"""

from __future__ import annotations

import json
from pathlib import Path

from trainyard.jobs.options import parse
from trainyard.jobs.pages import metrics_page, own_address

OWN = ".trainyard-"  # markers of what was materialised
USAGE = "usage: evidence --port PORT --folder DIR [--host ADDRESS] [--timeout SECONDS]"


def main(arguments: list[str]) -> int:
    """0 when called rightly: what could not be had is empty, and the reader decides what that means."""
    given = parse(arguments, {"host": own_address(), "timeout": "5", "port": "", "folder": ""})
    if given is None or not given["port"] or not given["folder"]:
        print(USAGE)
        return 2
    try:
        metrics = metrics_page(given["host"], int(given["port"]), float(given["timeout"]))
    except (OSError, ValueError):
        metrics = ""
    print(json.dumps({"metrics": metrics, "files": files_below(Path(given["folder"]))}))
    return 0


def files_below(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found if not path.name.startswith(OWN))
