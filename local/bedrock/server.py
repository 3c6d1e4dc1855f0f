"""Bedrock's REST protocol for ListFoundationModels and GetFoundationModel, from one JSON file.

    {"models": [{"modelId": "meta.llama3-1-8b-instruct-v1:0", "regions": ["us-east-2"],
                 "modelLifecycle": {"status": "LEGACY", "endOfLifeTime": "2027-01-31T00:00:00Z"}}],
     "rules": [{"operation": "GetFoundationModel", "error": "ThrottlingException", "count": 2}]}

The file is read for every request. A model's fields are those of the API; what is missing is filled in, and
without `regions` it is everywhere. A rule applies to requests of its `operation` (default: all), at most
`count` times; the first that applies is taken. What it does:

    error, message   answer with this exception
    delay            seconds before the answer starts
    drop             close the connection without an answer
    status, body     answer with these instead, as a proxy would
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from local.bedrock.errors import BedrockError, denied

_PART = "[a-z0-9-]{1,63}"
_IDENTIFIER = re.compile(rf"{_PART}\.{_PART}(\.{_PART}){{0,2}}(:{_PART}){{0,2}}")
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]{1,20})::foundation-model/(?P<id>.+)")
_CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/(?P<region>[a-z0-9-]+)/bedrock/aws4_request,"
)
_FILTERS = {
    "byCustomizationType": "customizationsSupported",
    "byInferenceType": "inferenceTypesSupported",
    "byOutputModality": "outputModalities",
}


class Bedrock:
    """All requests of one server."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.used: Counter[str] = Counter()

    def app(self) -> web.Application:
        """The application; an identifier may hold encoded slashes, so routing is done by `answer`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self.answer(request)
        except BedrockError as error:
            return error.response()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        operation, identifier = _operation(request)
        region = _region(request)
        content = json.loads(self.data.read_text(encoding="utf-8"))
        if (early := await self._broken(request, content.get("rules", ()), operation, region)) is not None:
            return early
        models = [
            _filled(model, region)
            for model in content.get("models", ())
            if region in model.get("regions", (region,))
        ]
        if identifier is None:
            found = [model for model in models if _passes(model, request.query)]
            return web.json_response({"modelSummaries": found})
        return web.json_response({"modelDetails": _named(models, identifier, region)})

    async def _broken(
        self, request: web.Request, rules: Any, operation: str, region: str
    ) -> web.StreamResponse | None:
        """What the first rule that applies makes of this request."""
        for rule in rules:
            key = json.dumps(rule, sort_keys=True)
            if rule.get("operation", operation) != operation or self.used[key] >= rule.get("count", 1 << 30):
                continue
            self.used[key] += 1
            await asyncio.sleep(rule.get("delay", 0))
            if rule.get("drop"):
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            if rule.get("error") == "AccessDeniedException" and "message" not in rule:
                raise denied(f"bedrock:{operation}", region)
            if "error" in rule:
                raise BedrockError(rule["error"], rule.get("message"))
            if "status" in rule or "body" in rule:
                return web.Response(status=rule.get("status", 200), text=rule.get("body", ""))
            return None
        return None


def _operation(request: web.Request) -> tuple[str, str | None]:
    """The operation, and the identifier that it is about."""
    parts = [unquote(part) for part in request.rel_url.raw_path.strip("/").split("/")]
    match request.method, parts:
        case "GET", ["foundation-models"]:
            return "ListFoundationModels", None
        case "GET", ["foundation-models", identifier]:
            return "GetFoundationModel", identifier
    raise BedrockError("UnknownOperationException")


def _region(request: web.Request) -> str:
    """From the signature's scope. The signature itself is not checked: anybody on this machine may ask."""
    given = request.headers.get("Authorization", "")
    if not given:
        raise BedrockError("MissingAuthenticationTokenException")
    found = _CREDENTIAL.match(given)
    if found is None:
        raise BedrockError("UnrecognizedClientException")
    return found["region"]


def _filled(model: Mapping[str, Any], region: str) -> dict[str, Any]:
    """A model with every field that Bedrock sends."""
    name = str(model["modelId"])
    filled = {
        "modelArn": f"arn:aws:bedrock:{region}::foundation-model/{name}",
        "modelName": name.partition(".")[2][:20],
        "providerName": name.partition(".")[0].capitalize(),
        "inputModalities": ["TEXT"],
        "outputModalities": ["TEXT"],
        "responseStreamingSupported": True,
        "customizationsSupported": [],
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
        **model,
    }
    filled.pop("regions", None)
    return filled


def _passes(model: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    provider = query.get("byProvider")
    if provider is not None and provider.lower() != str(model["providerName"]).lower():
        return False
    return all(query[name] in model[field] for name, field in _FILTERS.items() if name in query)


def _named(models: list[dict[str, Any]], identifier: str, region: str) -> dict[str, Any]:
    if arn := _ARN.fullmatch(identifier):
        if arn["region"] != region:
            raise BedrockError("ValidationException")
        identifier = arn["id"]
    if not _IDENTIFIER.fullmatch(identifier):
        raise BedrockError("ValidationException")
    for model in models:
        if model["modelId"] == identifier:
            return model
    raise BedrockError("ResourceNotFoundException")
