"""Label and field selectors, with the messages of k8s.io/apimachinery/pkg/labels and pkg/fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from local.apiserver.errors import Object, bad_request

TOKEN = re.compile(r"\s*(==|!=|=|,|\(|\)|!|<|>|[^\s=!,()<>]+)")
OPERATORS = "in, notin, =, ==, !=, gt, lt"
LABEL_KEY = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

Predicate = Callable[[Object], bool]


@dataclass(frozen=True)
class Requirement:
    key: str
    operator: str  # in, notin, exists, !, gt, lt
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "in":
            return value in self.values
        if self.operator == "notin":
            return value not in self.values
        if self.operator == "exists":
            return value is not None
        if self.operator == "!":
            return value is None
        try:
            number, bound = int(value or ""), int(next(iter(self.values)))
        except ValueError:
            return False
        return number > bound if self.operator == "gt" else number < bound


class _Tokens:
    def __init__(self, text: str) -> None:
        self._left = TOKEN.findall(text)

    def peek(self) -> str:
        return self._left[0] if self._left else ""

    def take(self) -> str:
        return self._left.pop(0) if self._left else ""


def _unable(found: str, expected: str) -> Exception:
    return bad_request(f"unable to parse requirement: found '{found}', expected: {expected}")


def _values(tokens: _Tokens) -> frozenset[str]:
    if tokens.peek() != "(":
        raise _unable(tokens.peek(), "'('")
    tokens.take()
    values: list[str] = []
    while True:
        if tokens.peek() in (",", ")"):
            values.append("")
        else:
            values.append(tokens.take())
        end = tokens.take()
        if end == ")":
            return frozenset(values)
        if end != ",":
            raise _unable(end, "',' or ')'")


def _check(requirement: Requirement) -> Requirement:
    if not LABEL_KEY.fullmatch(requirement.key):
        raise bad_request(
            f'unable to parse requirement: <nil>: Invalid value: "{requirement.key}": name part '
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character"
        )
    for value in requirement.values:
        if not LABEL_VALUE.fullmatch(value):
            raise bad_request(
                f'unable to parse requirement: values[0][{requirement.key}]: Invalid value: "{value}": '
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
            )
    return requirement


def parse_labels(text: str) -> list[Requirement]:
    """Requirements of a labelSelector such as `app=x,tier in (a,b),!canary`; ApiError 400 if malformed."""
    tokens, found = _Tokens(text), list[Requirement]()
    while tokens.peek():
        if tokens.peek() == "!":
            tokens.take()
            found.append(_check(Requirement(tokens.take(), "!")))
        else:
            found.append(_check(_requirement(tokens)))
        separator = tokens.take()
        if separator and separator != ",":
            raise _unable(separator, "',' or 'end of string'")
        if separator == "," and not tokens.peek():
            raise _unable("", "identifier after ','")
    return found


def _requirement(tokens: _Tokens) -> Requirement:
    key, operator = tokens.take(), tokens.peek()
    if key in ("=", "==", "!=", ",", "(", ")", "<", ">"):
        raise _unable(key, "!, identifier, or 'end of string'")
    if operator in ("", ","):
        return Requirement(key, "exists")
    tokens.take()
    if operator in ("in", "notin"):
        return Requirement(key, operator, _values(tokens))
    if operator in ("=", "==", "!="):
        value = "" if tokens.peek() in ("", ",") else tokens.take()
        return Requirement(key, "notin" if operator == "!=" else "in", frozenset({value}))
    if operator in ("gt", ">", "lt", "<"):
        bound = tokens.take()
        return Requirement(key, "gt" if operator in ("gt", ">") else "lt", frozenset({bound}))
    raise _unable(operator, OPERATORS)


def label_predicate(text: str) -> Predicate | None:
    requirements = parse_labels(text)
    if not requirements:
        return None

    def matches(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(r.holds(labels) for r in requirements)

    return matches


def select_labels(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector object (matchLabels, matchExpressions) matches; an empty one matches all."""
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
    selector = selector or {}
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    return all(
        Requirement(e["key"], operators.get(e["operator"], "in"), frozenset(e.get("values") or ())).holds(
            labels
        )
        for e in selector.get("matchExpressions") or ()
    )


def field_value(obj: Object, path: str) -> str:
    """The value at a dotted path as field selectors see it: missing is the empty string."""
    value: object = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


FIELD_TERM = re.compile(r"^(.*?)(!=|==|=)(.*)$", re.DOTALL)


def _unescape(text: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", text)


def field_predicate(text: str, known: Mapping[str, str]) -> Predicate | None:
    """A fieldSelector over the fields in `known` (selector name to path in the object); ApiError 400 else."""
    terms: list[tuple[str, bool, str]] = []
    for part in re.split(r"(?<!\\),", text):
        if not part:
            continue
        term = FIELD_TERM.match(part)
        if not term:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        name = term[1].strip()
        if name not in known:
            if len(known) > 2:
                raise bad_request(f"field label not supported: {name}")
            only = ", ".join(f'"{k}"' for k in known)
            raise bad_request(f'"{name}" is not a known field selector: only {only}')
        terms.append((known[name], term[2] != "!=", _unescape(term[3])))
    if not terms:
        return None
    return lambda obj: all((field_value(obj, path) == value) is same for path, same, value in terms)
