"""`python -m local.controllers`: the control loops of the local cluster in one process."""

from __future__ import annotations

import logging
from argparse import Namespace

from local.client import program
from local.client.api import Api
from local.client.events import Recorder
from local.client.informer import Cache
from local.client.kubeconfig import load_kubeconfig
from local.controllers.deployment import Deployments
from local.controllers.endpoints import EndpointSlices
from local.controllers.garbage import Garbage
from local.controllers.job import Jobs
from local.controllers.namespaces import Namespaces
from local.controllers.nodes import Nodes
from local.controllers.replicaset import ReplicaSets
from local.controllers.scheduler import NAME, Scheduler

log = logging.getLogger(__name__)


async def main(given: Namespace) -> None:
    async with Api(load_kubeconfig(given.kubeconfig), "local-controllers") as api:
        cache = Cache(api)
        recorders = {
            name: Recorder(api, name)
            for name in (
                NAME,
                "replicaset-controller",
                "deployment-controller",
                "job-controller",
                "node-controller",
            )
        }
        try:
            await program.together(
                *(recorder.run() for recorder in recorders.values()),
                Scheduler(cache, recorders[NAME]).run(),
                ReplicaSets(cache, recorders["replicaset-controller"]).run(),
                Deployments(cache, recorders["deployment-controller"]).run(),
                Jobs(cache, recorders["job-controller"], given.job_backoff_base).run(),
                EndpointSlices(cache).run(),
                Nodes(cache, recorders["node-controller"]).run(),
                Namespaces(cache).run(),
                Garbage(cache).run(),
            )
        finally:
            await cache.close()


if __name__ == "__main__":
    parser = program.parser("local.controllers", __doc__ or "")
    parser.add_argument(
        "--job-backoff-base", type=float, default=10.0, help="first back-off of a failing Job in seconds"
    )
    options = parser.parse_args()
    program.run(lambda: main(options), options.log_level)
