"""How a release is compiled and served: the engine's words filled in with the plan's numbers. No I/O."""

from __future__ import annotations

from trainyard.kube.pods import WORK_DIR
from trainyard.kube.servers import MODELS_DIR, PORT, ServerSet
from trainyard.neuron.engines import engine
from trainyard.neuron.engines.base import Build
from trainyard.neuron.instances import instance
from trainyard.release import Release
from trainyard.settings import Settings


def build_of(release: Release) -> Build:
    spec, plan = release.spec, release.plan
    return Build(
        tensor_parallel=spec.hardware.tensor_parallel,
        lnc=plan.lnc,
        batch_size=spec.compile.batch_size,
        sequence_length=spec.compile.sequence_length,
        instance_family=instance(spec.hardware.instance_type).family,
        dtype=str(plan.fingerprint_inputs.get("dtype", "bfloat16")),
        model_dir=f"{WORK_DIR}/model",
        output_dir=f"{WORK_DIR}/out",
    )


def staging(release: Release) -> str:
    """Where its compile leaves what it made. One place a release: a second try overwrites the first."""
    return f"staging/{release.plan.fingerprint}/{release.id}/"


def servers_of(release: Release, settings: Settings) -> ServerSet:
    spec, plan = release.spec, release.plan
    # The directory carries the release's id: /v1/models names it as `root`, which tells who answered.
    place = f"{MODELS_DIR}/{release.id}"
    sources = [{"manifest": plan.bundle_manifest, "into": place}]
    if not plan.has_weights:
        sources.append({"manifest": plan.model_manifest, "into": f"{MODELS_DIR}/weights"})
    return ServerSet(
        model=release.model,
        release=release.id,
        namespace=settings.serving_namespace,
        service_account="trainyard-serve",
        served_name=spec.served_name,
        image=plan.image,
        jobs_image=settings.jobs_image,
        command=engine(spec.engine).serve_command(place, spec.served_name, PORT, build_of(release)),
        materialise_job={"bucket": settings.bucket, "sources": sources, "install": "/trainyard"},
        replicas=spec.serving.replicas,
        chips=plan.chips,
        instance_type=spec.hardware.instance_type,
        nodepool=spec.hardware.nodepool,
        cpu=spec.serving.cpu,
        memory=spec.serving.memory,
        grace_seconds=spec.serving.grace_seconds,
        ready_deadline_seconds=spec.serving.ready_deadline_minutes * 60,
        annotations=spec.serving.annotations,
        lease_token=release.lease_token,
    )
