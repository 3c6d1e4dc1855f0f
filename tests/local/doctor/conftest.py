"""A cluster that lacks nothing: an API server with deploy/cluster in it, and what controllers would say."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster import Cluster as Server
from tests.support.cluster import api_server
from tests.support.manifests import text_of
from tests.support.models import entry
from tests.support.world import api_client
from trainyard.kube.cluster import Cluster
from trainyard.settings import Settings
from trainyard.spec import Spec, parse_spec

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
POOLS = ("neuron-trn2", "neuron-trn1", "neuron-inf2")
GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces/trainyard-serving/gateways/trainyard"
ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/trainyard-serving/httproutes/trainyard.base"
CLASS = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/traefik"
NODECLASS = "/apis/karpenter.k8s.aws/v1/ec2nodeclasses/neuron"


def pool_path(name: str) -> str:
    return f"/apis/karpenter.sh/v1/nodepools/{name}"


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason or kind,
        "message": message,
        "lastTransitionTime": "2026-11-01T00:00:00Z",
    }


@dataclass
class Ward:
    """The cluster under examination, and hands to make it ill for a while."""

    server: Server
    cluster: Cluster
    settings: Settings

    def patch(self, path: str, body: Object) -> Object:
        return self.server.request("PATCH", path, body, media=MERGE)

    @contextmanager
    def without(self, path: str) -> Iterator[None]:
        """An object is gone, and comes back as it was, status included."""
        was = self.server.request("GET", path)
        self.server.request("DELETE", path)
        try:
            yield
        finally:
            again = copy.deepcopy(was)
            for name in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
                again["metadata"].pop(name, None)
            self.server.request("POST", path.rpartition("/")[0], again)
            if was.get("status"):
                self.patch(f"{path}/status", {"status": was["status"]})

    @contextmanager
    def but(self, path: str, body: Object, back: Object) -> Iterator[None]:
        """An object says something else for a while."""
        self.patch(path, body)
        try:
            yield
        finally:
            self.patch(path, back)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("doctor")
    with api_server(folder) as server:
        server.kubectl("apply", "--server-side", "-f", "-", stdin=text_of("overlays/local"))
        found = Ward(server, Cluster(api_client(server)), Settings(releases_dir=folder))
        ready = {"status": {"conditions": [condition("Ready"), condition("ValidationSucceeded")]}}
        for path in (NODECLASS, *map(pool_path, POOLS)):
            found.patch(f"{path}/status", ready)
        found.patch(f"{CLASS}/status", {"status": {"conditions": [condition("Accepted")]}})
        listener = {
            "name": "http",
            "attachedRoutes": 1,
            "supportedKinds": [],
            "conditions": [condition("Accepted"), condition("Programmed"), condition("ResolvedRefs")],
        }
        status = {
            "conditions": [condition("Accepted"), condition("Programmed")],
            "addresses": [{"type": "IPAddress", "value": "192.0.2.7"}],
            "listeners": [listener],
        }
        found.patch(f"{GATEWAY}/status", {"status": status})
        parent = {
            "parentRef": {"name": "trainyard"},
            "controllerName": "traefik.io/gateway-controller",
            "conditions": [condition("Accepted"), condition("ResolvedRefs")],
        }
        found.patch(f"{ROUTE}/status", {"status": {"parents": [parent]}})
        yield found


@pytest.fixture
def spec() -> Spec:
    """An entry of a catalogue, for trn2.48xlarge of neuron-trn2, whose model needs a token."""
    return parse_spec(
        entry(model={"repo": "tests/tiny", "revision": "main", "token_secret": "hub-token"}), "a test"
    )


def write_catalogue(folder: Path, *documents: Object) -> None:
    for document in documents:
        (folder / f"{document['name']}.yaml").write_text(yaml.safe_dump(document))
