"""Names, labels and annotations."""

from __future__ import annotations

import re

from local.apiserver.errors import FieldError, Object, forbidden_field, invalid_value, required
from local.apiserver.resources import Resource

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SERVICE = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_ENDS = "and must start and end with an alphanumeric character"

SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    f"{_ENDS} (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    f"{_ENDS} (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
SERVICE_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    f"validation is '{_SERVICE}')"
)
LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    f"{_ENDS} (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
QUALIFIED_TEXT = (
    f"name part must consist of alphanumeric characters, '-', '_' or '.', {_ENDS} "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
MAX_ANNOTATIONS = 262144

_RULES: dict[tuple[str, str], tuple[str, str, int]] = {
    ("", "namespaces"): (_LABEL, LABEL_TEXT, 63),
    ("", "services"): (_SERVICE, SERVICE_TEXT, 63),
}


def check_label_name(path: str, name: str) -> list[FieldError]:
    """A name that must be a DNS label, such as a container's."""
    if len(name) > 63:
        return [invalid_value(path, name, "must be no more than 63 bytes")]
    return [] if re.fullmatch(_LABEL, name) else [invalid_value(path, name, LABEL_TEXT)]


def check_qualified(path: str, key: str) -> list[FieldError]:
    """A label or annotation key: `[prefix/]name`."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (0 < len(prefix) <= 253 and re.fullmatch(_SUBDOMAIN, prefix)):
        return [invalid_value(path, key, "prefix part " + SUBDOMAIN_TEXT)]
    if len(name) > 63:
        return [invalid_value(path, key, "name part must be no more than 63 bytes")]
    return [] if re.fullmatch(_QUALIFIED, name) else [invalid_value(path, key, QUALIFIED_TEXT)]


def check_labels(path: str, labels: Object) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, value in labels.items():
        errors += check_qualified(path, key)
        if len(value) > 63:
            errors.append(invalid_value(path, value, "must be no more than 63 bytes"))
        elif value and not re.fullmatch(_QUALIFIED, value):
            errors.append(invalid_value(path, value, LABEL_VALUE_TEXT))
    return errors


def _check_name(resource: Resource, name: str) -> list[FieldError]:
    if resource.group == "rbac.authorization.k8s.io":
        bad = name in (".", "..") or "/" in name or "%" in name
        return [invalid_value("metadata.name", name, "may not contain '/' or '%'")] if bad else []
    pattern, text, limit = _RULES.get(resource.storage, (_SUBDOMAIN, SUBDOMAIN_TEXT, 253))
    if len(name) > limit:
        return [invalid_value("metadata.name", name, f"must be no more than {limit} bytes")]
    return [] if re.fullmatch(pattern, name) else [invalid_value("metadata.name", name, text)]


def check_metadata(resource: Resource, meta: Object, old: Object | None) -> list[FieldError]:
    name = meta.get("name", "")
    errors = _check_name(resource, name) if name else []
    if not name:
        errors.append(required("metadata.name", "name or generateName is required"))
    errors += check_labels("metadata.labels", meta.get("labels") or {})
    annotations = meta.get("annotations") or {}
    for key in annotations:
        errors += check_qualified("metadata.annotations", key.lower())
    if sum(len(k) + len(v) for k, v in annotations.items()) > MAX_ANNOTATIONS:
        text = f"Too long: may not be more than {MAX_ANNOTATIONS} bytes"
        errors.append(FieldError("metadata.annotations", "FieldValueTooLong", text))
    for i, owner in enumerate(meta.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                path = f"metadata.ownerReferences[{i}].{field}"
                errors.append(invalid_value(path, owner.get(field, ""), "must not be empty"))
    if old is not None and old.get("deletionTimestamp"):
        new = [f for f in meta.get("finalizers") or () if f not in (old.get("finalizers") or ())]
        if new:
            shown = ", ".join(f'"{f}"' for f in new)
            text = (
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{shown}}}"
            )
            errors.append(forbidden_field("metadata.finalizers", text))
    return errors
