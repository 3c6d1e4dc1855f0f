"""Stages without Airflow: a real S3, a real local API server, a real local Hub, and hands to play the rest.

No controllers run here, so a test decides what the cluster answers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.checkpoints.checkpoint import write_checkpoint
from tests.support.cluster import TOKEN, api_server
from tests.support.cluster import Cluster as Server
from tests.support.hub import LocalHub
from tests.support.models import entry, write_entry
from tests.support.seaweed import S3Server
from trainyard.hub import Hub
from trainyard.kube.cluster import Cluster, Object
from trainyard.release import Release
from trainyard.settings import Settings
from trainyard.spec import Request
from trainyard.stages import canary, plan, promote
from trainyard.stages.build import staging
from trainyard.stages.context import Context
from trainyard.store.documents import encode
from trainyard.store.manifests import FileEntry
from trainyard.store.objects import Objects
from trainyard.store.staging import StagedResult, staged_file, staged_result

REPOSITORY = Path(__file__).resolve().parents[2]

_numbers = itertools.count(1)
REPO = "tests/tiny"


@pytest.fixture(scope="session")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API server alone: what is written stays as it was written."""
    with api_server(tmp_path_factory.mktemp("bare-api")) as server:
        # Every pod of ours names one, and a pod of a class that does not exist is refused.
        priorities = REPOSITORY / "deploy/cluster/base/priorities.yaml"
        for document in yaml.safe_load_all(priorities.read_text()):
            server.request("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", document)
        yield server


def api_client(server: Server, url: str | None = None) -> Any:
    """A client as Airflow's hook makes it."""
    from kubernetes import client

    configuration = client.Configuration(host=url or server.url)
    configuration.ssl_ca_cert = str(server.certificate)
    configuration.api_key = {"authorization": f"Bearer {TOKEN}"}
    return client.ApiClient(configuration)


@pytest.fixture(scope="session")
def kube(bare_server: Server) -> Cluster:
    return Cluster(api_client(bare_server))


def create_namespace(server: Server, prefix: str) -> str:
    name = f"{prefix}-{next(_numbers)}"
    server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@pytest.fixture
def space(bare_server: Server) -> str:
    """A namespace of the test's own."""
    return create_namespace(bare_server, "space")


