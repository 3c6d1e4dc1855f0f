"""`python -m local.karpenter`: buy nodes for pending pods, give empty ones back."""

from __future__ import annotations

from argparse import Namespace

from local.client import program
from local.client.api import Api
from local.client.events import Recorder
from local.client.informer import Cache
from local.client.kubeconfig import load_kubeconfig
from local.karpenter.disruption import Disruption
from local.karpenter.lifecycle import Lifecycle
from local.karpenter.pools import Pools
from local.karpenter.provisioner import Provisioner, Timings, Unavailable
from local.karpenter.termination import Termination


def arguments() -> Namespace:
    parser = program.parser("local.karpenter", __doc__ or "")
    standard = Timings()
    parser.add_argument(
        "--launch-seconds", type=float, default=standard.launch, help="from NodeClaim to launched"
    )
    parser.add_argument(
        "--batch-seconds", type=float, default=standard.batch, help="how long pending pods are gathered"
    )
    parser.add_argument(
        "--offering-backoff",
        type=float,
        default=standard.offering_backoff,
        help="until an offering without capacity is tried again",
    )
    parser.add_argument(
        "--registration-timeout",
        type=float,
        default=standard.registration_timeout,
        help="until a launched claim is given up",
    )
    return parser.parse_args()


async def main(given: Namespace) -> None:
    timings = Timings(
        launch=given.launch_seconds,
        batch=given.batch_seconds,
        offering_backoff=given.offering_backoff,
        registration_timeout=given.registration_timeout,
    )
    async with Api(load_kubeconfig(given.kubeconfig), "local-karpenter") as api:
        cache, recorder = Cache(api), Recorder(api, "karpenter")
        unavailable = Unavailable(timings.offering_backoff)
        provisioner = Provisioner(cache, recorder, timings, unavailable)
        pools = Pools(cache)
        try:
            await program.together(
                recorder.run(),
                pools.run_classes(),
                pools.run_pools(),
                provisioner.run(),
                Lifecycle(cache, recorder, timings, unavailable, Termination(cache, recorder)).run(),
                Disruption(cache, recorder, provisioner).run(),
            )
        finally:
            await cache.close()


if __name__ == "__main__":
    options = arguments()
    program.run(lambda: main(options), options.log_level)
