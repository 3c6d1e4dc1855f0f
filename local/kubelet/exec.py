"""`exec` over a websocket: channels of v4.channel.k8s.io and v5.channel.k8s.io, plain or with a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import subprocess
import termios

from aiohttp import WSMsgType, web

from local.client.kinds import Obj
from local.kubelet.container import Container
from local.kubelet.kubelet import Kubelet
from local.kubelet.process import Process, Pump

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")


async def serve_exec(kubelet: Kubelet, request: web.Request) -> web.StreamResponse:
    """Run `command` in the container, wired to the websocket's channels."""
    place, query = request.match_info, request.query
    worker = kubelet.worker(place["namespace"], place["pod"])
    if worker is None:
        return web.Response(status=404, text=f'pod "{place["pod"]}" does not exist')
    container = worker.container(place["container"])
    if container is None or container.process is None:
        return web.Response(status=404, text=f'container not found ("{place["container"]}")')
    if request.headers.get("Upgrade", "").lower() != "websocket":
        text = "exec is served over websockets (v4.channel.k8s.io, v5.channel.k8s.io) only; SPDY is not"
        return web.Response(status=400, text=text)
    command = query.getall("command", [])
    if not command:
        return web.Response(status=400, text="you must specify at least 1 command for the container")

    def wants(*names: str) -> bool:
        return any(query.get(name) in ("1", "true") for name in names)

    socket = web.WebSocketResponse(protocols=PROTOCOLS, heartbeat=30)
    await socket.prepare(request)
    session = _Session(socket, container, list(command))
    tty = wants("tty")
    await session.run(tty=tty, stdin=wants("input", "stdin"), stderr=wants("error", "stderr") and not tty)
    return socket


def exit_status(code: int) -> Obj:
    """The Status that ends the error channel, as the kubelet writes it."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


class _Session:
    def __init__(self, socket: web.WebSocketResponse, container: Container, command: list[str]) -> None:
        self._socket = socket
        self._container = container
        self._command = command
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._stdin: int | None = None
        self._shell = [os.path.basename(each) for each in command] in (["sh"], ["bash"])
        self._terminal: int | None = None

    async def run(self, *, tty: bool, stdin: bool, stderr: bool) -> None:
        sender = asyncio.create_task(self._send())
        try:
            status = await self._execute(tty=tty, stdin=stdin, stderr=stderr)
        except OSError as error:
            message = f'exec: "{self._command[0]}": executable file not found in $PATH'
            if not isinstance(error, FileNotFoundError):
                message = str(error)
            text = f"error executing command in container: OCI runtime exec failed: {message}"
            status = {
                "metadata": {},
                "status": "Failure",
                "message": text,
                "reason": "InternalError",
                "code": 500,
            }
        self._put(ERROR, json.dumps(status).encode())
        self._out.put_nowait(None)
        await sender
        await self._socket.close(code=1000)

    def _put(self, channel: int, data: bytes) -> None:
        self._out.put_nowait(bytes([channel]) + data)

    async def _send(self) -> None:
        while (data := await self._out.get()) is not None:
            with contextlib.suppress(ConnectionError, RuntimeError):
                await self._socket.send_bytes(data)

    async def _execute(self, *, tty: bool, stdin: bool, stderr: bool) -> Obj:
        launch = self._container.launch
        if launch is None:
            raise OSError("container is not running")
        argv = [launch.paths.rewrite(part) for part in self._command]
        pumps: list[Pump] = []
        if tty:
            ours, theirs = os.openpty()
            environment = {"TERM": "xterm", **launch.environment}
            process = Process.start(
                argv, environment, launch.folder, stdin=theirs, stdout=theirs, stderr=theirs
            )
            os.close(theirs)
            self._terminal = self._stdin = os.dup(ours)
            pumps.append(Pump(ours, lambda data: self._put(STDOUT, data)))
        else:
            process = Process.start(
                argv,
                launch.environment,
                launch.folder,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if stderr else subprocess.DEVNULL,
            )
            if process.popen.stdin:
                self._stdin = os.dup(process.popen.stdin.fileno())
                process.popen.stdin.close()
            pumps.append(Pump.of(process.popen.stdout, lambda data: self._put(STDOUT, data)))
            if stderr:
                pumps.append(Pump.of(process.popen.stderr, lambda data: self._put(STDERR, data)))
        receiver = asyncio.create_task(self._receive(process))
        try:
            code = await process.wait()
        finally:
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)
            process.sweep()
            for pump in pumps:
                pump.drain()
            self._close_stdin()
        return exit_status(code)

    async def _receive(self, process: Process) -> None:
        """Take in what the client sends; a client that goes away ends the command."""
        async for message in self._socket:
            data = message.data.encode() if message.type == WSMsgType.TEXT else message.data
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or not data:
                continue
            channel, body = data[0], data[1:]
            if channel == STDIN and self._stdin is not None and body:
                if self._shell and self._container.launch:
                    # A script fed to a bare shell names mount paths as a command line would (Airflow's XCom).
                    text = body.decode(errors="surrogateescape")
                    body = self._container.launch.paths.rewrite(text).encode(errors="surrogateescape")
                await asyncio.to_thread(self._feed, body)
            elif channel == RESIZE and self._terminal is not None:
                size = json.loads(body)
                fcntl.ioctl(
                    self._terminal,
                    termios.TIOCSWINSZ,
                    struct.pack("HHHH", size["Height"], size["Width"], 0, 0),
                )
            elif channel == CLOSE and body[:1] == bytes([STDIN]):
                self._close_stdin()
        process.kill()

    def _feed(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            while data and self._stdin is not None:
                data = data[os.write(self._stdin, data) :]

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            handle, self._stdin = self._stdin, None
            self._terminal = None
            os.close(handle)
