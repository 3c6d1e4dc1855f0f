"""What stands for every stage in the benchmark `control-plane`: it returns at once.

All that the operators do around a stage stays real: connections, S3 client, lease, record, notes.
"""

from __future__ import annotations

import hashlib
from typing import Any

from trainyard.release import Plan, Release, now
from trainyard.spec import Hardware, ModelSource, Request, Spec
from trainyard.stages.context import Context, Done, Watch
from trainyard.stages.plan import Planned

REVISION = "0" * 40


def run(ctx: Context, asked: Any, *rest: Any, **kwargs: Any) -> Done | Planned:
    """Of `plan` (asked: the request, rest: the run's id) and of every stage that works at once."""
    return _planned(ctx, asked, *rest) if isinstance(asked, Request) else Done("stubbed")


def pod(ctx: Context, release: Release, **kwargs: Any) -> dict[str, Any]:
    """A pod for the provider's operator to be made of. `dags/stubbed.py` sees to it that it is not run."""
    container = {"name": "base", "image": "stubbed", "command": ["true"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stubbed", "namespace": ctx.settings.jobs_namespace},
        "spec": {"activeDeadlineSeconds": 60, "restartPolicy": "Never", "containers": [container]},
    }


def watch(ctx: Context, release: Release, **kwargs: Any) -> Watch:
    """A wait that is over at the first look."""
    return Watch("elapsed", {"until": now(), "words": "stubbed"}, 1.0, "TransientError")


def finish(ctx: Context, release: Release, *seen: Any, **kwargs: Any) -> Done:
    """After a pod, and after a wait."""
    return Done("stubbed")


def _planned(ctx: Context, request: Request, run_id: str) -> Planned:
    """A record of about the size of a real one, and a real lease, on a model of the run's own."""
    model = f"bench-{hashlib.sha256(run_id.encode()).hexdigest()[:12]}"
    name = f"{model}-0000000"
    lease = ctx.leases.acquire(model, name, ctx.settings.lease_minutes * 60, run_id)
    release = Release(
        schema=1,
        id=name,
        model=model,
        run=run_id,
        spec=Spec(
            name=model,
            model=ModelSource(repo="benchmarks/stubbed", revision="main", token_secret=None),
            engine="optimum",
            hardware=Hardware(instance_type="trn2.48xlarge", nodepool="neuron-trn2", tensor_parallel=2),
        ),
        plan=Plan(
            revision=REVISION,
            fingerprint="0" * 40,
            fingerprint_inputs={"graph": {"hidden_size": 64, "num_attention_heads": 4}},
            engine="optimum",
            image="stubbed",
            chips=1,
            lnc=2,
            weight_bytes=1,
            memory={"weights": 1, "kv_cache": 1, "hbm": 2},
            has_weights=False,
            model_manifest="stubbed",
            bundle_manifest="stubbed",
            abort_plan="",
        ),
        lease_token=lease.token,
        created_at=now(),
        updated_at=now(),
        previous=None,
    )
    ctx.ledger.create(model, name, release.document())
    return Planned(release, "stubbed", name, model)
