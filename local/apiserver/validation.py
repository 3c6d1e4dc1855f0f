"""Validation of objects beyond their types (pkg/apis/*/validation)."""

from __future__ import annotations

import re

from local.apiserver.errors import FieldError, Object, invalid_value, required
from local.apiserver.resources import Resource

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)


def validate(resource: Resource, obj: Object, old: Object | None, subresource: str = "") -> list[FieldError]:
    """What is wrong with `obj`; `old` is the object before an update."""
    name = obj["metadata"].get("name", "")
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if not re.fullmatch(_SUBDOMAIN, name) and resource.group != "rbac.authorization.k8s.io":
        return [invalid_value("metadata.name", name, SUBDOMAIN_TEXT)]
    return []
