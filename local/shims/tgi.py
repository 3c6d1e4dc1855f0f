"""`text-generation-launcher` of TGI for Neuron: inf2 and trn1 only, maintenance mode."""

from __future__ import annotations

import argparse
import json
from typing import Any

from aiohttp import web

from local.shims import logs
from local.shims.faults import faults
from local.shims.logs import ToolError
from local.shims.server import lifecycle
from local.shims.server.app import Server
from local.shims.server.loading import load
from local.shims.server.options import parse
from local.shims.server.protocol import ApiError, Generation, Json, parse_body
from local.shims.server.text import tokens
from local.shims.silicon import silicon
from local.shims.versions import OPTIMUM, TGI, stack


class TgiServer(Server):
    """TGI's own endpoints besides the OpenAI ones; the served name is not checked."""

    def app(self) -> web.Application:
        app = super().app()
        app.router.add_get("/info", self.info)
        app.router.add_post("/generate", self.generate)
        app.router.add_post("/generate_stream", self.generate_stream)
        return app

    async def info(self, request: web.Request) -> web.Response:
        length = self.engine.max_model_len
        return web.json_response(
            {
                "model_id": self.root,
                "max_concurrent_requests": 128,
                "max_input_tokens": length - 1,
                "max_total_tokens": length,
                "max_client_batch_size": 4,
                "router": "text-generation-router",
                "version": "3.3.6",
            }
        )

    async def generate(self, request: web.Request) -> web.StreamResponse:
        generation = await self._parameters(request, stream=False)
        sequence = self.sequence(generation)
        async with self.generating(sequence):
            text = ""
            while True:
                delta = await self.next_delta(sequence)
                text += delta.text
                if delta.finish is not None:
                    details = {"finish_reason": _reason(delta.finish), "generated_tokens": delta.tokens}
                    return web.json_response({"generated_text": text, "details": details})

    async def generate_stream(self, request: web.Request) -> web.StreamResponse:
        generation = await self._parameters(request, stream=True)
        sequence = self.sequence(generation)
        async with self.generating(sequence):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            text = ""
            while True:
                delta = await self.next_delta(sequence)
                text += delta.text
                event: Json = {
                    "index": delta.tokens,
                    "token": {"id": delta.tokens, "text": delta.text, "logprob": None, "special": False},
                    "generated_text": None if delta.finish is None else text,
                    "details": None,
                }
                if delta.finish is not None:
                    event["details"] = {
                        "finish_reason": _reason(delta.finish),
                        "generated_tokens": delta.tokens,
                    }
                await response.write(f"data:{json.dumps(event)}\n\n".encode())
                if delta.finish is not None:
                    await response.write_eof()
                    return response

    async def _parameters(self, request: web.Request, *, stream: bool) -> Generation:
        body = parse_body(await request.read())
        prompt, given = body.get("inputs"), body.get("parameters") or {}
        if not isinstance(prompt, str) or not prompt:
            raise ApiError(422, "validation", "`inputs` must be a non-empty string")
        count, most = len(tokens(prompt)) + 1, int(given.get("max_new_tokens") or 20)
        if count + most > self.engine.max_model_len:
            raise ApiError(
                422,
                "validation",
                "Input validation error: `inputs` tokens + `max_new_tokens` must be "
                f"<= {self.engine.max_model_len}. Given: {count} `inputs` tokens and {most} `max_new_tokens`",
            )
        return Generation(
            model=self.names[0],
            prompt=prompt,
            prompt_tokens=count,
            max_tokens=most,
            min_tokens=0,
            seed=int(given.get("seed") or 0),
            stop=tuple(given.get("stop") or ()),
            include_stop=True,
            ignore_eos=False,
            stream=stream,
            include_usage=False,
            continuous_usage=False,
            echo=False,
            chat=False,
        )

    def checked(self, body: Json) -> Json:
        return body | {"model": self.names[0]}


def _reason(finish: str) -> str:
    return "length" if finish == "length" else "eos_token"


def parser() -> argparse.ArgumentParser:
    """The launcher's flags that matter on Neuron."""
    top = argparse.ArgumentParser("text-generation-launcher")
    top.add_argument("--model-id", required=True)
    top.add_argument("--hostname", default="0.0.0.0")
    top.add_argument("-p", "--port", type=int, default=3000)
    for name in ("--max-input-tokens", "--max-input-length", "--max-total-tokens", "--max-batch-size"):
        top.add_argument(name, type=int)
    for name in (
        "--max-concurrent-requests",
        "--max-batch-prefill-tokens",
        "--max-batch-total-tokens",
        "--num-shard",
    ):
        top.add_argument(name, type=int)
    top.add_argument("--revision")
    top.add_argument("--json-output", action="store_true")
    return top


def main(argv: list[str] | None = None) -> int:
    """Serve an exported model with TGI's endpoints until SIGTERM."""
    given = parser().parse_args(argv)
    installed, devices, knobs = stack(TGI), silicon(), faults()
    options: Any = parse(
        ["--model", given.model_id, "--host", given.hostname, "--port", str(given.port)], OPTIMUM
    )
    options.max_model_len, options.max_num_seqs = given.max_total_tokens, given.max_batch_size
    try:
        if devices.target == "trn2":
            raise ToolError("ValueError", "text-generation-inference for Neuron does not support trn2.")
        if knobs.crash_on_start:
            raise ToolError("RuntimeError", knobs.crash_on_start)
        loaded = load(options, installed, devices, knobs)
    except ToolError as error:
        logs.traceback(error, "text_generation_server/cli.py:119 in serve")
        print("Error: ShardCannotStart", flush=True)
        return 1
    if loaded is not None:
        lifecycle.serve(options, installed, loaded, knobs, TgiServer)
    return 0
