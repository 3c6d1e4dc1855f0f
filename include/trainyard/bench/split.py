"""Which share of the requests at the gateway really reaches the canary: asked, not believed."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from trainyard.errors import Problem, Refused

PROBE_SECONDS = 10.0
PROBES_A_CONNECTION = 5
MOST_SECONDS = 60.0  # of all probes: servers that hang would keep the verdict on them waiting


def observe_split(
    url: str,
    *,
    canary_name: str,
    probes: int = 200,
    host: str | None = None,
    timeout: float = PROBE_SECONDS,
    most_seconds: float = MOST_SECONDS,
) -> dict[str, Any]:
    """GET /v1/models at the gateway `probes` times and count the answers that list `canary_name`,
    as a served name or as the last part of the directory that a model was loaded from.

    No probe begins after `most_seconds`; the result says how many were `wanted`.

    Half of the probes come on connections of their own, half share kept ones: a proxy that balances
    connections instead of requests would show a different split to the two.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(Problem("split.url", url, "is not an http(s) address", "Give the gateway's base"))
    statuses: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    canary = answered = made = 0
    deadline = time.monotonic() + most_seconds
    path = parts.path.rstrip("/") + "/v1/models"
    kept: http.client.HTTPConnection | None = None
    for number in range(probes):
        if time.monotonic() > deadline:
            break
        made += 1
        keep = number % (2 * PROBES_A_CONNECTION) < PROBES_A_CONNECTION
        connection = kept or _connect(parts.scheme, parts.netloc, timeout)
        try:
            connection.request(
                "GET",
                path,
                headers={"Connection": "keep-alive" if keep else "close"} | ({"Host": host} if host else {}),
            )
            response = connection.getresponse()
            body = response.read()
            statuses[str(response.status)] += 1
            if response.status == 200:
                names = {name for entry in json.loads(body)["data"] for name in _names(entry)}
                answered += 1
                canary += canary_name in names
        except (OSError, http.client.HTTPException) as error:
            errors[type(error).__name__] += 1
            keep = False
        except (ValueError, KeyError, TypeError):  # a 200 that is no model list
            errors["malformed"] += 1
        last_of_connection = number % PROBES_A_CONNECTION == PROBES_A_CONNECTION - 1
        if keep and not last_of_connection:
            kept = connection
        else:
            connection.close()
            kept = None
    if kept is not None:
        kept.close()
    return {
        "canary_name": canary_name,
        "wanted": probes,
        "probes": made,
        "answered": answered,
        "canary": canary,
        "share": round(canary / answered, 6) if answered else None,
        "failures": made - answered,
        "statuses": dict(sorted(statuses.items())),
        "errors": dict(sorted(errors.items())),
    }


def _names(entry: Any) -> set[str]:
    """What a served model calls itself, and the directory that it was loaded from.

    All releases of a model answer to one name; the directory carries the release's id. vLLM says it in
    `root`; TGI has no `root` and calls the model by its directory.
    """
    name = str(entry["id"])
    place = str(entry.get("root") or (name if name.startswith("/") else ""))
    return {name, place.rstrip("/").rpartition("/")[2]} - {""}


def _connect(scheme: str, netloc: str, timeout: float) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    return kind(netloc, timeout=timeout)
