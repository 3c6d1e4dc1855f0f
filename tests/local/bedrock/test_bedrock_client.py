"""What Bedrock says, through the real boto3 client: answers are facts, everything else is silence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.bedrock import LLAMA, LocalBedrock, legacy
from trainyard.bedrock import Bedrock
from trainyard.bedrock_policy import Offered
from trainyard.errors import BedrockUnavailable, TransientError

NAMED = f"{LLAMA}-v1:0"


def silence(bedrock: LocalBedrock, *rules: dict[str, Any], **config: Any) -> str:
    """Under these faults nothing is claimed; returns the words."""
    bedrock.offers(NAMED, rules=rules)
    with pytest.raises(BedrockUnavailable) as caught:
        bedrock.seam(**config).offered(LLAMA, "v1:0")
    assert isinstance(caught.value, TransientError)
    return str(caught.value)


def test_the_named_model_and_all_of_its_id_are_found(bedrock: LocalBedrock) -> None:
    bedrock.offers(NAMED, f"{NAMED}:128k", f"{LLAMA}-v2:0", "meta.llama3-1-70b-instruct-v1:0", "minimax.m2")
    found = bedrock.seam().offered(LLAMA, "v1:0")
    assert found == (Offered(NAMED), Offered(f"{NAMED}:128k"), Offered(f"{LLAMA}-v2:0"))


def test_a_lifecycle_is_read_with_its_end(bedrock: LocalBedrock) -> None:
    bedrock.offers(legacy(NAMED, "2027-01-31T12:00:00Z"), legacy(f"{LLAMA}-v0:1"))
    named, older = bedrock.seam().offered(LLAMA, "v1:0")
    assert (named.status, older.status, older.ends) == ("LEGACY", "LEGACY", None)
    assert named.ends == datetime(2027, 1, 31, 12, tzinfo=UTC)


def test_a_model_without_a_lifecycle_is_not_called_active(bedrock: LocalBedrock) -> None:
    bedrock.offers({"modelId": NAMED, "modelLifecycle": None})
    assert bedrock.seam().offered(LLAMA, "v1:0")[0].status == "unknown"


def test_a_version_that_is_not_there_is_an_answer(bedrock: LocalBedrock) -> None:
    bedrock.offers(f"{LLAMA}-v2:0")
    assert bedrock.seam().offered(LLAMA, "v1:0") == (Offered(f"{LLAMA}-v2:0"),)


def test_an_id_that_bedrock_calls_invalid_is_not_there(bedrock: LocalBedrock) -> None:
    assert bedrock.seam().offered(f"us.meta.{'x' * 70}", "v1:0") == ()


def test_another_validation_error_is_silence(bedrock: LocalBedrock) -> None:
    rule = {"operation": "GetFoundationModel", "error": "ValidationException", "message": "Malformed header."}
    assert "Malformed header." in silence(bedrock, rule)


def test_the_models_are_those_of_the_region(bedrock: LocalBedrock) -> None:
    bedrock.offers({"modelId": NAMED, "regions": ["us-west-2"]}, f"{LLAMA}-v0:1")
    assert bedrock.seam("us-west-2").offered(LLAMA, "v1:0")[0] == Offered(NAMED)
    assert bedrock.seam("us-east-2").offered(LLAMA, "v1:0") == (Offered(f"{LLAMA}-v0:1"),)


def test_two_hundred_models_come_without_pages(bedrock: LocalBedrock) -> None:
    others = [f"meta.other{number}-v1:0" for number in range(200)]
    bedrock.offers(*others, f"{LLAMA}-v2:0", NAMED)
    assert len(bedrock.client().list_foundation_models()["modelSummaries"]) == 202
    assert Offered(f"{LLAMA}-v2:0") in bedrock.seam().offered(LLAMA, "v1:0")


def test_a_region_that_lists_nothing_has_not_answered(bedrock: LocalBedrock) -> None:
    bedrock.offers()
    with pytest.raises(BedrockUnavailable, match=r"us-east-2 lists no model at all.*TRAINYARD_REGION"):
        bedrock.seam().offered(LLAMA, "v1:0")


@pytest.mark.parametrize("operation", ["GetFoundationModel", "ListFoundationModels"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("AccessDeniedException", "403 AccessDeniedException"),
        ("ThrottlingException", "429 ThrottlingException"),
        ("InternalServerException", "500 InternalServerException"),
        ("ServiceUnavailableException", "503 ServiceUnavailableException"),
        ("ExpiredTokenException", "403 ExpiredTokenException"),
        ("UnrecognizedClientException", "403 UnrecognizedClientException"),
    ],
)
def test_an_error_of_either_question_is_silence(
    bedrock: LocalBedrock, operation: str, error: str, words: str
) -> None:
    said = silence(bedrock, {"operation": operation, "error": error})
    assert words in said
    assert f"allow its role bedrock:{operation}" in said or "403" not in words


def test_a_denial_in_the_middle_of_a_look_is_silence(bedrock: LocalBedrock) -> None:
    """Found by one question, refused by the other: nothing is said of newer versions then."""
    said = silence(bedrock, {"operation": "ListFoundationModels", "error": "AccessDeniedException"})
    assert "is not authorized to perform: bedrock:ListFoundationModels" in said


def test_botocore_itself_repeats_what_is_throttled(bedrock: LocalBedrock) -> None:
    rule = {"operation": "GetFoundationModel", "error": "ThrottlingException", "count": 1}
    bedrock.offers(NAMED, rules=(rule,))
    assert bedrock.seam(attempts=2).offered(LLAMA, "v1:0") == (Offered(NAMED),)


def test_a_connection_that_breaks_is_silence(bedrock: LocalBedrock) -> None:
    assert "no answer (ConnectionClosedError" in silence(bedrock, {"drop": True})


def test_an_answer_that_takes_too_long_is_silence(bedrock: LocalBedrock) -> None:
    assert "no answer (ReadTimeoutError" in silence(bedrock, {"delay": 2}, read_seconds=0.2)


@pytest.mark.parametrize("body", ["", "{}", "null", "<html>Sign in</html>", '{"modelDetails": {}}', "[]"])
def test_a_page_of_somebody_else_is_silence(bedrock: LocalBedrock, body: str) -> None:
    silence(bedrock, {"status": 200, "body": body})


@pytest.mark.parametrize("status", [302, 404, 407, 502])
def test_a_status_of_somebody_else_is_silence(bedrock: LocalBedrock, status: int) -> None:
    """Also 404: only Bedrock's own exception says that a model is not there."""
    silence(bedrock, {"status": status, "body": "<html></html>"})


def test_nobody_at_the_address_is_silence(bedrock: LocalBedrock) -> None:
    nobody = LocalBedrock("http://127.0.0.1:9", bedrock.data)
    with pytest.raises(BedrockUnavailable, match=r"no answer \(EndpointConnectionError"):
        nobody.seam().offered(LLAMA, "v1:0")


def test_missing_credentials_are_silence(bedrock: LocalBedrock) -> None:
    from botocore.exceptions import NoCredentialsError

    def make_client() -> Any:
        raise NoCredentialsError

    with pytest.raises(BedrockUnavailable, match="credentials of the connection `aws_default`"):
        Bedrock(make_client, "us-east-2").offered(LLAMA, "v1:0")
