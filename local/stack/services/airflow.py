"""Airflow as it runs elsewhere: scheduler with LocalExecutor, DAG processor, triggerer, API server."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from .. import probes
from ..home import write_private
from ..ports import HOST
from ..service import Part, Probe, Service, Step, StepFailed
from .setting import Setting, module

USER = "admin"


def credentials_file(setting: Setting) -> Path:
    return setting.home.root / "airflow-credentials.json"


def environment(setting: Setting) -> dict[str, str]:
    """All of Airflow's configuration: no `airflow.cfg` of this machine takes part."""
    home, logs = setting.home.airflow, setting.home.logs / "airflow"
    sections: dict[str, dict[str, object]] = {
        "core": {
            "executor": "LocalExecutor",
            "dags_folder": setting.repository / "dags",
            "plugins_folder": setting.repository / "plugins",
            "load_examples": False,
            "dags_are_paused_at_creation": False,
            "parallelism": 6,  # workers are forked up front
            "mp_start_method": "fork",  # also on 3.14: the preloaded modules are inherited by forks only
            "hostname_callable": "socket.gethostname",  # getfqdn asks the network, which may take its time
            "fernet_key": setting.secrets.airflow_fernet,
            "execution_api_server_url": f"{setting.url('airflow')}/execution/",
            "min_serialized_dag_update_interval": 5,
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": home / "passwords.json",
        },
        "database": {
            "sql_alchemy_conn": setting.database,
            "check_migrations": False,  # a step of its own saw to that
        },
        "scheduler": {
            "scheduler_idle_sleep_time": 0.2,
            # A killed scheduler is back after seconds: what it had queued must not wait for minutes.
            "scheduler_heartbeat_sec": 2,
            "scheduler_health_check_threshold": 10,
            "orphaned_tasks_check_interval": 5,
            "task_instance_heartbeat_timeout": 60,
        },
        "dag_processor": {
            "dag_bundle_config_list": json.dumps(bundles(setting)),
            "refresh_interval": 10,
            "min_file_process_interval": 60,  # a changed file is read at once, all the same
        },
        # How late the end of a task's process may be noticed. At the default (5 s) a task that defers and is
        # resumed sooner is taken for killed: "finished with state success, but the task instance's state
        # attribute is queued".
        "workers": {
            "min_heartbeat_interval": 1,
            # A machine that stands still for the default of 5 s must not have every call made twice.
            "execution_api_timeout": 60,
        },
        "triggerer": {"job_heartbeat_sec": 2, "triggerer_health_check_threshold": 10},
        "api": {
            "host": HOST,
            "port": setting.ports["airflow"],
            "base_url": setting.url("airflow"),
            "workers": 1,
            "secret_key": setting.secrets.airflow_session,
            "instance_name": "Trainyard (local)",
        },
        "api_auth": {"jwt_secret": setting.secrets.airflow_jwt, "jwt_issuer": "local-stack"},
        "logging": {
            "base_log_folder": logs,
            "dag_processor_child_process_log_directory": logs / "dag_processor",
            "colored_console_log": False,
        },
        "usage_data_collection": {"enabled": False},
    }
    settings = {
        f"AIRFLOW__{section.upper()}__{name.upper()}": str(value)
        for section, options in sections.items()
        for name, value in options.items()
    }
    return {"AIRFLOW_HOME": str(home), **settings, **connections(setting)}


def bundles(setting: Setting) -> list[dict[str, object]]:
    """The repository's DAGs under Airflow's own name for them, and the other folders under theirs."""
    folders: dict[str, dict[str, object]] = {"dags-folder": {}} | {
        folder.name: {"path": str(folder)} for folder in setting.more_dags
    }
    return [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {**options, "refresh_interval": 10},
        }
        for name, options in folders.items()
    ]


def connections(setting: Setting) -> dict[str, str]:
    """`aws_default` and `kubernetes_default`, in Airflow's JSON form."""
    from .seaweed import REGION

    aws = {
        "conn_type": "aws",
        "login": setting.secrets.s3_access_key,
        "password": setting.secrets.s3_secret_key,
        "extra": {
            "region_name": REGION,
            "service_config": {"s3": {"endpoint_url": setting.url("s3")}},
        },
    }
    kubernetes = {
        "conn_type": "kubernetes",
        "extra": {"kube_config_path": str(setting.airflow_kubeconfig), "in_cluster": False},
    }
    return {
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(kubernetes),
    }


