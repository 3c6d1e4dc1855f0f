from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.apiserver.errors import ApiError
from local.apiserver.selectors import field_predicate, label_predicate, parse_labels, select_labels

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x", "y"]))


def matches(selector: str, labels: dict[str, str]) -> bool:
    predicate = label_predicate(selector)
    return predicate is None or predicate({"metadata": {"labels": labels}})


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("a", True),
        ("!a", False),
        ("a=x", True),
        ("a==x,b!=x", True),
        ("a in (x, y)", True),
        ("a notin (x,y)", False),
        ("missing notin (x)", True),
        ("missing!=x", True),
        ("n gt 3", True),
        ("n<3", False),
        ("b=", True),
    ],
)
def test_a_label_selector_chooses_as_documented(selector: str, chosen: bool) -> None:
    assert matches(selector, {"a": "x", "b": "", "n": "5"}) is chosen


@pytest.mark.parametrize("selector", ["a b c", "a in x", "a in (x", "=x", "a=b=c", "a,,b", "-bad=x", "a=-"])
def test_a_malformed_label_selector_is_a_bad_request(selector: str) -> None:
    with pytest.raises(ApiError) as error:
        parse_labels(selector)
    assert error.value.code == 400


@settings(max_examples=40)
@given(st.text(alphabet="ab=!,() innotgl<>", max_size=20))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        matches(text, {"a": "b"})
    except ApiError as error:
        assert error.code == 400  # noqa: PT017  any other exception fails the test


@settings(max_examples=40)
@given(LABELS, LABELS)
def test_matching_labels_mean_the_same_as_text_and_as_object(
    wanted: dict[str, str], labels: dict[str, str]
) -> None:
    text = ",".join(f"{k}={v}" for k, v in wanted.items())
    assert matches(text, labels) == select_labels({"matchLabels": wanted}, labels)


def test_a_field_selector_over_a_missing_field_sees_an_empty_string() -> None:
    predicate = field_predicate("spec.nodeName=", {"spec.nodeName": "spec.nodeName"})
    assert predicate is not None
    assert predicate({"spec": {}})
    assert not predicate({"spec": {"nodeName": "n"}})
