"""The stand-in speaks as Bedrock does, as far as boto3 and its model of the service can tell."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from tests.support.bedrock import LLAMA, LocalBedrock, legacy

NAMED = f"{LLAMA}-v1:0"


def test_answers_have_the_shapes_of_the_service_model(bedrock: LocalBedrock) -> None:
    bedrock.offers(NAMED, legacy(f"{LLAMA}-v0:1", "2027-01-31T12:00:00Z"))
    client = bedrock.client()
    answers = {
        "ListFoundationModels": client.list_foundation_models(),
        "GetFoundationModel": client.get_foundation_model(modelIdentifier=NAMED),
    }
    for operation, answer in answers.items():
        answer.pop("ResponseMetadata")
        shape = client.meta.service_model.operation_model(operation).output_shape
        assert not ParamValidator().validate(answer, shape).has_errors()
    (first, _), details = answers["ListFoundationModels"]["modelSummaries"], answers["GetFoundationModel"]
    assert first == details["modelDetails"]
    members = client.meta.service_model.shape_for("FoundationModelSummary").members
    assert set(members) >= set(first) >= {"modelArn", "modelId", "modelLifecycle", "providerName"}


def test_a_model_is_found_by_its_arn(bedrock: LocalBedrock) -> None:
    client = bedrock.client()
    arn = client.list_foundation_models()["modelSummaries"][0]["modelArn"]
    assert arn == f"arn:aws:bedrock:us-east-2::foundation-model/{NAMED}"
    assert client.get_foundation_model(modelIdentifier=arn)["modelDetails"]["modelId"] == NAMED


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"byProvider": "Meta"}, 1),
        ({"byProvider": "Amazon"}, 1),
        ({"byProvider": "Nobody"}, 0),
        ({"byOutputModality": "EMBEDDING"}, 1),
        ({"byInferenceType": "PROVISIONED"}, 1),
        ({"byCustomizationType": "FINE_TUNING"}, 0),
        ({"byProvider": "Amazon", "byOutputModality": "TEXT"}, 0),
    ],
)
def test_the_list_is_filtered_as_asked(bedrock: LocalBedrock, asked: dict[str, str], found: int) -> None:
    titan = {"modelId": "amazon.titan-embed-text-v2:0", "outputModalities": ["EMBEDDING"]}
    bedrock.offers(NAMED, {**titan, "inferenceTypesSupported": ["PROVISIONED"]})
    assert len(bedrock.client().list_foundation_models(**asked)["modelSummaries"]) == found


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("AccessDeniedException", 403),
        ("InternalServerException", 500),
        ("ResourceNotFoundException", 404),
        ("ThrottlingException", 429),
        ("ValidationException", 400),
    ],
)
def test_errors_are_those_of_the_service_model(bedrock: LocalBedrock, error: str, status: int) -> None:
    bedrock.offers(NAMED, rules=({"error": error},))
    client = bedrock.client(attempts=1)
    with pytest.raises(getattr(client.exceptions, error)) as caught:
        client.get_foundation_model(modelIdentifier=NAMED)
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (error, status)
    assert response["Error"]["Message"]
    (shape,) = [
        shape
        for shape in client.meta.service_model.operation_model("GetFoundationModel").error_shapes
        if shape.name == error
    ]
    assert shape.metadata["error"]["httpStatusCode"] == status


def test_unknown_and_malformed_identifiers_are_told_apart(bedrock: LocalBedrock) -> None:
    client = bedrock.client(attempts=1)
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="Could not resolve"):
        client.get_foundation_model(modelIdentifier=f"{LLAMA}-v9:0")
    with pytest.raises(client.exceptions.ValidationException, match="identifier is invalid"):
        client.get_foundation_model(modelIdentifier="no model")


def test_a_rule_is_used_as_often_as_it_says_and_the_file_is_read_each_time(bedrock: LocalBedrock) -> None:
    client = bedrock.client(attempts=1)
    rule = {"operation": "ListFoundationModels", "error": "InternalServerException", "count": 2, "note": "x"}
    bedrock.offers(NAMED, rules=(rule,))
    statuses: list[Any] = []
    for _ in range(3):
        try:
            statuses.append(len(client.list_foundation_models()["modelSummaries"]))
        except ClientError as error:
            statuses.append(error.response["Error"]["Code"])
    assert statuses == ["InternalServerException"] * 2 + [1]
    bedrock.offers(NAMED, f"{LLAMA}-v2:0")
    assert len(client.list_foundation_models()["modelSummaries"]) == 2


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, "MissingAuthenticationTokenException"),
        ({"Authorization": "Bearer x"}, "UnrecognizedClientException"),
    ],
)
def test_who_does_not_sign_is_refused(bedrock: LocalBedrock, headers: dict[str, str], error: str) -> None:
    answer = requests.get(f"{bedrock.endpoint}/foundation-models", headers=headers, timeout=60)
    assert answer.status_code == 403
    assert answer.headers["x-amzn-ErrorType"].split(":")[0] == error


def test_other_operations_are_unknown(bedrock: LocalBedrock) -> None:
    with pytest.raises(ClientError, match="UnknownOperationException"):
        bedrock.client(attempts=1).list_guardrails()
