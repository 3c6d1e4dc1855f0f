"""Errors as Bedrock sends them: a status, `x-amzn-ErrorType`, and `{"message": ...}`."""

from __future__ import annotations

from aiohttp import web

STATUS = {
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "InternalServerException": 500,
    "MissingAuthenticationTokenException": 403,
    "ResourceNotFoundException": 404,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
    "ValidationException": 400,
}
MESSAGE = {
    "ExpiredTokenException": "The security token included in the request is expired",
    "InternalServerException": "The server encountered an internal error while processing the request.",
    "MissingAuthenticationTokenException": "Missing Authentication Token",
    "ResourceNotFoundException": "Could not resolve the foundation model from the provided model identifier.",
    "ServiceUnavailableException": "The service is currently unavailable.",
    "ThrottlingException": "Too many requests, please wait before trying again.",
    "UnrecognizedClientException": "The security token included in the request is invalid.",
    "ValidationException": "The provided model identifier is invalid.",
}
# What the service itself writes behind the name; clients cut it off.
_NAMESPACE = "http://internal.amazon.com/coral/com.amazon.bedrock/"


class BedrockError(Exception):
    """An answer other than success. name: of the exception, as in the service's model."""

    def __init__(self, name: str, message: str | None = None) -> None:
        self.name, self.message = name, message or MESSAGE.get(name, name)
        super().__init__(self.message)

    def response(self) -> web.Response:
        return web.json_response(
            {"message": self.message},
            status=STATUS.get(self.name, 400),
            headers={"x-amzn-ErrorType": f"{self.name}:{_NAMESPACE}"},
        )


def denied(action: str, region: str) -> BedrockError:
    """As IAM words a policy that allows nothing."""
    return BedrockError(
        "AccessDeniedException",
        f"User: arn:aws:sts::123456789012:assumed-role/local/local is not authorized to perform: {action} "
        f"on resource: arn:aws:bedrock:{region}::foundation-model/* because no identity-based policy allows "
        f"the {action} action",
    )
