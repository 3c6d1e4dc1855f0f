"""`python -m local.hub --root DIR --listen HOST:PORT` serves, `python -m local.hub publish` adds to it."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from local.hub.repository import publish


def main(argv: list[str] | None = None) -> None:
    """Serve, or publish and print the commit's SHA."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["publish"]:
        print(_publish(arguments[1:]))
    else:
        asyncio.run(_serve(arguments))


def _publish(arguments: list[str]) -> str:
    parser = argparse.ArgumentParser(prog="python -m local.hub publish")
    parser.add_argument("--root", type=Path, required=True, help="folder of the Hub")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME")
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--tag")
    parser.add_argument("--title", help="of the commit")
    parser.add_argument("--gated", action="store_true", default=None)
    parser.add_argument("--private", action="store_true", default=None)
    given = vars(parser.parse_args(arguments))
    try:
        return publish(given.pop("root"), given.pop("repo"), given.pop("source"), **given)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


async def _serve(arguments: list[str]) -> None:
    from aiohttp import web

    from local.hub.server import Hub

    parser = argparse.ArgumentParser(prog="python -m local.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the Hub; made when missing")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument("--token", help="the only valid token; default: any token is valid")
    parser.add_argument("--access-log", type=Path, help="JSON, one line a request; default ROOT/access.jsonl")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    given.root.mkdir(parents=True, exist_ok=True)
    with (given.access_log or given.root / "access.jsonl").open("a") as log:
        runner = web.AppRunner(Hub(given.root, given.token, log).app(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, host, int(port))
        await site.start()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        print(f"listening on http://{host}:{runner.addresses[0][1]}", flush=True)
        await stop.wait()
        await runner.cleanup()


if __name__ == "__main__":
    main()
