"""TGI's endpoints: its own, and the OpenAI ones in its router's shapes."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from aiohttp import web

from local.shims import logs
from local.shims.server import text
from local.shims.server.app import Server
from local.shims.server.engine import Delta
from local.shims.server.protocol import ApiError, Generation, Json
from local.shims.tgi.answers import ROUTER_VERSION, chunks, completion, head, reason, usage
from local.shims.tgi.metrics import TgiMetrics
from local.shims.tgi.requests import (
    Limits,
    PlainError,
    from_chat,
    from_completion,
    from_generate,
    invalid,
    parse,
)


@dataclass
class TgiServer(Server):
    """`root` is --model-id as it was given: models are known by it alone."""

    max_input_tokens: int = 1024
    max_concurrent_requests: int = 128
    max_stop_sequences: int = 4

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.around], client_max_size=2_000_000)
        for path in ("/", "/health", "/ping"):
            app.router.add_get(path, self.health)
        app.router.add_get("/info", self.info)
        app.router.add_get("/metrics", self.expose)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/generate", self.generate)
        app.router.add_post("/generate_stream", self.generate_stream)
        app.router.add_post("/tokenize", self.tokenize)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/chat/completions", self.chat)
        return app

    @property
    def limits(self) -> Limits:
        return Limits(self.max_input_tokens, self.engine.max_model_len, self.max_stop_sequences)

    def error_answer(self, error: Exception) -> web.Response | None:
        if isinstance(error, PlainError):
            return web.Response(text=error.text, status=error.status)
        if isinstance(error, ApiError):
            if error.kind in ("validation", "overloaded", "generation"):
                self._counted.failures.inc(1, err=error.kind)
            return web.json_response({"error": error.message, "error_type": error.kind}, status=error.status)
        return None

    def failure(self) -> ApiError:
        """The knobs' broken request: a shard that answers an error."""
        return ApiError(424, "generation", "Request failed during generation: Server error: error_rate")

    def announce(self, host: str, port: int) -> None:
        logs.tgi("Connected", target="text_generation_router::server")

    def say_stopping(self) -> None:
        logs.tgi("Terminating webserver")
        logs.tgi("Waiting for webserver to gracefully shutdown")
        logs.tgi("signal received, starting graceful shutdown", target="text_generation_router::server")

    def say_stopped(self) -> None:
        for message in (
            "webserver terminated",
            "Shutting down shards",
            "Terminating shard",
            "shard terminated",
        ):
            logs.tgi(message)

    async def models(self, request: web.Request) -> web.Response:
        entry = {"id": self.root, "object": "model", "created": 0, "owned_by": self.root}
        return web.json_response({"object": "list", "data": [entry]})

    async def info(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "model_id": self.root,
                "model_sha": None,
                "model_pipeline_tag": None,
                "max_concurrent_requests": self.max_concurrent_requests,
                "max_best_of": 2,
                "max_stop_sequences": self.max_stop_sequences,
                "max_input_tokens": self.max_input_tokens,
                "max_total_tokens": self.engine.max_model_len,
                "validation_workers": 2,
                "max_client_batch_size": 4,
                "router": "text-generation-router",
                "version": ROUTER_VERSION,
                "sha": None,
                "docker_label": None,
            }
        )

    async def tokenize(self, request: web.Request) -> web.Response:
        body, found, start = parse(await request.read(), "inputs"), [], 0
        for number, piece in enumerate(text.tokens(str(body["inputs"]))):
            found.append({"id": number, "text": piece, "start": start, "stop": start + len(piece)})
            start += len(piece)
        return web.json_response(found)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request, "inputs")
        said, last = await self._whole_text(from_generate(body, self.limits, self.root, stream=False))
        answer: Json = {"generated_text": said}
        if (body.get("parameters") or {}).get("details"):
            details = {"finish_reason": reason(last), "generated_tokens": last.tokens, "seed": None}
            answer["details"] = details | {"prefill": [], "tokens": []}
        return web.json_response(answer)

    async def generate_stream(self, request: web.Request) -> web.StreamResponse:
        generation = from_generate(await self._body(request, "inputs"), self.limits, self.root, stream=True)

        def event(delta: Delta, said: str) -> list[Json]:
            ended = delta.finish is not None
            details = {"finish_reason": reason(delta), "generated_tokens": delta.tokens, "seed": None}
            return [
                {
                    "index": delta.tokens,
                    "token": {"id": delta.tokens, "text": delta.text, "logprob": 0.0, "special": False},
                    "generated_text": said if ended else None,
                    "details": details | {"input_length": generation.prompt_tokens} if ended else None,
                }
            ]

        return await self._events(request, generation, event, done=False)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        generation = from_completion(await self._body(request, "prompt"), self.limits, self.root)
        if not generation.stream:
            said, last = await self._whole_text(generation)
            return web.json_response(completion(generation, said, reason(last, stop=True), last))
        return await self._events(
            request,
            generation,
            lambda delta, said: [
                completion(generation, delta.text, reason(delta) if delta.finish else "", delta)
            ],
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        generation = from_chat(await self._body(request, "messages"), self.limits, self.root)
        if generation.stream:
            return await self._events(request, generation, lambda delta, said: chunks(generation, delta))
        said, last = await self._whole_text(generation)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said},
            "logprobs": None,
            "finish_reason": reason(last, stop=True),
        }
        answer = head("chat.completion", generation) | {"choices": [choice]}
        return web.json_response(answer | {"usage": usage(generation, last)})

    async def _body(self, request: web.Request, needed: str) -> Json:
        self._counted.requests.inc(1)
        content = await request.read()
        if self.active > self.max_concurrent_requests:
            raise ApiError(429, "overloaded", "Model is overloaded")
        body = parse(content, needed)
        if needed == "messages" and not body["messages"]:
            raise invalid("`inputs` cannot be empty")
        return body

    @property
    def _counted(self) -> TgiMetrics:
        assert isinstance(self.metrics, TgiMetrics)
        return self.metrics

    async def _whole_text(self, generation: Generation) -> tuple[str, Delta]:
        sequence = self.sequence(generation)
        async with self.generating(sequence):
            said = ""
            while True:
                delta = await self.next_delta(sequence)
                said += delta.text
                if delta.finish is not None:
                    return said, delta

    async def _events(
        self, request: web.Request, generation: Generation, render: object, *, done: bool = True
    ) -> web.StreamResponse:
        """Server-sent events of one generation; `render` makes those of a delta and of all text so far."""
        assert callable(render)
        sequence = self.sequence(generation)
        async with self.generating(sequence):
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-cache",
                    "X-Accel-Buffering": "no",
                }
            )
            if self.draining:
                response.force_close()
            cut_after = 1 + generation.max_tokens // 2 if self.cuts.hit() else None
            said = ""
            while True:
                delta = await self.next_delta(sequence)
                if not response.prepared:
                    await response.prepare(request)
                said += delta.text
                self.cut(request, cut_after, delta)
                events = "".join(f"data: {json.dumps(event)}\n\n" for event in render(delta, said))
                if delta.finish is not None and done:
                    events += "data: [DONE]\n\n"
                await response.write(events.encode())
                if delta.finish is not None:
                    with contextlib.suppress(ConnectionResetError):
                        await response.write_eof()
                    return response
