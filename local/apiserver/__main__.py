"""Runs the API server alone: no controllers; plain HTTP unless a certificate is given."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import ssl
import sys
from pathlib import Path

from aiohttp import web

from local.apiserver.audit import BACKUPS, MAX_BYTES, AuditLog
from local.apiserver.bootstrap import bootstrap, install
from local.apiserver.calls import Cluster
from local.apiserver.crds import read_definitions
from local.apiserver.errors import ApiError
from local.apiserver.resources import BUILT_IN, Registry
from local.apiserver.server import Server
from local.apiserver.store import HISTORY, Store
from local.apiserver.users import read_token_file


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.apiserver", description=__doc__)
    parser.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="address to serve on; port 0 picks one"
    )
    # Every user of a machine can read command lines, but not environments: the stack gives tokens by those.
    parser.add_argument(
        "--token",
        default=os.environ.get("APISERVER_TOKEN"),
        help="bearer token that may do everything (default: APISERVER_TOKEN)",
    )
    parser.add_argument(
        "--token-auth-file",
        type=Path,
        metavar="FILE",
        help='more tokens, one a line: token,user,uid,"group1,group2"; roles say what their users may do',
    )
    parser.add_argument(
        "--audit-log", type=Path, metavar="FILE", help="append audit.k8s.io/v1 events, one a line"
    )
    parser.add_argument(
        "--audit-log-maxsize",
        type=int,
        default=MAX_BYTES >> 20,
        metavar="MIB",
        help="at this size the log becomes FILE.1 (default: %(default)s)",
    )
    parser.add_argument(
        "--audit-log-maxbackup",
        type=int,
        default=BACKUPS,
        metavar="N",
        help="older logs to keep (default: %(default)s)",
    )
    parser.add_argument("--crd", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM certificate chain")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    parser.add_argument(
        "--kubelet-token",
        default=os.environ.get("KUBELET_TOKEN", ""),
        help="bearer token for the nodes' kubelets (default: KUBELET_TOKEN)",
    )
    parser.add_argument("--history", type=int, default=HISTORY, help="changes kept per resource for watches")
    parser.add_argument("--verbose", action="store_true", help="log every request")
    arguments = parser.parse_args()
    if not arguments.token:
        parser.error("--token (or APISERVER_TOKEN) is required: without it nobody could do anything")
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        parser.error("--tls-cert and --tls-key go together: give both or neither")
    return arguments


def make_cluster(definitions: list[Path], kubelet_token: str = "", history: int = HISTORY) -> Cluster:
    cluster = Cluster(Registry(BUILT_IN), Store(history), kubelet_token)
    bootstrap(cluster)
    for path in definitions:
        for definition in read_definitions(path):
            install(cluster, definition)
    return cluster


async def serve(arguments: argparse.Namespace) -> None:
    cluster = make_cluster(arguments.crd, arguments.kubelet_token, arguments.history)
    tokens = read_token_file(arguments.token_auth_file) if arguments.token_auth_file else {}
    if arguments.token in tokens:
        raise ValueError(f"{arguments.token_auth_file} holds the token of --token: give each user its own")
    audit = None
    if arguments.audit_log:
        size = max(arguments.audit_log_maxsize, 1) << 20
        audit = AuditLog(arguments.audit_log, size, max(arguments.audit_log_maxbackup, 0))
    host, _, port = arguments.listen.rpartition(":")
    tls = None
    if arguments.tls_cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    access = logging.getLogger("aiohttp.access") if arguments.verbose else None
    runner = web.AppRunner(
        Server(cluster, arguments.token, tokens, audit).application(),
        access_log=access,
        shutdown_timeout=1.0,
        handler_cancellation=True,  # a watcher that goes away takes its watch along
    )
    await runner.setup()
    site = web.TCPSite(runner, host or "127.0.0.1", int(port), ssl_context=tls)
    await site.start()
    bound = runner.addresses[0]
    print(f"serving on {'https' if tls else 'http'}://{bound[0]}:{bound[1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()
    if audit:
        audit.close()


def main() -> int:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        asyncio.run(serve(arguments))
    except (OSError, ValueError, ApiError) as error:
        print(f"apiserver: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
