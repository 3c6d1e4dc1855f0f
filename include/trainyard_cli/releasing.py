"""Asks Airflow for a release and follows it."""

from __future__ import annotations

from typing import Any

import yaml
from rich.console import Console

from trainyard import catalogue
from trainyard.asking import DAG_ID, Ask, ask
from trainyard.errors import Problem, Refused
from trainyard.hub import Hub
from trainyard.origins import Origin
from trainyard.settings import Settings
from trainyard.spec import Request, parse_request
from trainyard_cli import records
from trainyard_cli.airflow_api import Airflow, ApiError
from trainyard_cli.progress import Ended, follow


def parse_sets(values: list[str]) -> dict[str, Any]:
    """`a.b=1` -> {"a": {"b": 1}}; a key that has dots itself is quoted: `serving.annotations."x.y/z"=...`."""
    out: dict[str, Any] = {}
    for value in values:
        path, equals, text = value.partition("=")
        keys = _split(path)
        if not equals or not all(keys):
            raise Refused(
                Problem(
                    "--set",
                    value,
                    "must look like field.field=value",
                    "For example --set serving.replicas=2.",
                )
            )
        node = out
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise Refused(
                    Problem("--set", value, f"{key} was given a value before", "Leave one of the two out.")
                )
        node[keys[-1]] = _value(text)
    return out


def request_of(name: str, revision: str | None, sets: list[str], request: str) -> Request:
    document: dict[str, Any] = {"release": name, "overrides": parse_sets(sets), "request": request}
    if revision:
        document["revision"] = revision
    return parse_request(document)


def pin(request: Request) -> Ask:
    """Validates a request and pins its revision. Raises Refused, NotFound, HubUnavailable."""
    settings = Settings()
    spec = catalogue.resolve(settings.releases_dir, request)
    origin = Origin(spec.model, lambda: Hub(settings.hub_endpoint), records.objects)
    return ask(settings.releases_dir, request, origin.pin())


def trigger(airflow: Airflow, wanted: Ask, console: Console) -> tuple[str, bool]:
    """(run id, whether it is new). A run of the same content is not started twice."""
    try:
        return airflow.trigger(DAG_ID, wanted.run_id, wanted.conf).run_id, True
    except ApiError as error:
        if error.status != 409:
            raise
    console.print(f"The same release was asked for before, as run {wanted.run_id}: it is not started twice.")
    return wanted.run_id, False


def watch(airflow: Airflow, run_id: str, console: Console, title: str = "", timeout: float = 3600.0) -> Ended:
    reader = records.by_run(lambda: airflow.xcom(DAG_ID, run_id, "plan", "return_value"))
    return follow(airflow, run_id, console, read_record=reader, title=title, timeout=timeout)


def _split(path: str) -> list[str]:
    keys, quoted, word = [], False, ""
    for letter in path:
        if letter == '"':
            quoted = not quoted
        elif letter == "." and not quoted:
            keys.append(word)
            word = ""
        else:
            word += letter
    return [*keys, word]


def _value(text: str) -> Any:
    """Numbers, booleans and null as YAML reads them; JSON objects that are meant as text stay text when
    quoted."""
    if text[:1] in "{[":
        # An annotation's value is text, though it looks like JSON.
        return text
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    # What else YAML knows (dates, say) JSON does not: a revision may look like one.
    return found if found is None or isinstance(found, str | bool | int | float) else text