def airflow(setting: Setting, environment: dict[str, str]) -> tuple[Part, ...]:
    """Migration, then the four processes; `environment` is the stack's whole."""
    port = str(setting.ports["airflow"])
    return (
        Step("airflow-db", lambda: migrate(setting, environment), needs=("postgres",)),
        Service(
            "airflow-api",
            module("airflow", "api-server", "--host", HOST, "--port", port, "--workers", "1"),
            ready=probes.http(f"{setting.url('airflow')}/execution/health"),
            needs=("airflow-db",),
            address=setting.url("airflow"),
        ),
        Service(
            "airflow-scheduler",
            # Its log server would listen on all interfaces; the API server reads the same folder anyway.
            module("local.stack.preloaded", "scheduler", "--skip-serve-logs"),
            ready=heartbeat(setting, "scheduler"),
            needs=("airflow-db", "manifests"),  # before its roles are there, Airflow's user may do nothing
            stop_seconds=3,  # it would wait for running tasks, which are ended next
            spares=runs_a_task,
        ),
        Service(
            "airflow-processor",
            module("local.stack.preloaded", "dag-processor"),
            ready=heartbeat(setting, "dag_processor"),
            needs=("airflow-db",),
            stop_seconds=5,
        ),
        Service(
            "airflow-triggerer",
            module("local.stack.preloaded", "triggerer", "--skip-serve-logs"),
            ready=heartbeat(setting, "triggerer"),
            needs=("airflow-db", "manifests"),
            stop_seconds=5,
        ),
        Step(
            "airflow-dags",
            lambda: dags_are_read(setting),
            needs=("airflow-api", "airflow-processor"),
            ready_seconds=300,
        ),
    )


def runs_a_task(process: psutil.Process) -> bool:
    """Whether a child of a crashed scheduler has a task in hand; idle ones wait on a dead queue for ever."""
    return "<idle>" not in " ".join(process.cmdline())


def heartbeat(setting: Setting, component: str) -> Probe:
    """Ready when the API server has seen a heartbeat from after the start."""

    async def probe(started: float) -> bool:
        status, body = await probes.fetch(f"{setting.url('airflow')}/api/v2/monitor/health")
        if status != 200:
            return False
        seen = json.loads(body).get(component, {}).get(f"latest_{component}_heartbeat")
        if not seen:
            return False
        return datetime.fromisoformat(seen).astimezone(UTC).timestamp() >= started

    return probe


async def migrate(setting: Setting, environment: dict[str, str]) -> None:
    """Write settings and password, and bring the schema to this Airflow's release.

    A file beside the database's folder says that this was done: asking Airflow takes seconds.
    """
    home = setting.home.airflow
    write_private(home / "passwords.json", json.dumps({USER: setting.secrets.airflow_password}) + "\n")
    credentials = {
        "url": setting.url("airflow"),
        "username": USER,
        "password": setting.secrets.airflow_password,
    }
    write_private(credentials_file(setting), json.dumps(credentials, indent=2) + "\n")
    done = setting.home.postgres / f"airflow-{version('apache-airflow-core')}-migrated"
    if done.exists():
        return
    with setting.home.log("airflow-db").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *module("airflow", "db", "migrate"),
            env=environment,
            cwd=setting.home.root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        if code := await process.wait():
            raise StepFailed(f"`airflow db migrate` exited with status {code}")
    done.touch()


async def dags_are_read(setting: Setting) -> str:
    """Wait until every file in `dags/` has been read, well or not; says which ones cannot be imported."""
    files = {
        path.name
        for path in (setting.repository / "dags").glob("*.py")
        if not path.name.startswith("_") and "dag" in path.read_text(errors="replace").lower()
    }
    base = setting.url("airflow")
    login = {"username": USER, "password": setting.secrets.airflow_password}
    _, body = await probes.fetch(f"{base}/auth/token", body=login)
    token = json.loads(body or b"{}").get("access_token", "")
    while True:
        _, body = await probes.fetch(f"{base}/api/v2/importErrors?limit=100", token=token)
        broken = {
            Path(error["filename"]).name for error in json.loads(body or b"{}").get("import_errors", [])
        }
        _, body = await probes.fetch(f"{base}/api/v2/dags?limit=100", token=token)
        read = {
            Path(dag["fileloc"]).name for dag in json.loads(body or b"{}").get("dags", []) if dag["fileloc"]
        }
        if files <= read | broken:
            return f"cannot be imported: {', '.join(sorted(broken))}" if broken else ""
        await asyncio.sleep(0.3)
