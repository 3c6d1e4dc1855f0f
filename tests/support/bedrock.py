"""The stand-in of Bedrock as a process, and real clients of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import stop
from trainyard.bedrock import Bedrock, client_config

REGION = "us-east-2"
LLAMA = "meta.llama3-1-8b-instruct"


@dataclass(frozen=True)
class LocalBedrock:
    endpoint: str
    data: Path

    def offers(self, *models: dict[str, Any] | str, rules: tuple[dict[str, Any], ...] = ()) -> None:
        """From now on. models: ids, or documents of the stand-in."""
        documents = [{"modelId": each} if isinstance(each, str) else each for each in models]
        text = json.dumps({"models": documents, "rules": rules})
        fresh = self.data.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.data)

    def client(self, region: str = REGION, **config: Any) -> Any:
        return _session().client(
            "bedrock", region_name=region, endpoint_url=self.endpoint, config=client_config(**config)
        )

    def seam(self, region: str = REGION, **config: Any) -> Bedrock:
        """As tasks have it; with one attempt, so that silence is quick."""
        return Bedrock(lambda: self.client(region, **{"attempts": 1, **config}), region)


@cache
def _session() -> Any:
    """One for all: it keeps botocore's description of the service, which is long to parse."""
    import boto3

    return boto3.session.Session(aws_access_key_id="key", aws_secret_access_key="secret")


def legacy(model_id: str, ends: str | None = None) -> dict[str, Any]:
    lifecycle = {"status": "LEGACY", **({"endOfLifeTime": ends} if ends else {})}
    return {"modelId": model_id, "modelLifecycle": lifecycle}


@pytest.fixture(scope="session")
def bedrock_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBedrock]:
    data = tmp_path_factory.mktemp("bedrock") / "models.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "local.bedrock", "--data", str(data)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, "the stand-in of Bedrock did not start"
        yield LocalBedrock(found[0], data)
    finally:
        stop(process)


@pytest.fixture
def bedrock(bedrock_process: LocalBedrock) -> LocalBedrock:
    """With one model, and without faults."""
    bedrock_process.offers(f"{LLAMA}-v1:0")
    return bedrock_process
