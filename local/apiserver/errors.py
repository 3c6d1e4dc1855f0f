"""`Status` errors, worded as a real API server words them (k8s.io/apimachinery, api/errors).

ApiError                 carries the HTTP code and becomes a `Status` object
FieldError               one finding of a validation; several make one `Invalid`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


class ApiError(Exception):
    """A request that ends in a `Status` object with status Failure."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Object | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details, self.headers = details, headers or {}

    def status(self) -> Object:
        body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details is not None:
            body["details"] = self.details
        return {**body, "code": self.code}


def success(code: int = 200, details: Object | None = None) -> Object:
    body: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details is not None:
        return {**body, "details": details}
    return {**body, "code": code}


@dataclass(frozen=True)
class FieldError:
    """One finding: `path` as in a manifest, `type` as in field.ErrorType, `text` what follows the path."""

    path: str
    type: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def show(value: Any) -> str:
    """A value the way field.Error prints it: strings quoted, the rest as JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def required(path: str, detail: str = "") -> FieldError:
    return FieldError(path, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def invalid_value(path: str, value: Any, detail: str) -> FieldError:
    return FieldError(path, "FieldValueInvalid", f"Invalid value: {show(value)}: {detail}")


def unsupported(path: str, value: Any, allowed: Sequence[Any]) -> FieldError:
    text = ", ".join(show(a) for a in allowed)
    return FieldError(
        path, "FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {text}"
    )


def forbidden_field(path: str, detail: str) -> FieldError:
    return FieldError(path, "FieldValueForbidden", f"Forbidden: {detail}")


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError(path, "FieldValueDuplicate", f"Duplicate value: {show(value)}")


@dataclass(frozen=True)
class Subject:
    """What an error speaks of: qualified names differ between resource and kind."""

    group: str
    plural: str
    kind: str
    name: str = ""
    extra: Object = field(default_factory=dict)

    @property
    def resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    def details(self, kind: str) -> Object:
        details: Object = {"name": self.name} if self.name else {}
        if self.group:
            details["group"] = self.group
        return {**details, "kind": kind, **self.extra}


def not_found(subject: Subject) -> ApiError:
    return ApiError(
        404, "NotFound", f'{subject.resource} "{subject.name}" not found', subject.details(subject.plural)
    )


def already_exists(subject: Subject) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f'{subject.resource} "{subject.name}" already exists',
        subject.details(subject.plural),
    )


def conflict(subject: Subject, detail: str = "") -> ApiError:
    why = detail or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {subject.resource} "{subject.name}": {why}',
        subject.details(subject.plural),
    )


def forbidden(subject: Subject, detail: str, causes: list[Object] | None = None) -> ApiError:
    name = f' "{subject.name}"' if subject.name else ""
    details = subject.details(subject.plural)
    if causes:
        details["causes"] = causes
    return ApiError(403, "Forbidden", f"{subject.resource}{name} is forbidden: {detail}", details)


def invalid(subject: Subject, errors: Sequence[FieldError]) -> ApiError:
    texts = [str(e) for e in errors]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = subject.details(subject.kind)
    details["causes"] = [{"reason": e.type, "message": e.text, "field": e.path} for e in errors]
    return ApiError(422, "Invalid", f'{subject.qualified_kind} "{subject.name}" is invalid: {text}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def no_such_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    message = "the body of the request was in an unknown format - accepted media types include: "
    return ApiError(415, "UnsupportedMediaType", message + ", ".join(accepted))


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    message = "only the following media types are accepted: " + ", ".join(accepted)
    return ApiError(406, "NotAcceptable", message)


def gone(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def internal(message: str) -> ApiError:
    text = f"Internal error occurred: {message}"
    return ApiError(500, "InternalError", text, {"causes": [{"message": message}]})
