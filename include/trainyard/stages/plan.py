"""plan: validate the spec, pin the revision, check every rule, write the record, take the lease.

Nothing is spent before this stage is through: no pod, no node.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from trainyard import catalogue
from trainyard.errors import LeaseHeld, NotFound, Problem, Refused, TrainyardError
from trainyard.neuron.asking import ask_of
from trainyard.neuron.engines import engine as find_engine
from trainyard.neuron.instances import instance as find_instance
from trainyard.neuron.models import graph_config, read_facts
from trainyard.neuron.rules import preflight
from trainyard.origins import Origin
from trainyard.release import Plan, Release, StageRecord, now, parse_release
from trainyard.rollout.shifts import abort_plan
from trainyard.spec import Request, Spec
from trainyard.stages.context import Context
from trainyard.stages.workloads import problems_of_load
from trainyard.store import keys
from trainyard.store.documents import encode
from trainyard.store.objects import AlreadyExists

# Fields of a spec that change what is served. Objectives and steps do not: they say how to get there.
_IDENTITY = ("model", "engine", "image", "hardware", "compile", "serving")


@dataclass(frozen=True)
class Planned:
    """release is None where there is nothing to do; note says why."""

    release: Release | None
    note: str
    release_id: str
    model: str


def run(ctx: Context, request: Request, run_id: str) -> Planned:
    """Raises Refused with every broken rule, LeaseHeld while another release of the model runs."""
    spec = catalogue.resolve(ctx.settings.releases_dir, request)
    plan = make_plan(ctx, spec)
    release_id = release_id_of(spec, plan, request.request)
    existing = _existing(ctx, spec.name, release_id)
    if existing is not None and (done := _nothing_to_do(ctx, existing, run_id)):
        return Planned(None, done, release_id, spec.name)

    lease = ctx.leases.current(spec.name)
    if lease is not None and lease.holder == release_id and lease.run != run_id:
        raise LeaseHeld(f"Release {release_id} is being made already, by DAG run {lease.run}.")
    before = ctx.leases.last(spec.name)
    lease = ctx.leases.acquire(spec.name, release_id, ctx.settings.lease_minutes * 60, run_id)
    try:
        if before is not None and before.holder != release_id:
            _supersede(ctx, spec.name, before.holder, release_id)
        stable = ctx.channels.read(spec.name).stable
        release = _record(ctx, spec, plan, request, release_id, run_id, lease.token, stable, existing)
        # Who knows a run (a link in Airflow) finds its release by this.
        ctx.objects.put(run_key(run_id), json.dumps({"model": spec.name, "release": release_id}).encode())
    except BaseException:
        # A lease without a record would keep the model from everybody until it runs out.
        with contextlib.suppress(TrainyardError):
            ctx.leases.release(lease)
        raise
    return Planned(release, _summary(release), release_id, spec.name)


def run_key(run_id: str) -> str:
    return f"runs/{run_id}.json"


def make_plan(ctx: Context, spec: Spec) -> Plan:
    """Resolves a spec against its model's source and the rules. Raises Refused, NotFound, HubUnavailable."""
    engine, kind = find_engine(spec.engine), find_instance(spec.hardware.instance_type)
    found = origin_of(ctx, spec).read()
    revision, config = found.revision, found.config
    facts = read_facts(config, found.weights, gated=found.gated)
    result = preflight(facts, engine, kind, ask_of(spec))
    if problems := [*result.problems, *problems_of_load(ctx.objects, spec)]:
        raise Refused(problems)
    inputs: dict[str, Any] = {
        "graph": graph_config(config),
        "engine": spec.engine,
        "versions": {
            "engine": engine.versions.engine,
            "compiler": engine.versions.compiler,
            "sdk": engine.versions.sdk,
            "vllm": engine.versions.vllm,
        },
        "target": kind.target,
        "tensor_parallel": spec.hardware.tensor_parallel,
        "lnc": result.lnc,
        "batch_size": spec.compile.batch_size,
        "sequence_length": spec.compile.sequence_length,
        "dtype": facts.dtype,
    }
    if spec.image:
        # Nobody knows which versions another image holds: what it compiled is its own.
        inputs["image"] = spec.image
    if spec.compile.quantization:
        inputs["quantization"] = spec.compile.quantization
    if result.holds == "weights":
        inputs["weights"] = dict(sorted(found.content.items()))
    _check_storable(inputs)
    fingerprint = hashlib.sha256(_canonical(inputs)).hexdigest()[:40]
    return Plan(
        revision=revision,
        fingerprint=fingerprint,
        fingerprint_inputs=inputs,
        engine=spec.engine,
        image=spec.image or engine.image(ctx.settings.region),
        chips=result.chips,
        lnc=result.lnc,
        weight_bytes=facts.weight_bytes,
        memory=result.memory.as_dict(),
        model_type=facts.model_type,
        has_weights=result.holds == "weights",
        model_manifest=keys.model_manifest(spec.model.repo, revision),
        bundle_manifest=keys.bundle_manifest(fingerprint),
    )


def origin_of(ctx: Context, spec: Spec) -> Origin:
    return Origin(spec.model, lambda: ctx.hub, lambda: ctx.objects)


