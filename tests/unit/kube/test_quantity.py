"""Quantities as Kubernetes writes them: the pattern of the CRDs is read, no more and no less."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.errors import Refused
from trainyard.kube.quantity import parse_quantity, whole, written

# The pattern of NodePool's spec.limits in Karpenter's own CRD.
CRD = (
    r"\A(\+|-)?(([0-9]{1,9}(\.[0-9]{0,6})?)|(\.[0-9]{1,6}))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]{1,2}))?\Z"
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[
            (16, 16),
            ("16", 16),
            ("64k", 64_000),
            ("1Ti", 2**40),
            ("2Gi", 2**31),
            ("1E", 10**18),
            ("1e3", 1000),
        ],
        *[
            ("1E3", 1000),
            ("0.5Ki", 512),
            ("-1", -1),
            ("+5", 5),
            (".5", Decimal("0.5")),
            ("500m", Decimal("0.5")),
        ],
    ],
)
def test_quantities_are_read_with_their_suffixes(text: object, number: object) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "x", "1 Gi", "1KiB", "1e", "--1", "NaN", "Infinity", None, True, "1_000", "٣"]
)
def test_what_is_no_quantity_is_refused(text: object) -> None:
    with pytest.raises(Refused, match="not a Kubernetes quantity"):
        parse_quantity(text)


@given(st.from_regex(CRD))
def test_whatever_the_api_server_takes_is_read(text: str) -> None:
    number = parse_quantity(text)
    assert parse_quantity(written(number)) == number


@given(st.text(max_size=20))
def test_no_text_does_anything_but_be_read_or_refused(text: str) -> None:
    try:
        parse_quantity(text)
    except Refused:
        pass


def test_things_that_cannot_be_split_are_rounded_down() -> None:
    assert (whole("1500m"), whole(None), whole("16")) == (1, 0, 16)
