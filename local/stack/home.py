"""Where a stack keeps its state, and the secrets and ports that it keeps between runs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
MARKER = "LOCAL_STACK_ID"
"""Environment variable that every process of a stack carries; its value names the home."""


@dataclass(frozen=True)
class Home:
    """Paths below one state folder."""

    root: Path

    @classmethod
    def at(cls, path: str | Path | None = None) -> Home:
        """The folder asked for, else `TRAINYARD_HOME`, else `.trainyard` in the checkout; absolute."""
        chosen = path or os.environ.get("TRAINYARD_HOME") or REPOSITORY / ".trainyard"
        return cls(Path(chosen).expanduser().resolve())

    @property
    def id(self) -> str:
        """Value of the marker in the environment of this stack's processes."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]

    @property
    def state_file(self) -> Path:
        return self.root / "stack.json"

    @property
    def env_file(self) -> Path:
        return self.root / "stack.env"

    @property
    def pod_identity_file(self) -> Path:
        return self.root / "pod-identity.env"

    @property
    def lock_file(self) -> Path:
        return self.root / "supervisor.lock"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def airflow_kubeconfig(self) -> Path:
        """Leads to the same API server as Airflow's own user, who may do what roles allow it."""
        return self.root / "kubeconfig-airflow"

    @property
    def token_file(self) -> Path:
        """The API server's users besides the one that may do everything."""
        return self.root / "api-tokens.csv"

    @property
    def audit_log(self) -> Path:
        return self.logs / "apiserver-audit.log"

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def airflow(self) -> Path:
        return self.root / "airflow"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def hub(self) -> Path:
        return self.root / "hub"

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def create(self) -> None:
        """Make the folders; only their owner may read them, for they hold secrets.

        Raises OSError when the disk or the permissions do not allow it.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.logs, self.airflow, self.hub):
            folder.mkdir(exist_ok=True)

    def read_state(self) -> dict[str, Any]:
        """The last `stack.json`; empty when there is none."""
        try:
            state = json.loads(self.state_file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


@dataclass(frozen=True)
class Secrets:
    """Generated once a home; whoever reads them controls the stack, so the file is private."""

    postgres: str
    s3_access_key: str
    s3_secret_key: str
    api_token: str
    airflow_api_token: str
    kubelet_token: str
    airflow_password: str
    airflow_jwt: str
    airflow_fernet: str
    airflow_session: str

    @classmethod
    def of(cls, home: Home) -> Secrets:
        """Read them, or generate what is not there yet."""
        file = home.root / "secrets.json"
        known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        generated = {
            "s3_access_key": f"LOCAL{secrets.token_hex(8).upper()}",
            "airflow_password": secrets.token_urlsafe(9),
            "airflow_fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }
        values = {
            name: known.get(name) or generated.get(name) or secrets.token_hex(32)
            for name in cls.__dataclass_fields__
        }
        result = cls(**values)
        if values != known:
            write_private(file, json.dumps(asdict(result), indent=2) + "\n")
        return result
