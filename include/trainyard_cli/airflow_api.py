"""Airflow's public REST API (v2), as far as a release needs it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ENDED = ("success", "failed")


class ApiError(Exception):
    """The API refused. status: the HTTP status; detail: its words."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"Airflow answered {status}: {detail}")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Run:
    """started, ended: ISO 8601, None where it has not yet."""

    run_id: str
    state: str
    started: str | None = None
    ended: str | None = None


class Airflow:
    """A session: one token, taken with the user's name and password, and renewed when it expires."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self._credentials = {"username": username, "password": password}
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self.url = url
        self._token = ""

    def trigger(self, dag_id: str, run_id: str | None, conf: dict[str, Any]) -> Run:
        """Raises ApiError: 400 for bad Params, 409 where that run exists."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf}
        if run_id:
            body["dag_run_id"] = run_id
        answer = self._call("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)
        return Run(answer["dag_run_id"], answer["state"])

    def run(self, dag_id: str, run_id: str) -> Run:
        answer = self._call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        return Run(answer["dag_run_id"], answer["state"], answer["start_date"], answer["end_date"])

    def runs(self, dag_id: str) -> list[Run]:
        """The newest first."""
        answer = self._call(
            "GET", f"/api/v2/dags/{dag_id}/dagRuns", params={"order_by": "-run_after", "limit": 50}
        )
        return [Run(item["dag_run_id"], item["state"]) for item in answer["dag_runs"]]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        answer = self._call(
            "GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100}
        )
        found: list[dict[str, Any]] = answer["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        """None where there is none."""
        try:
            answer = self._call(
                "GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
            )
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        value = answer.get("value")
        if isinstance(value, str):
            try:
                return json.loads(value)
            except ValueError:
                return value
        return value

    def stop(self, dag_id: str, run_id: str) -> None:
        """Marks a run as failed: its teardowns (roll back, record) still run."""
        self._call("PATCH", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"})

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> str:
        """A task's log as text, error details included."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        answer = self._call("GET", path, params={"full_content": "true"})
        lines = answer.get("content") or []
        return "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)

    def page(self, path: str) -> str:
        """A page of the UI's server (our plugin's), with this session's credentials. Raises ApiError."""
        self._call("GET", "/api/v2/version")
        answer = self._send("GET", path)
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, _detail(answer))
        return answer.text

    def wait_for_dag(self, dag_id: str, seconds: float) -> None:
        """Waits until the DAG processor has parsed a DAG. Raises TimeoutError with its import error, if
        any."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._call("GET", f"/api/v2/dags/{dag_id}")
                return
            except ApiError as error:
                if error.status != 404:
                    raise
            if time.monotonic() > deadline:
                found = self._call("GET", "/api/v2/importErrors")["import_errors"]
                words = "; ".join(item["stack_trace"][-400:] for item in found) or "no import error is known"
                raise TimeoutError(f"Airflow has not parsed {dag_id} in {seconds:.0f} s: {words}")
            time.sleep(0.5)

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        if not self._token:
            self._log_in()
        answer = self._send(method, path, **kwargs)
        if answer.status_code == 401:
            self._log_in()
            answer = self._send(method, path, **kwargs)
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, _detail(answer))
        return answer.json() if answer.content else {}

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        return self._client.request(
            method, path, headers={"Authorization": f"Bearer {self._token}"}, **kwargs
        )

    def _log_in(self) -> None:
        answer = self._client.post("/auth/token", json=self._credentials)
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, _detail(answer))
        self._token = answer.json()["access_token"]


def connect(home: Path | None = None) -> Airflow:
    """From TRAINYARD_AIRFLOW_URL with AIRFLOW_USERNAME and AIRFLOW_PASSWORD, else from the local stack's
    folder."""
    url = os.environ.get("TRAINYARD_AIRFLOW_URL", "http://127.0.0.1:8080")
    name, password = os.environ.get("AIRFLOW_USERNAME"), os.environ.get("AIRFLOW_PASSWORD")
    if not (name and password) and home is not None and (home / "airflow-credentials.json").exists():
        found = json.loads((home / "airflow-credentials.json").read_text())
        name, password = found["username"], found["password"]
    if not (name and password):
        raise ApiError(
            401, "no credentials: set AIRFLOW_USERNAME and AIRFLOW_PASSWORD, or start the stack: make up"
        )
    return Airflow(url, name, password)


def _detail(answer: httpx.Response) -> str:
    try:
        found = answer.json()["detail"]
    except (ValueError, TypeError, LookupError):
        return answer.text[:500]
    if isinstance(found, dict):
        return str(found.get("reason") or found.get("message") or found)
    return str(found)
