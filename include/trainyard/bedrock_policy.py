"""Whether a release is in step with the model of Amazon Bedrock that its entry names. Pure: no I/O.

Bedrock's ids end in a version, and some in a variant of it: `meta.llama3-1-8b-instruct-v1:0:128k` is v1:0
with a longer context, not a later version. Only ids without a variant are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from trainyard.spec import Bedrock

State = Literal["in_step", "notice", "out_of_step"]

# A successor has to be found, compiled, measured and shifted to before the end: then it is time to act.
LEAST_NOTICE = timedelta(days=90)
# Some ids carry no `v` (openai.gpt-oss-120b-1:0), some no second number (cohere.embed-english-v3).
_ID = re.compile(r"(?P<base>[^:]+)-(?P<version>v[0-9]+(:[0-9]+)?|[0-9]+:[0-9]+)(:(?P<variant>[a-z0-9-]+))?")
_PROFILE = re.compile(r"(us|us-gov|eu|apac|au|ca|jp|global)\.[a-z0-9-]+\.")


class ModelId(NamedTuple):
    """Parts of an id: what is before the version; the version; a variant such as `128k`, or empty."""

    base: str
    version: str
    variant: str


def parse_id(model_id: str) -> ModelId | None:
    """None for an id without a version."""
    found = _ID.fullmatch(model_id)
    return ModelId(found["base"], found["version"], found["variant"] or "") if found else None


def order(version: str) -> tuple[int, int]:
    """For comparing versions: v1 = v1:0 < v1:1 < v2:0 < v10:0."""
    major, _, minor = version.removeprefix("v").partition(":")
    return int(major), int(minor or 0)


@dataclass(frozen=True)
class Offered:
    """A model as Bedrock lists it. status: ACTIVE or LEGACY, or a word that is newer than this code.

    ends: when Bedrock stops serving it, where it says so.
    """

    model_id: str
    status: str = "ACTIVE"
    ends: datetime | None = None


@dataclass(frozen=True)
class Finding:
    """What is not as named: which field, its value, what is there instead, and what to do."""

    field: str
    value: str
    there: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.there}. {self.remedy}"


@dataclass(frozen=True)
class Step:
    """How an entry stands towards Bedrock.

    mismatches: it is out of step. notices: it is in step, and somebody should know something.
    """

    model_id: str
    version: str
    region: str
    mismatches: tuple[Finding, ...] = ()
    notices: tuple[Finding, ...] = field(default=())

    @property
    def state(self) -> State:
        return "out_of_step" if self.mismatches else "notice" if self.notices else "in_step"

    @property
    def words(self) -> str:
        """For people: one line, the gravest first."""
        where = f"{self.model_id}-{self.version} of Bedrock in {self.region}"
        if self.mismatches:
            return f"Out of step with {where}. {' '.join(map(str, (*self.mismatches, *self.notices)))}"
        return " ".join([f"In step with {where}.", *map(str, self.notices)])

    def adding(self, mismatch: Finding) -> Step:
        return replace(self, mismatches=(*self.mismatches, mismatch))

    def document(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "state": self.state,
            "words": self.words,
            "bedrock": {"model_id": self.model_id, "version": self.version, "region": self.region},
            "mismatches": [asdict(each) for each in self.mismatches],
            "notices": [asdict(each) for each in self.notices],
        }


def compare(
    named: Bedrock,
    offered: Iterable[Offered],
    tracked_revision: str | None,
    stable_revision: str | None,
    *,
    region: str,
    now: datetime,
) -> Step:
    """named: the entry's `bedrock`. offered: what Bedrock has in `region`; other models may be among it.

    tracked_revision: the commit that the entry's `model.revision` means now. stable_revision: the commit that
    takes the traffic. None: there is none, or nobody needs to know as `bedrock.revision` is not named.
    """
    offered = list(offered)
    mismatches: list[Finding] = []
    notices: list[Finding] = []
    there = next((each for each in offered if each.model_id == _full(named)), None)
    if there is None:
        mismatches.append(_missing(named, offered, region))
    elif there.status != "ACTIVE":
        finding, urgent = _lifecycle(named, there, now)
        (mismatches if urgent else notices).append(finding)
    # What is LEGACY already is no successor.
    active = [each for each in offered if each.status == "ACTIVE"]
    newest = next(reversed(_versions(named, active)), named.version)
    if there is not None and order(newest) > order(named.version):
        notices.append(
            Finding(
                "bedrock.version",
                named.version,
                f"Bedrock has {newest} too",
                "Try it there; then name it here with the Hub's commit that equals it, or stay.",
            )
        )
    mismatches += _revisions(named, tracked_revision, stable_revision)
    return Step(named.model_id, named.version, region, tuple(mismatches), tuple(notices))


def _full(named: Bedrock) -> str:
    return f"{named.model_id}-{named.version}"


def _versions(named: Bedrock, offered: Iterable[Offered]) -> list[str]:
    """The versions of the named id, oldest first."""
    ids = [parse_id(each.model_id) for each in offered]
    found = {each.version for each in ids if each and each.base == named.model_id and not each.variant}
    return sorted(found, key=lambda version: (order(version), version))


def _missing(named: Bedrock, offered: list[Offered], region: str) -> Finding:
    versions = _versions(named, offered)
    if versions:
        return Finding(
            "bedrock.version",
            named.version,
            f"Bedrock in {region} does not have it any more, or not yet; it has {', '.join(versions)}",
            f"Name one of these (written {versions[-1]}), or take `bedrock` out of the entry.",
        )
    remedy = "Compare it with `aws bedrock list-foundation-models`, or name another region."
    if _PROFILE.match(named.model_id):
        remedy = "Name the model without the prefix of an inference profile."
    return Finding("bedrock.model_id", named.model_id, f"Bedrock in {region} has no such model", remedy)


def _lifecycle(named: Bedrock, there: Offered, now: datetime) -> tuple[Finding, bool]:
    """What an age says, and whether it is urgent."""
    remedy = "Choose its successor while both are served."
    if there.status != "LEGACY":
        words = f"its status in Bedrock is {there.status}, which is neither ACTIVE nor LEGACY"
        return Finding("bedrock.version", named.version, words, "Look at its page in Bedrock."), False
    if there.ends is None:
        words = "Bedrock calls it LEGACY, and does not say until when it is served"
        return Finding("bedrock.version", named.version, words, remedy), False
    ends = there.ends if there.ends.tzinfo else there.ends.replace(tzinfo=UTC)
    words = f"Bedrock calls it LEGACY and {'ended' if ends <= now else 'ends'} it on {ends:%Y-%m-%d}"
    return Finding("bedrock.version", named.version, words, remedy), ends - now < LEAST_NOTICE


def _revisions(named: Bedrock, tracked: str | None, stable: str | None) -> list[Finding]:
    found: list[Finding] = []
    if named.revision is None:
        return found
    same = f"{named.version} equals {named.revision[:12]}"
    if tracked not in (None, named.revision):
        found.append(
            Finding(
                "model.revision",
                str(tracked)[:12],
                f"this is followed, but {same}",
                "Pin model.revision to that commit, or name the Bedrock version that equals this one.",
            )
        )
    if stable not in (None, named.revision):
        found.append(
            Finding(
                "stable",
                str(stable)[:12],
                f"this takes the traffic, but {same}",
                "Release that commit, or name the Bedrock version that equals this one.",
            )
        )
    return found
