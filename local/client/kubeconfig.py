"""Reading a kubeconfig: the server, how to trust it, and who we are."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class KubeconfigError(ValueError):
    """The kubeconfig cannot be used; the message names the file and the field."""


@dataclass(frozen=True)
class Cluster:
    """Where the API server is and how to speak to it."""

    server: str
    token: str | None
    tls: ssl.SSLContext | None


def load_kubeconfig(path: Path, context: str | None = None) -> Cluster:
    """Read the current (or named) context of a kubeconfig file; raises KubeconfigError."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise KubeconfigError(f"kubeconfig {path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise KubeconfigError(f"kubeconfig {path}: is not a mapping")
    chosen = _named(config, "contexts", context or config.get("current-context") or "", "context", path)
    cluster = _named(config, "clusters", str(chosen.get("cluster")), "cluster", path)
    user = _named(config, "users", str(chosen.get("user")), "user", path) if chosen.get("user") else {}
    if "exec" in user or "auth-provider" in user:
        raise KubeconfigError(
            f"kubeconfig {path}: exec and auth-provider users are not supported; use a token"
        )
    server = str(cluster.get("server", "")).rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise KubeconfigError(
            f"kubeconfig {path}: clusters[].cluster.server {server!r} is not an http(s) address"
        )
    token = user.get("token")
    if not token and user.get("tokenFile"):
        token = Path(user["tokenFile"]).read_text(encoding="utf-8").strip()
    tls = _tls(cluster, user, path.parent) if server.startswith("https://") else None
    return Cluster(server=server, token=token, tls=tls)


def _named(config: dict[str, Any], section: str, name: str, field: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return dict(entry.get(field) or {})
    raise KubeconfigError(f"kubeconfig {path}: {section} has no entry named {name!r}")


def _tls(cluster: dict[str, Any], user: dict[str, Any], base: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if cluster.get("certificate-authority-data"):
        context = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
    elif cluster.get("certificate-authority"):
        context = ssl.create_default_context(cafile=str(base / cluster["certificate-authority"]))
    # Self-signed certificates made for one machine often lack the key usage that Python 3.13 began to
    # insist on.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = user.get("client-certificate-data"), user.get("client-key-data")
    if certificate and key:
        # `load_cert_chain` reads files only; the copy is removed as soon as it is loaded.
        handle, name = tempfile.mkstemp()
        try:
            os.write(handle, base64.b64decode(certificate) + b"\n" + base64.b64decode(key))
            os.close(handle)
            context.load_cert_chain(name)
        finally:
            os.unlink(name)
    elif user.get("client-certificate") and user.get("client-key"):
        context.load_cert_chain(str(base / user["client-certificate"]), str(base / user["client-key"]))
    return context
