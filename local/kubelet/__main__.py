"""`python -m local.kubelet`: host nodes and run their pods as processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from argparse import Namespace
from pathlib import Path

import aiohttp
from aiohttp import web

from local.client import program
from local.client.api import Api
from local.client.events import Recorder
from local.client.informer import Cache
from local.client.kinds import NODECLAIMS, NODES, PODS
from local.client.kubeconfig import load_kubeconfig
from local.kubelet import orphans
from local.kubelet.certificate import serving_context
from local.kubelet.context import Host, Settings
from local.kubelet.images import ImageTable
from local.kubelet.kubelet import Kubelet
from local.kubelet.memory import MemoryWatch
from local.kubelet.server import make_app

log = logging.getLogger(__name__)


def arguments() -> Namespace:
    parser = program.parser("local.kubelet", __doc__ or "")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder for pods, logs and what stands for node disks"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:0", help="address and port of the kubelet API (0: any free port)"
    )
    parser.add_argument(
        "--kubelet-token",
        default=os.environ.get("KUBELET_TOKEN", ""),
        help="bearer token that the API server presents (default: KUBELET_TOKEN)",
    )
    parser.add_argument("--pod-cidr", default="127.64.0.0/12", help="range of the pods' addresses")
    parser.add_argument(
        "--pod-identity-env", type=Path, help="variables for pods whose service account has a role"
    )
    parser.add_argument(
        "--images", type=Path, default=Path(__file__).with_name("images.yaml"), help="image table"
    )
    parser.add_argument(
        "--checkout", type=Path, default=Path(__file__).parents[2], help="where the table's folders begin"
    )
    parser.add_argument(
        "--backoff-base", type=float, default=10.0, help="first crash or pull back-off in seconds"
    )
    parser.add_argument("--register-seconds", type=float, default=0.7, help="from launched to registered")
    parser.add_argument(
        "--plugin-seconds", type=float, default=0.5, help="from ready to Neuron devices allocatable"
    )
    return parser.parse_args()


async def main(given: Namespace) -> None:
    root = given.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    killed = await asyncio.to_thread(orphans.kill_containers, root)
    if killed:
        log.warning("killed %d processes that an earlier kubelet left", len(killed))
    address, _, port = given.listen.rpartition(":")
    server = web.AppRunner(web.Application(), access_log=None)
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(load_kubeconfig(given.kubeconfig), "local-kubelet"))
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        )
        cache, recorder = Cache(api), Recorder(api, "kubelet")
        images = ImageTable.load(given.images, given.checkout.resolve())
        listener = _bind(address, int(port))
        settings = Settings(
            root=root,
            address=address,
            port=listener.getsockname()[1],
            token=given.kubelet_token,
            pod_cidr=given.pod_cidr,
            backoff_base=given.backoff_base,
            register_seconds=given.register_seconds,
            plugin_seconds=given.plugin_seconds,
            identity_file=given.pod_identity_env,
        )
        host = Host(settings, cache, recorder, images, MemoryWatch(), http)
        kubelet = Kubelet(host)
        server = web.AppRunner(make_app(kubelet), access_log=None, shutdown_timeout=1)
        try:
            await server.setup()
            await web.SockSite(
                server, listener, ssl_context=serving_context(root, address, "local-system")
            ).start()
            log.info(
                "kubelet API on https://%s:%d, root %s, pid %d", address, settings.port, root, os.getpid()
            )
            writer = asyncio.create_task(recorder.run())
            stack.callback(writer.cancel)
            # Known Nodes and NodeClaims first, so that a pod found at start finds its node.
            await cache.sync(NODES, NODECLAIMS)
            kubelet.start()
            await cache.sync(PODS)
            await host.memory.run()
        finally:
            kubelet.kill_all()
            await cache.close()
            await server.cleanup()
            await asyncio.to_thread(orphans.kill_containers, root)


def _bind(address: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    return listener


if __name__ == "__main__":
    options = arguments()
    program.run(lambda: main(options), options.log_level)