def release_id_of(spec: Spec, plan: Plan, request: str) -> str:
    """`<model>-<revision>-<digest>`: the same request for the same content is the same release."""
    content: dict[str, Any] = {
        "spec": {key: spec.model_dump(mode="json")[key] for key in _IDENTITY},
        "revision": plan.revision,
        "fingerprint": plan.fingerprint,
        "request": request,
    }
    # The tracked name (main, v2, ...) is no content: the commit is.
    content["spec"]["model"].pop("revision")
    if content["spec"]["model"]["source"] is None:
        del content["spec"]["model"]["source"]  # as before there were others: ids stay
    content["spec"]["compile"]["bundle"].pop("reason")
    digest = hashlib.sha256(_canonical(content)).hexdigest()
    return f"{spec.name}-{plan.revision[:7]}-{digest[:6]}"


def _existing(ctx: Context, model: str, release_id: str) -> Release | None:
    try:
        return ctx.load(model, release_id)
    except NotFound:
        return None


def _supersede(ctx: Context, model: str, lost: str, winner: str) -> None:
    """Closes the record of a release whose lease ran out: it may not write there itself any more."""

    def change(document: dict[str, Any]) -> dict[str, Any]:
        if document["state"] == "running":
            document["state"] = "failed"
            document["outcome"] = f"Superseded {now()}: its lease ran out and {winner} took over."
        return document

    try:
        ctx.ledger.update(model, lost, change)
    except NotFound:
        return


def _nothing_to_do(ctx: Context, existing: Release, run_id: str) -> str | None:
    """Why a release that has a record already needs no new run; None where it does."""
    if existing.state == "promoted":
        stable = ctx.channels.read(existing.model).stable
        if stable == existing.id:
            if ctx.cluster.find("Deployment", stable, ctx.settings.serving_namespace) is None:
                return None  # the cluster lost it: bring it back
            return f"Nothing to do: {existing.id} is stable already. {existing.outcome}"
        return (
            f"Nothing to do: {existing.id} was promoted before, and {stable} took over from it. "
            "To bring it back, ask again with another `request`."
        )
    if existing.state in ("rolled_back", "failed") and existing.run != run_id:
        return (
            f"Nothing to do: {existing.id} was tried and {existing.state.replace('_', ' ')}: "
            f"{existing.outcome} "
            "To try again on purpose, ask with another `request`."
        )
    return None


def _record(
    ctx: Context,
    spec: Spec,
    plan: Plan,
    request: Request,
    release_id: str,
    run_id: str,
    token: int,
    stable: str | None,
    existing: Release | None,
) -> Release:
    live = ctx.cluster.find("Deployment", stable, ctx.settings.serving_namespace) if stable else None
    ready = int(((live or {}).get("status") or {}).get("readyReplicas") or 0)
    # A stable release that this cluster does not have (it is new, or lost everything) is no baseline.
    serving = stable if live is not None else None
    lost = f" {stable}, which the channel names, is not in this cluster." if stable and not serving else ""
    plan = plan.model_copy(update={"abort_plan": abort_plan(serving, ready, spec.rollout.steps) + lost})
    started = existing.stages["plan"].started_at if existing and "plan" in existing.stages else now()
    release = Release(
        schema=1,
        id=release_id,
        model=spec.name,
        run=run_id,
        request=request.request,
        spec=spec,
        plan=plan,
        lease_token=token,
        created_at=existing.created_at if existing else now(),
        updated_at=now(),
        previous=_previous(ctx, serving, release_id, existing),
        channel=stable,
        links={"DAG run": f"{ctx.settings.airflow_url}/dags/model_release/runs/{run_id}"},
    )
    summary = StageRecord(state="done", started_at=started, finished_at=now(), note=_summary(release))
    release = release.model_copy(update={"stages": {"plan": summary}})
    try:
        return parse_release(ctx.ledger.create(spec.name, release_id, release.document()).document)
    except AlreadyExists:
        # The same run again (a retry, or a person cleared the task): it begins anew under its lease.
        written = ctx.ledger.update(spec.name, release_id, lambda _: release.document(), token=token)
        return parse_release(written.document)


def _previous(ctx: Context, serving: str | None, release_id: str, existing: Release | None) -> str | None:
    """The release to measure against, and to drain at the end.

    A run that died after the channel moved is stable already: what it took over from is in its old record.
    """
    if serving != release_id:
        return serving
    before = existing.previous if existing else None
    if before and ctx.cluster.find("Deployment", before, ctx.settings.serving_namespace) is not None:
        return before
    return None


def _summary(release: Release) -> str:
    plan, spec = release.plan, release.spec
    memory = plan.memory
    origin = f" from {spec.model.source}" if spec.model.source else ""
    return (
        f"{release.id}: {spec.model.repo}@{plan.revision[:12]}{origin} on {spec.engine}, "
        f"{plan.chips} chip(s) of {spec.hardware.instance_type}, TP {spec.hardware.tensor_parallel}; "
        f"a core holds {_size(memory['weights'])} of weights + {_size(memory['kv_cache'])} of KV cache of "
        f"{memory['hbm'] / 1e9:.0f} GB; fingerprint {plan.fingerprint[:12]}, "
        f"{'with the weights' if plan.has_weights else 'of the graph only'}. {plan.abort_plan}"
    )


def _check_storable(inputs: dict[str, Any]) -> None:
    """Python reads NaN, infinities and lone surrogates from a config.json; the ledger cannot write them."""
    try:
        encode(inputs)
    except (ValueError, RecursionError) as error:
        raise Refused(
            Problem(
                "model.config",
                str(error),
                "config.json holds what JSON cannot say",
                "Correct the model's config.json.",
            )
        ) from None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
