"""Registers Trainyard with Airflow, and does nothing else: Airflow imports this file into every process."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from trainyard_airflow.operators.record import ReportLink
from trainyard_airflow.web.lazy import LazyApp


class TrainyardPlugin(AirflowPlugin):
    name = "trainyard"
    fastapi_apps: list[Any] = [{"app": LazyApp(), "url_prefix": "/trainyard", "name": "Trainyard"}]
    external_views: list[Any] = [
        {
            "name": "Release report",
            "href": "/trainyard/runs/{RUN_ID}/report",
            "destination": "dag_run",
            "url_route": "release-report",
        },
        {
            "name": "Trainyard",
            "href": "/trainyard/",
            "destination": "nav",
            "category": "browse",
            "url_route": "trainyard",
        },
    ]
    operator_extra_links: list[Any] = [ReportLink()]
