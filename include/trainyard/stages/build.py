"""How a release is compiled and served: the engine's words filled in with the plan's numbers. No I/O."""

from __future__ import annotations

from trainyard.kube.pods import CACHE_DIR, WORK_DIR
from trainyard.kube.servers import MODELS_DIR, NODE_CACHE_DIR, PORT, ServerSet
from trainyard.neuron.engines import engine
from trainyard.neuron.engines.base import Build, Holds, ModelFiles, Serving
from trainyard.neuron.instances import instance
from trainyard.release import Release
from trainyard.settings import Settings

# What a server of pre-sharded weights leaves in S3: the plain ones.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def build_of(release: Release) -> Build:
    spec, plan = release.spec, release.plan
    kind = instance(spec.hardware.instance_type)
    return Build(
        tensor_parallel=spec.hardware.tensor_parallel,
        lnc=plan.lnc,
        batch_size=spec.compile.batch_size,
        sequence_length=spec.compile.sequence_length,
        instance_family=kind.family,
        target=kind.target,
        model_type=plan.model_type,
        dtype=str(plan.fingerprint_inputs.get("dtype", "bfloat16")),
        holds=held_by(release),
        quantization=spec.compile.quantization,
        model_dir=f"{WORK_DIR}/model",
        output_dir=f"{WORK_DIR}/out",
        cache_dir=CACHE_DIR,
    )


def held_by(release: Release) -> Holds:
    return "weights" if release.plan.has_weights else "graph"


def staging(release: Release) -> str:
    """Where its compile leaves what it made. One place a release: a second try overwrites the first."""
    return f"staging/{release.plan.fingerprint}/{release.id}/"


def model_dir(release: Release) -> str:
    """The directory that a server is given. Its last part is the release: /v1/models names it, which tells
    who answered."""
    return f"{MODELS_DIR}/{release.id}"


def bundle_dir(release: Release) -> str:
    return model_dir(release) + engine(release.spec.engine).layout(held_by(release)).bundle


def servers_of(release: Release, settings: Settings) -> ServerSet:
    spec, plan = release.spec, release.plan
    chosen = engine(spec.engine)
    place, model_files = model_dir(release), chosen.layout(held_by(release)).model_files
    serving = Serving(place, spec.served_name, PORT, build_of(release), spec.serving.grace_seconds)
    return ServerSet(
        model=release.model,
        release=release.id,
        namespace=settings.serving_namespace,
        service_account="trainyard-serve",
        served_name=spec.served_name,
        image=plan.image,
        jobs_image=settings.jobs_image,
        command=chosen.serve_command(serving),
        materialise_job={
            "bucket": settings.bucket,
            "sources": [
                {"manifest": plan.bundle_manifest, "into": bundle_dir(release)},
                *_model_sources(plan.model_manifest, place, model_files),
            ],
            "install": "/trainyard",
            **_node_cache(settings),
        },
        node_cache_claim=settings.node_cache_claim,
        replicas=spec.serving.replicas,
        chips=plan.chips,
        instance_type=spec.hardware.instance_type,
        nodepool=spec.hardware.nodepool,
        cpu=spec.serving.cpu,
        memory=spec.serving.memory,
        grace_seconds=spec.serving.grace_seconds,
        running_metrics=chosen.running_metrics,
        ready_deadline_seconds=spec.serving.ready_deadline_minutes * 60,
        annotations=spec.serving.annotations,
        lease_token=release.lease_token,
    )


def _node_cache(settings: Settings) -> dict[str, object]:
    if not settings.node_cache_claim:
        return {}
    return {"node_cache": {"folder": NODE_CACHE_DIR, "max_bytes": settings.node_cache_gib * 2**30}}


def _model_sources(manifest: str, place: str, wanted: ModelFiles) -> list[dict[str, object]]:
    if wanted == "none":
        return []
    source: dict[str, object] = {"manifest": manifest, "into": place}
    return [source if wanted == "all" else {**source, "without": list(_WEIGHTS)}]
