"""Names: `REGISTRY/REPO:TAG` on one side, `bundle:FINGERPRINT` or `model:ORG/NAME@COMMIT` on the other."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainyard.errors import Problem, Refused
from trainyard.store import keys

# Grammar of the OCI distribution specification, "Pulling manifests".
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[::1\])(?::[0-9]{1,5})?")
# Private registries of all partitions, FIPS and dual stack too.
_ECR = re.compile(
    r"[0-9]{12}\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
)
_LOOPBACK = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Reference:
    """registry: host with port; repository; tag, or digest (`sha256:...`), one of them."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Tag or digest, as the manifest's address wants it."""
        return self.digest or self.tag or ""

    @property
    def ecr_region(self) -> str | None:
        """Its region, if the registry is a private one of ECR."""
        found = _ECR.fullmatch(self.registry)
        return found["region"] if found else None

    @property
    def scheme(self) -> str:
        """Plain HTTP is for registries on this machine only."""
        return "http" if _LOOPBACK.fullmatch(self.registry) else "https"

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


@dataclass(frozen=True)
class Subject:
    """What is pushed: kind "bundle" with its fingerprint, or "model" with repo and revision."""

    kind: str
    fingerprint: str = ""
    repo: str = ""
    revision: str = ""

    @property
    def manifest_key(self) -> str:
        if self.kind == "bundle":
            return keys.bundle_manifest(self.fingerprint)
        return keys.model_manifest(self.repo, self.revision)

    def __str__(self) -> str:
        return f"bundle:{self.fingerprint}" if self.kind == "bundle" else f"model:{self.repo}@{self.revision}"


def parse_reference(text: str, *, tag_needed: bool = False) -> Reference:
    """Raises Refused. tag_needed: a digest alone will not do, because something is to be pushed."""
    rest, _, digest = text.partition("@")
    host, _, path = rest.partition("/")
    name, colon, tag = path.partition(":")
    good = bool(
        _HOST.fullmatch(host)
        and ("." in host or ":" in host or host == "localhost")
        and _NAME.fullmatch(name)
        and len(name) <= 255
        and (not colon or _TAG.fullmatch(tag))
        and (not digest or re.fullmatch("sha256:[0-9a-f]{64}", digest))
        and ("@" in text) == bool(digest)
        and (colon or digest)
    )
    if not good or (tag_needed and (digest or not tag)):
        raise Refused(
            Problem(
                "reference",
                text,
                "a reference is REGISTRY/REPOSITORY:TAG" + ("" if tag_needed else " or …@sha256:DIGEST"),
                "Write for example 123456789012.dkr.ecr.us-east-2.amazonaws.com/models/llama:v1",
            )
        )
    return Reference(host, name, None if digest else tag, digest or None)


def parse_subject(text: str) -> Subject:
    """`bundle:FINGERPRINT` or `model:ORG/NAME@COMMIT`. Raises Refused."""
    kind, _, rest = text.partition(":")
    if kind == "bundle":
        return Subject("bundle", fingerprint=keys.check_id("fingerprint", rest))
    if kind == "model" and "@" in rest:
        repo, _, revision = rest.rpartition("@")
        return Subject(
            "model", repo=keys.check_repo("repo", repo), revision=keys.check_commit("revision", revision)
        )
    raise Refused(
        Problem(
            "subject",
            text,
            "it is `bundle:FINGERPRINT` or `model:ORG/NAME@COMMIT`",
            "`trainyard store ls` shows what there is",
        )
    )
