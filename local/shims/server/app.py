"""The HTTP endpoints: completions, chat completions, models, health, metrics, version, tokenize."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from local.shims import logs
from local.shims.faults import Faults
from local.shims.server import text
from local.shims.server.chunks import DONE, Answer
from local.shims.server.engine import Delta, Engine, Sequence
from local.shims.server.metrics import Metrics
from local.shims.server.pictures import Eyes
from local.shims.server.protocol import ApiError, Generation, Json, parse_body, parse_generation

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ENDPOINTS = (
    "/health, GET",
    "/metrics, GET",
    "/v1/models, GET",
    "/v1/chat/completions, POST",
    "/v1/completions, POST",
)


@dataclass
class Share:
    """A share of requests, spread evenly: with 0.05 the 10th, 30th, 50th … of them."""

    rate: float
    sum: float = 0.5

    def hit(self) -> bool:
        self.sum += self.rate
        if self.sum < 1.0:
            return False
        self.sum -= 1.0
        return True


@dataclass
class Server:
    """What the endpoints need. `names` are the served model names, the first one is the label in metrics."""

    engine: Engine
    metrics: Metrics
    names: list[str]
    root: str
    digest: str
    version: str
    faults: Faults
    api_key: str | None = None
    runs: bool = True
    eyes: Eyes | None = None
    draining: bool = False
    active: int = 0
    last_request: float = 0.0
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.errors = Share(self.faults.error_rate)
        self.cuts = Share(self.faults.cut_rate)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.around], client_max_size=64 * 1024 * 1024)
        app.router.add_get("/health", self.health)
        app.router.add_get("/ping", self.health)
        app.router.add_get("/metrics", self.expose)
        app.router.add_get("/version", self.show_version)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/tokenize", self.tokenize)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/chat/completions", self.chat)
        return app

    @web.middleware
    async def around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count what is in flight, check the key, and word errors as vLLM does."""
        self.active += 1
        self.last_request = time.monotonic()
        response: web.StreamResponse | None = None
        left = False
        try:
            if self.api_key and request.path.startswith("/v1") and not self._allowed(request):
                response = web.json_response({"error": "Unauthorized"}, status=401)
            else:
                response = await handler(request)
        except web.HTTPException as error:
            response = web.json_response({"detail": error.reason}, status=error.status)
        except Exception as error:
            answer = self.error_answer(error)
            if answer is None:
                raise
            response = answer
        except asyncio.CancelledError:
            left = True  # the head had gone out before the client went
            raise
        finally:
            self.active -= 1
            status = response.status if response is not None else 200 if left else 500
            resource = request.match_info.route.resource
            self.metrics.answered(resource.canonical if resource else None, request.method, status)
        if self.draining and not response.prepared:
            response.force_close()
        return response

    def error_answer(self, error: Exception) -> web.Response | None:
        """The answer to a refused request; None for what is no refusal."""
        if isinstance(error, ApiError):
            return web.json_response(error.body(), status=error.status)
        return None

    def failure(self) -> ApiError:
        """What a request gets when the engine fails."""
        return ApiError(
            500, "InternalServerError", "EngineCore encountered an issue. See stack trace for details."
        )

    def announce(self, host: str, port: int) -> None:
        """The log lines of a server that listens."""
        logs.vllm(f"Starting vLLM API server 0 on http://{host}:{port}")
        for endpoint in ENDPOINTS:
            logs.vllm(f"Route: {endpoint.replace(', ', ', Methods: ')}", place="launcher.py:42")
        logs.uvicorn(f"Started server process [{os.getpid()}]")
        logs.uvicorn("Waiting for application startup.")
        logs.uvicorn("Application startup complete.")

    def say_stopping(self) -> None:
        logs.uvicorn("Shutting down")
        if self.active:
            logs.uvicorn("Waiting for connections to close. (CTRL+C to force quit)")

    def say_stopped(self) -> None:
        logs.uvicorn("Waiting for application shutdown.")
        logs.uvicorn("Application shutdown complete.")
        logs.uvicorn(f"Finished server process [{os.getpid()}]")

    def _allowed(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.api_key}"

    async def health(self, request: web.Request) -> web.Response:
        """An empty 200: it says that the server runs, not that the engine does."""
        return web.Response()

    async def expose(self, request: web.Request) -> web.Response:
        return web.Response(
            text=self.metrics.render(), headers={"Content-Type": "text/plain; version=1.0.0; charset=utf-8"}
        )

    async def show_version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def models(self, request: web.Request) -> web.Response:
        cards = [
            {
                "id": name,
                "object": "model",
                "created": self.created,
                "owned_by": "vllm",
                "root": self.root,
                "parent": None,
                "max_model_len": self.engine.max_model_len,
            }
            for name in self.names
        ]
        return web.json_response({"object": "list", "data": cards})

    async def tokenize(self, request: web.Request) -> web.Response:
        body = parse_body(await request.read())
        prompt = text.chat_prompt(body["messages"]) if "messages" in body else str(body.get("prompt", ""))
        count = len(text.tokens(prompt)) + 1
        ids = list(range(count))  # places, not the ids of a vocabulary
        answer: Json = {"count": count, "max_model_len": self.engine.max_model_len, "tokens": ids}
        return web.json_response(answer | {"token_strs": None})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        body = self.checked(parse_body(await request.read()))
        generation = parse_generation(
            body,
            chat=chat,
            models=self.names,
            max_model_len=self.engine.max_model_len,
            eyes=self.eyes,
        )
        sequence = self.sequence(generation)
        async with self.generating(sequence):
            if generation.stream:
                return await self._stream(request, generation, sequence)
            return await self._whole(generation, sequence)

    def checked(self, body: Json) -> Json:
        """A place for servers that read requests otherwise."""
        return body

    def sequence(self, generation: Generation) -> Sequence:
        """What the engine works on for this request."""
        source = text.completion(
            self.digest,
            generation.prompt,
            generation.seed,
            natural_end=not generation.ignore_eos,
            shortest=generation.min_tokens,
        )
        return Sequence(
            prompt_tokens=generation.prompt_tokens,
            source=source,
            max_tokens=generation.max_tokens,
            min_tokens=generation.min_tokens,
            stop=generation.stop,
            include_stop=generation.include_stop,
        )

    @contextlib.asynccontextmanager
    async def generating(self, sequence: Sequence) -> AsyncIterator[None]:
        """Have the engine work on `sequence`; free its slot when the client goes or the stream is cut."""
        if self.errors.hit() or not self.runs:
            raise self.failure()
        self.engine.add(sequence)
        try:
            yield
        except BaseException:
            self.engine.abort(sequence)
            raise

    async def _whole(self, generation: Generation, sequence: Sequence) -> web.Response:
        said = generation.prompt if generation.echo else ""
        while True:
            delta = await self.next_delta(sequence)
            said += delta.text
            if delta.finish is not None:
                answer = Answer(generation).whole(said, delta.tokens, delta.finish, delta.stop)
                return web.json_response(answer)

    async def _stream(
        self, request: web.Request, generation: Generation, sequence: Sequence
    ) -> web.StreamResponse:
        """Server-sent events. Status and first event go out with the first token.

        A status that comes while a proxy still finishes sending the request makes Go's ReverseProxy (Traefik)
        drop the connection (golang/go#40747): one stream in a hundred was cut. The real server answers
        milliseconds later, after tokenizing.
        """
        answer = Answer(generation)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        if self.draining:
            response.force_close()
        cut_after = 1 + generation.max_tokens // 2 if self.cuts.hit() else None
        opening = answer.role() if generation.chat else b""
        if generation.echo:
            opening += answer.delta(generation.prompt, 0, None, None)
        while True:
            delta = await self.next_delta(sequence)
            if not response.prepared:
                await response.prepare(request)
            event = opening
            if delta.text or delta.finish is not None:
                event += answer.delta(delta.text, delta.tokens, delta.finish, delta.stop)
            opening = b""
            self.cut(request, cut_after, delta)
            if delta.finish is not None:
                if generation.include_usage:
                    event += answer.final_usage(delta.tokens)
                event += DONE
            if event:
                await response.write(event)
            if delta.finish is not None:
                with contextlib.suppress(ConnectionResetError):
                    await response.write_eof()
                return response

    def cut(self, request: web.Request, after: int | None, delta: Delta) -> None:
        """Abort the connection once so many tokens are out; None: never."""
        if after is not None and (delta.tokens >= after or delta.finish is not None):
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError

    async def next_delta(self, sequence: Sequence) -> Delta:
        """What was generated since the last call: several steps when the client is slower than the engine."""
        delta = await sequence.deltas.get()
        while not sequence.deltas.empty():
            following = sequence.deltas.get_nowait()
            delta = Delta(delta.text + following.text, following.tokens, following.finish, following.stop)
        return delta
