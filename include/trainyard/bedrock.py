"""What Amazon Bedrock says of its models, by its control plane. Asks only; changes nothing.

An answer is a fact, also "no such model". All else (refused, throttled, unreachable, unreadable) is silence:
BedrockUnavailable, and never taken for an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trainyard.bedrock_policy import Offered, parse_id
from trainyard.errors import BedrockUnavailable


def client_config(*, attempts: int = 4, connect_seconds: float = 5.0, read_seconds: float = 20.0) -> Any:
    """The botocore Config of a Bedrock client. attempts: the first try is one of them."""
    from botocore.config import Config

    return Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        user_agent_extra="trainyard",
    )


class Bedrock:
    """One region. make_client: gives boto3's `bedrock` client; called with the first question, as getting
    credentials may fail like the question itself."""

    def __init__(self, make_client: Callable[[], Any], region: str) -> None:
        self.region = region
        self._make_client, self._client = make_client, None

    def offered(self, model_id: str, version: str) -> tuple[Offered, ...]:
        """All that Bedrock has of `model_id`, which is without its version. Raises BedrockUnavailable."""
        full = f"{model_id}-{version}"
        named = self._named(full)
        listed = [each for each in self._listed() if _is_of(each, model_id) and each.model_id != full]
        return (*named, *listed)

    def _named(self, full: str) -> list[Offered]:
        """The named one, or nothing: Bedrock's own word on whether it is there."""
        with self._asking(f"about {full}", "bedrock:GetFoundationModel") as client:
            from botocore.exceptions import ClientError

            try:
                return [_parse(client.get_foundation_model(modelIdentifier=full)["modelDetails"])]
            except ClientError as error:
                if not _says_no_such_model(error.response.get("Error", {})):
                    raise
                return []

    def _listed(self) -> list[Offered]:
        """Every model of the region; the API has no pages."""
        with self._asking("for its models", "bedrock:ListFoundationModels") as client:
            found = [_parse(each) for each in client.list_foundation_models()["modelSummaries"]]
        if not found:
            # No region with Bedrock is empty: an answer that was filtered or cut is none.
            raise BedrockUnavailable(
                f"Bedrock in {self.region} lists no model at all. Check the region (bedrock.region or "
                "TRAINYARD_REGION)."
            )
        return found

    @contextmanager
    def _asking(self, what: str, action: str) -> Iterator[Any]:
        """The client; whatever it raises becomes BedrockUnavailable."""
        import urllib3.exceptions
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        # The second row: a reply of another shape, such as a proxy's, over which botocore's parser trips.
        silences = (
            *(BotoCoreError, urllib3.exceptions.HTTPError, OSError),
            *(ResponseParserError, AttributeError, LookupError, TypeError, ValueError),
        )

        asked = f"Asked Bedrock in {self.region} {what}"
        try:
            self._client = self._client or self._make_client()
            yield self._client
        except ClientError as error:
            raise _silence(error.response, asked, action) from error
        except silences as error:
            raise BedrockUnavailable(
                f"{asked}: no answer ({type(error).__name__}: {error}). Check network, region and the "
                "credentials of the connection `aws_default`."
            ) from error


def _silence(response: dict[str, Any], asked: str, action: str) -> BedrockUnavailable:
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    status, code = int(metadata.get("HTTPStatusCode") or 0), str(error.get("Code", ""))
    remedy = "It is asked again."
    if status in (401, 403):
        remedy = f"Check the credentials of `aws_default`, and allow its role {action}."
    tries = int(metadata.get("RetryAttempts") or 0) + 1
    return BedrockUnavailable(
        f"{asked}: it said {status} {code}: {error.get('Message', '')} (after {tries} tries). {remedy}",
        retry_after=_seconds(metadata.get("HTTPHeaders", {}).get("retry-after")),
    )


def _says_no_such_model(error: dict[str, Any]) -> bool:
    code, message = error.get("Code"), str(error.get("Message", ""))
    # An id that Bedrock cannot even read is refused as invalid, not as missing.
    return code == "ResourceNotFoundException" or (
        code == "ValidationException" and "model identifier" in message
    )


def _parse(item: dict[str, Any]) -> Offered:
    """From a summary or details. Without a lifecycle the status is unknown, which is not ACTIVE."""
    lifecycle = item.get("modelLifecycle") or {}
    return Offered(item["modelId"], lifecycle.get("status") or "unknown", lifecycle.get("endOfLifeTime"))


def _is_of(offered: Offered, model_id: str) -> bool:
    parsed = parse_id(offered.model_id)
    return parsed is not None and parsed.base == model_id


def _seconds(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
