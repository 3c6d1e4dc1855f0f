"""The trace of a workload, from S3 to a file that the load generators can read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainyard.bench.stored_trace import fetch_trace
from trainyard.store.objects import Objects


@contextmanager
def with_trace(workload: Mapping[str, Any], objects: Objects) -> Iterator[dict[str, Any]]:
    """The document of a workload whose trace is a file here, as long as the block lasts.

    objects: the job's bucket. Raises Refused, PermanentError, StoreUnavailable.
    """
    name = workload.get("trace")
    if not isinstance(name, str):
        yield dict(workload)
        return
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(fetch_trace(objects, name))
        yield {**workload, "trace": str(path)}
