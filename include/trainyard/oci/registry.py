"""A registry of the OCI distribution specification, over `oras`: its names, its token dance, its docker
config.

Own, because oras reads a whole layer into memory before it sends it, sends it before it was asked who it is,
or cuts it into PATCHes, of which ECR loses all but the first: one PUT whose body comes from a callable, and
our pauses between tries.
"""

from __future__ import annotations

import base64
import hashlib
import json as jsonlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urljoin, urlsplit

import oras.auth
import oras.container
import oras.defaults
import oras.provider
import oras.utils
import requests

from trainyard.errors import Conflict, CorruptArtifact, NotFound, PermanentError, RegistryUnavailable
from trainyard.oci.artifacts import MANIFEST_CAP, MANIFEST_TYPE
from trainyard.oci.references import Reference

ATTEMPTS = 5
TIMEOUTS = (10.0, 120.0)
LONGEST_WAIT = 60.0
CHUNK = 1 << 20

Opener = Callable[[], Iterator[bytes]]


class Registry(oras.provider.Registry):  # type: ignore[misc]
    """One repository of a registry. Threads may share it.

    authorization: value of the header, if it is known beforehand; otherwise ECR is asked (boto3), or docker's
    own configuration and credential helpers. pause: slept between tries.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        authorization: str | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(hostname=reference.registry, insecure=reference.scheme == "http")
        self.reference, self.pause = reference, pause
        self.container = oras.container.Container(f"{reference.registry}/{reference.repository}")
        self.base = f"{reference.scheme}://{reference.registry}"
        self.session.mount(self.base, requests.adapters.HTTPAdapter(pool_maxsize=32))
        if authorization is None and reference.ecr_region:
            authorization = ecr_authorization(reference.ecr_region)
        elif authorization is None:
            self.auth.load_configs(self.container)
        self._authorization = authorization
        self._fixed = authorization is not None
        self._lock = threading.Lock()

    def has_blob(self, sha256: str) -> bool:
        return self._expect("look up", self._blob(sha256), "HEAD", good=(200, 404)).status_code == 200

    def put_blob(self, sha256: str, size: int, content: Opener) -> None:
        """Send a blob in one stream; `content` is called again for each try."""
        reply = self._expect("begin an upload to", f"/v2/{self.reference.repository}/blobs/uploads/", "POST")
        place = reply.headers.get("Location")
        if not place:
            raise PermanentError(f"{self.reference}: the registry names no place for an upload.")
        address = oras.utils.append_url_params(urljoin(self.base, place), {"digest": f"sha256:{sha256}"})
        self._expect(
            "upload a blob to",
            address,
            "PUT",
            data=_Body(size, content) if size else b"",
            headers={"Content-Type": "application/octet-stream"},
        )

    def read_blob(self, sha256: str, size: int, cap: int) -> bytes:
        """A small blob, verified. Raises NotFound, CorruptArtifact."""
        body = b"".join(self.stream_blob(sha256, size)) if size <= cap else b""
        if len(body) != size or hashlib.sha256(body).hexdigest() != sha256:
            raise CorruptArtifact(f"{self.reference}: the blob sha256:{sha256} is not what its digest says.")
        return body

    def stream_blob(self, sha256: str, size: int) -> Iterator[bytes]:
        """The blob's bytes, not verified; broken connections are resumed where they broke."""
        got, failures = 0, 0
        while got < size:
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={got}-{size - 1}"} if got else {})
            reply = self._expect(
                "read a blob of", self._blob(sha256), "GET", headers=headers, stream=True, good=(200, 206)
            )
            skip = got if reply.status_code == 200 else 0  # it does not know ranges: read over what is here
            try:
                with closing(reply):
                    for chunk in reply.iter_content(CHUNK):
                        fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                        if fresh:
                            got += len(fresh)
                            failures = 0
                            yield fresh
                if got < size:
                    raise requests.ConnectionError(f"the reply ended after {got} of {size} bytes")
            except requests.RequestException as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise RegistryUnavailable(f"{self.reference}: reading a blob broke ({error}).") from error
                self.pause(_wait(failures))

    def manifest(self) -> dict[str, Any]:
        """The manifest of the reference; its digest is checked where it is known."""
        where = f"/v2/{self.reference.repository}/manifests/{self.reference.name}"
        reply = self._expect(
            "read", where, "GET", headers={"Accept": MANIFEST_TYPE}, good=(200,), stream=True
        )
        with closing(reply):
            body = b""
            for chunk in reply.iter_content(CHUNK):
                body += chunk
                if len(body) > MANIFEST_CAP:
                    raise CorruptArtifact(
                        f"{self.reference}: its manifest has more than {MANIFEST_CAP} bytes."
                    )
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        for expected in (self.reference.digest, reply.headers.get("Docker-Content-Digest")):
            if expected and expected.startswith("sha256:") and expected != found:
                raise CorruptArtifact(f"{self.reference}: its manifest has digest {found}, not {expected}.")
        try:
            document = jsonlib.loads(body)
        except (ValueError, RecursionError) as error:
            raise CorruptArtifact(f"{self.reference}: its manifest is no JSON ({error}).") from error
        if not isinstance(document, dict):
            raise CorruptArtifact(f"{self.reference}: its manifest is no JSON object.")
        return document

    def put_manifest(self, manifest: dict[str, Any]) -> str:
        """Make the tag name this manifest; returns its digest."""
        body = jsonlib.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        self._expect(
            "write",
            f"/v2/{self.reference.repository}/manifests/{self.reference.name}",
            "PUT",
            data=body,
            headers={"Content-Type": MANIFEST_TYPE},
        )
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: dict[str, str] | None = None,
        json: Any = None,
        stream: bool = False,
    ) -> requests.Response:
        """oras' one request, with our tries: its own wait up to 83 s and know neither 429 nor 503.

        Raises RegistryUnavailable.
        """
        wait, problem = 0.0, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self.pause(wait)
            try:
                reply = self._authorized(url, method, data, dict(headers or {}), json, stream)
            except requests.RequestException as error:
                wait, problem = _wait(attempt), f"{type(error).__name__}: {error}"
                continue
            if reply.status_code != 429 and reply.status_code < 500:
                return reply
            wait, problem = max(_wait(attempt), _retry_after(reply)), f"{reply.status_code}"
            reply.close()
            if wait > LONGEST_WAIT:
                raise RegistryUnavailable(
                    f"{self.reference}: the registry answers {problem}.", retry_after=wait
                )
        raise RegistryUnavailable(
            f"{self.reference}: the registry does not answer properly after {ATTEMPTS} tries ({problem})."
        )

    def _authorized(
        self, url: str, method: str, data: Any, headers: dict[str, str], json: Any, stream: bool
    ) -> requests.Response:
        # Uploads may be sent on to another host by a signed address: our word is for the registry alone.
        ours = urlsplit(url).netloc == self.reference.registry
        sent = self._authorization if ours else None
        if sent:
            headers["Authorization"] = sent
        options: dict[str, Any] = {"data": data, "json": json, "stream": stream, "timeout": TIMEOUTS}
        session: requests.Session = self.session
        reply = session.request(method, url, headers=headers, **options)
        if reply.status_code not in (401, 403) or not ours or (self._fixed and reply.status_code == 403):
            return reply
        renewed = self._authorize(reply, sent)
        if renewed is None or renewed == sent:
            return reply
        reply.close()
        return session.request(method, url, headers={**headers, "Authorization": renewed}, **options)

    def _authorize(self, refused: requests.Response, sent: str | None) -> str | None:
        """What to send instead of `sent`; None if nothing is known."""
        challenge = refused.headers.get("Www-Authenticate", "")
        with self._lock:
            if self._fixed and self.reference.ecr_region:
                self._authorization = ecr_authorization(self.reference.ecr_region)  # valid for 12 hours
            elif challenge.lower().startswith("basic"):
                known = getattr(self.auth, "_basic_auth", None)
                self._authorization = f"Basic {known}" if known else None
            elif challenge:
                headers, changed = self.auth.authenticate_request(refused, {}, refresh=True)
                self._authorization = headers.get("Authorization") if changed else None
            return self._authorization

    def _blob(self, sha256: str) -> str:
        return f"/v2/{self.reference.repository}/blobs/sha256:{sha256}"

    def _expect(
        self, verb: str, where: str, method: str, *, good: tuple[int, ...] = (200, 201, 202, 204), **more: Any
    ) -> requests.Response:
        """Raises NotFound, Conflict, PermanentError in the registry's own words."""
        reply = self.do_request(urljoin(self.base, where), method, **more)
        if reply.status_code in good:
            return reply
        with closing(reply):
            text = f"Cannot {verb} {self.reference}: {reply.status_code} {_words(reply)}"
        if reply.status_code in (401, 403):
            raise PermanentError(
                f"{text} Log in (docker login; for ECR the account's own AWS credentials) with an account "
                "that may push and pull there."
            )
        if reply.status_code == 404:
            raise NotFound(f"{text} Check registry, repository and tag; ECR makes no repository by itself.")
        if reply.status_code in (409, 412) or "immutable" in text.lower():
            raise Conflict(f"{text} The tag stands already; take another one.")
        raise PermanentError(text)


