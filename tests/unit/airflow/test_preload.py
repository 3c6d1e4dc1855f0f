"""What the scheduler has imported and parsed before it forks. A task that has to do it again is only slower:
nobody would notice."""

from __future__ import annotations

import copy
import sys
from pkgutil import iter_modules
from typing import Any

import botocore.loaders
import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.config import Config

import trainyard_airflow.preload  # noqa: F401
from trainyard import stages
from trainyard.params import overrides_schema
from trainyard_airflow import seams


def test_an_s3_client_made_with_the_preloaded_models_parses_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = seams.service_models()
    read: list[str] = []

    def load_file(self: Any, path: str) -> Any:
        read.append(path)
        return original(self, path)

    original = botocore.loaders.JSONFileLoader.load_file
    monkeypatch.setattr(botocore.loaders.JSONFileLoader, "load_file", load_file)
    session = botocore.session.get_session()
    session.register_component("data_loader", loader)
    session.create_client(
        "s3",
        region_name="us-east-2",
        endpoint_url="http://127.0.0.1:9",
        config=Config(signature_version=UNSIGNED),
    )
    assert read == []


def test_every_stage_and_what_is_slow_to_import_is_there_before_a_task_is() -> None:
    there = set(sys.modules)  # of the import of `preload` at the top
    assert {f"trainyard.stages.{module.name}" for module in iter_modules(stages.__path__)} <= there
    assert {"boto3", "huggingface_hub.hf_api", "jinja2", "kubernetes.stream", "numpy"} <= there


def test_the_schema_of_the_overrides_is_made_once_and_never_copied() -> None:
    assert overrides_schema() is overrides_schema()
    properties = overrides_schema()["properties"]
    assert copy.deepcopy({"properties": properties})["properties"] is properties
