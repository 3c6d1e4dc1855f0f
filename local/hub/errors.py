"""Errors as the Hub words them: a status, `X-Error-Code`, `X-Error-Message`, and the same text as JSON.

`huggingface_hub` tells them apart by the code (`utils/_http.py: hf_raise_for_status`).
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web


class HubError(Exception):
    """An answer other than success; `headers` are added to the usual ones."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return web.json_response({"error": self.message}, status=self.status, headers=headers)


def repo_not_found(*, authenticated: bool) -> HubError:
    """The Hub does not tell strangers whether a repository exists: 401 for them, 404 for known users."""
    if authenticated:
        return HubError(404, "Repository not found", "RepoNotFound")
    return HubError(401, "Invalid username or password.", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, revision: str) -> HubError:
    return HubError(404, f'{path} does not exist on "{revision}"', "EntryNotFound")


def gated(repo: str, *, authenticated: bool) -> HubError:
    """A gated repository's files: 401 without a token, 403 for a user who was not let in."""
    if authenticated:
        return HubError(
            403,
            f"Access to model {repo} is restricted and you are not in the authorized list. "
            f"Visit https://huggingface.co/{repo} to ask for access.",
            "GatedRepo",
        )
    return HubError(
        401,
        f"Access to model {repo} is restricted. "
        "You must have access to it and be authenticated to access it. Please log in.",
        "GatedRepo",
    )


def bad_credentials() -> HubError:
    return HubError(401, "Invalid credentials in Authorization header")