def ecr_authorization(region: str) -> str:
    """The header for ECR's private registry of the AWS account at hand. Raises PermanentError."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        # A session of our own: the default one is not safe to share between threads.
        client = boto3.session.Session().client("ecr", region_name=region)
        token = str(client.get_authorization_token()["authorizationData"][0]["authorizationToken"])
        base64.b64decode(token, validate=True)
    except (BotoCoreError, ClientError, LookupError, ValueError) as error:
        raise PermanentError(
            f"ECR in {region} gives no token ({error}). Allow ecr:GetAuthorizationToken for the role or key "
            "at hand."
        ) from error
    return f"Basic {token}"


class _Body:
    """A request body that has a length and can be sent again."""

    def __init__(self, size: int, content: Opener) -> None:
        self.size, self.content = size, content

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        return self.content()


def _wait(attempt: int) -> float:
    return random.uniform(0.3, 0.6) * float(1 << attempt)


def _retry_after(reply: requests.Response) -> float:
    try:
        return max(0.0, float(reply.headers.get("Retry-After", "")))
    except ValueError:
        return 0.0


def _words(reply: requests.Response) -> str:
    """What the registry says is wrong, in one line."""
    try:
        listed = reply.json()["errors"]
        return "; ".join(f"{item.get('code')}: {item.get('message')}" for item in listed)[:500] + "."
    except (ValueError, LookupError, TypeError, AttributeError, requests.RequestException):
        return f"{reply.reason}."
