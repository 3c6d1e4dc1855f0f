"""`python -m local.bedrock --data FILE --listen HOST:PORT` serves Bedrock's list of models."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web

from local.bedrock.server import Bedrock


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.bedrock", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="JSON file with models and rules")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: any free one")
    given = parser.parse_args()
    asyncio.run(_serve(given.data, given.listen))


async def _serve(data: Path, listen: str) -> None:
    host, _, port = listen.rpartition(":")
    runner = web.AppRunner(Bedrock(data).app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, int(port)).start()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"listening on http://{host}:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    main()
