"""What the three programs share: arguments, logging, a clean stop on SIGTERM and SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from local.client.kubeconfig import KubeconfigError

log = logging.getLogger(__name__)


def parser(program: str, text: str) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog=f"python -m {program}", description=text)
    result.add_argument(
        "--kubeconfig", type=Path, required=True, help="file that says where the API server is"
    )
    result.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return result


def run(main: Callable[[], Awaitable[None]], level: str) -> None:
    """Run `main` until it returns, fails, or a signal cancels it."""
    logging.basicConfig(
        level=level, format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )

    async def guarded() -> None:
        task = asyncio.ensure_future(main())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        asyncio.run(guarded())
    except KubeconfigError as error:
        raise SystemExit(str(error)) from None


async def together(*jobs: Awaitable[object]) -> None:
    """Run jobs that should never end; when one fails or is cancelled, the others are cancelled too."""
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(_forever(job))


async def _forever(job: Awaitable[object]) -> None:
    await job