@pytest.fixture(scope="session")
def revisions(hub_process: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Three commits of one tiny checkpoint; the last is `main`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    found = [
        hub_process.publish(REPO, write_checkpoint(folder / str(seed), seed=seed), title=f"Seed {seed}")
        for seed in (1, 2, 3)
    ]
    return found[0], found[1], found[2]


@dataclass
class World:
    """One model's surroundings: its catalogue, bucket and namespaces."""

    server: Server
    ctx: Context
    folder: Path
    revisions: tuple[str, str, str]
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.ctx.settings.serving_namespace

    def again(self) -> Context:
        """The seams of another task: nothing that the first one remembers."""
        return Context(self.ctx.settings, self.ctx.objects, self.ctx.cluster, self.ctx.make_hub)

    def catalogue(self, **changes: Any) -> None:
        self.document = entry(
            name="tiny",
            model={"repo": REPO, "revision": "main"},
            hardware={"instance_type": "trn2.48xlarge", "nodepool": "neuron", "tensor_parallel": 4},
            compile={"batch_size": 4, "sequence_length": 512, "memory": "1Gi"},
            **changes,
        )
        write_entry(self.folder, self.document)

    def plan(self, number: int = 2, run: str = "run-1", **request: Any) -> plan.Planned:
        wanted = Request(release="tiny", revision=self.revisions[number], **request)
        return plan.run(self.again(), wanted, run)

    def planned(self, number: int = 2, run: str = "run-1", **request: Any) -> Release:
        found = self.plan(number, run, **request).release
        assert found is not None
        return found

    def load(self, release: Release) -> Release:
        return self.again().load(release.model, release.id)

    def stage_compiled(self, release: Release, **changes: bytes) -> None:
        """What a compile pod leaves. changes: other bodies, by file name with `_` for dots and slashes."""
        build, versions = release.spec, release.plan.fingerprint_inputs["versions"]
        config = {
            "optimum_neuron_version": versions["engine"],
            "neuronxcc_version": f"{versions['compiler']}+82129205",
            "tp_degree": build.hardware.tensor_parallel,
            "batch_size": build.compile.batch_size,
            "sequence_length": build.compile.sequence_length,
            "target": "trn2",
        }
        files = {
            "neuron_config.json": json.dumps(config).encode(),
            "config.json": b"{}",
            "model.pt": b"neff" * 99,
        }
        for rank in range(build.hardware.tensor_parallel):
            name = f"checkpoint/weights/tp{rank}_sharded_checkpoint.safetensors"
            files[name] = f"{release.plan.revision}{rank}".encode() * 20
        for path in list(files):
            flat = path.replace("/", "_").replace(".", "_")
            if flat in changes:
                files[path] = changes[flat]
        prefix, ctx = staging(release), self.ctx
        entries = []
        for path, body in files.items():
            if body:
                ctx.objects.put(staged_file(prefix, path), body)
                entries.append(FileEntry(path, len(body), hashlib.sha256(body).hexdigest()))
        result = StagedResult(release.plan.fingerprint, release.id, tuple(entries), 1.0, None)
        ctx.objects.put(staged_result(prefix), encode(result.to_json()))

    def publish(self, release: Release) -> None:
        from trainyard.stages import publish

        self.stage_compiled(release)
        publish.run(self.again(), release)

    def deployed(self, release: Release) -> Release:
        """Published and deployed as a canary."""
        self.publish(release)
        canary.run(self.again(), release)
        return self.load(release)

    def promoted(self, number: int, run: str) -> Release:
        """A release that went all the way, its lease given back."""
        from trainyard.stages import record

        release = self.deployed(self.planned(number, run))
        promote.run(self.again(), release)
        record.run(self.again(), self.load(release))
        return self.load(release)

    def weights(self) -> dict[str, int]:
        from trainyard.kube.traffic import weights_of

        return weights_of(self.ctx.cluster.find("HTTPRoute", "tiny", self.namespace))

    def live(self, kind: str, release: Release) -> Object | None:
        return self.ctx.cluster.find(kind, release.id, self.namespace)

    def pod(self, release: Release, phase: str = "Running", **status: Any) -> str:
        """A server pod of a release, as its ReplicaSet would have made it."""
        template = self.ctx.cluster.get("Deployment", release.id, self.namespace)["spec"]["template"]
        name = f"{release.id}-{next(_numbers)}"
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        body = {
            "metadata": {"name": name, "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
        }
        self.server.request("POST", path, body)
        patch = {"status": {"phase": phase, **status}}
        self.server.request("PATCH", f"{path}/{name}/status", patch, media="application/merge-patch+json")
        return name

    def endpoints(self, release: Release, *addresses: str) -> None:
        """Ready endpoints of a release's Service."""
        body = {
            "metadata": {"name": f"{release.id}-x", "labels": {"kubernetes.io/service-name": release.id}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
            "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in addresses],
        }
        self.server.request(
            "POST", f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices", body
        )

    def seen(self) -> dict[str, str]:
        """Versions of all that stages write, without what is a heartbeat (leases, `updated_at`)."""
        found: dict[str, str] = {}
        for kind in ("Deployment", "Service", "HTTPRoute", "Pod"):
            for item in self.ctx.cluster.list(kind, self.namespace):
                found[f"{kind}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
        for info in self.ctx.objects.list(""):
            if info.key.startswith("releases/"):
                document = json.loads(self.ctx.objects.get(info.key).body)
                document.pop("updated_at")
                found[info.key] = json.dumps(document, sort_keys=True)
            elif not info.key.startswith("leases/"):
                found[info.key] = info.etag
        return found


@pytest.fixture
def world(
    bare_server: Server,
    kube: Cluster,
    s3_server: S3Server,
    bucket: str,
    hub: LocalHub,
    revisions: tuple[str, str, str],
    tmp_path: Path,
) -> World:
    settings = Settings(
        releases_dir=tmp_path,
        bucket=bucket,
        jobs_namespace=create_namespace(bare_server, "jobs"),
        serving_namespace=create_namespace(bare_server, "serving"),
        hub_endpoint=hub.endpoint,
        service_addressing="endpoints",
    )
    ctx = Context(settings, Objects(s3_server.client(), bucket), kube, lambda: Hub(hub.endpoint))
    made = World(bare_server, ctx, tmp_path, revisions)
    made.catalogue()
    return made
