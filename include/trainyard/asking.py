"""How a release is asked for: the body of a DAG run, with a run id that its content decides.

The same content twice is the same run id, and Airflow refuses the second: one release, however often it is
asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard import catalogue
from trainyard.spec import Request, Spec

DAG_ID = "model_release"


@dataclass(frozen=True)
class Ask:
    """A request with its revision pinned. run_id: fits Airflow's rule for DAG run ids."""

    run_id: str
    conf: dict[str, Any]


def ask(releases_dir: Path, request: Request, revision: str) -> Ask:
    """revision: the commit SHA that the request's revision is now. Raises Refused for a request that cannot
    be."""
    spec = catalogue.resolve(releases_dir, request)
    conf = {"release": request.release, "revision": revision}
    if request.overrides:
        conf["overrides"] = request.overrides  # type: ignore[assignment]
    if request.request:
        conf["request"] = request.request
    return Ask(f"{request.release}__{revision[:12]}__{_digest(spec, revision, request.request)}", conf)


def _digest(spec: Spec, revision: str, request: str) -> str:
    document = spec.model_dump(mode="json")
    document["model"]["revision"] = revision
    if document["model"]["source"] is None:
        del document["model"]["source"]  # as before there were others: an old request keeps its id
    text = json.dumps([document, request], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
