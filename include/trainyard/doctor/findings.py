"""What the doctor found: one finding a thing it looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warning", "failed", "unknown"]


@dataclass(frozen=True)
class Finding:
    """part: api, gateway, ...; about: what was looked at; says: what is there, or wrong; mend: what to do."""

    part: str
    about: str
    state: State
    says: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Part:
    """Makes the findings of one part."""

    name: str

    def ok(self, about: str, says: str) -> Finding:
        return Finding(self.name, about, "ok", says)

    def warning(self, about: str, says: str, mend: str) -> Finding:
        return Finding(self.name, about, "warning", says, mend)

    def failed(self, about: str, says: str, mend: str) -> Finding:
        return Finding(self.name, about, "failed", says, mend)

    def unknown(self, about: str, says: str, mend: str) -> Finding:
        return Finding(self.name, about, "unknown", says, mend)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing that was looked at is broken. What could not be looked at does not count as broken."""
    return not any(each.state == "failed" for each in findings)
