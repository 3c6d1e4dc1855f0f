"""Prices: the table names its date and source; one's own is checked, and replaces it."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.errors import Refused
from trainyard.neuron.instances import INSTANCES
from trainyard.neuron.prices import TABLE, parse_prices


def test_every_instance_type_has_a_price_and_those_that_nobody_published_say_so() -> None:
    assert set(TABLE.rows) == set(INSTANCES)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", TABLE.date)
    assert {name for name, price in TABLE.rows.items() if not price.checked} == {"trn2u.48xlarge"}
    assert {price.sold for name, price in TABLE.rows.items() if name.startswith("trn2")} == {"capacity-block"}


def test_a_price_is_said_with_how_and_where_it_is_sold() -> None:
    assert TABLE.rows["trn1.32xlarge"].words == "$21.50 an hour (on-demand, us-east-1)"
    assert TABLE.rows["trn2u.48xlarge"].words == "$35.76 an hour (capacity-block, us-east-2, unverified)"


def test_a_table_of_ones_own_replaces_the_other_altogether() -> None:
    found = parse_prices(
        {
            "date": "2026-11-01",
            "source": "our contract",
            "region": "eu-north-1",
            "prices": {
                "trn2.48xlarge": 20,
                "inf2.xlarge": {"dollars": 0.3, "sold": "spot", "region": "us-west-2"},
            },
        },
        "prices.yaml",
    )
    assert (found.date, found.source) == ("2026-11-01", "our contract")
    assert found.rows["trn2.48xlarge"].words == "$20.00 an hour (on-demand, eu-north-1)"
    assert found.rows["inf2.xlarge"].words == "$0.30 an hour (spot, us-west-2)"
    assert found.of("trn1.32xlarge") is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "an object with `prices`"),
        ([], "an object with `prices`"),
        ({"prices": [1]}, "an object with `prices`"),
        ({"prices": {"p5.48xlarge": 98}}, "no Neuron instance type"),
        ({"prices": {"inf2.xlarge": 0}}, "positive number"),
        ({"prices": {"inf2.xlarge": -1}}, "positive number"),
        ({"prices": {"inf2.xlarge": math.inf}}, "positive number"),
        ({"prices": {"inf2.xlarge": True}}, "positive number"),
        ({"prices": {"inf2.xlarge": "0.75"}}, "positive number"),
        ({"prices": {"inf2.xlarge": {"dollars": 1, "sold": "gift"}}}, "on-demand, capacity-block"),
        ({"prices": {"inf2.xlarge": {"dollars": 1, "euros": 1}}}, "positive number"),
        ({"prices": {}, "currency": "EUR"}, "no such field"),
    ],
)
def test_a_table_that_is_none_is_refused(document: Any, words: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_prices(document, "prices.yaml")
    assert words in str(caught.value)
    assert "prices.yaml" in str(caught.value)


_KEYS = st.text() | st.sampled_from(["prices", "inf2.xlarge", "dollars", "date"])
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(_KEYS, part),
)


@settings(max_examples=60)
@given(_ANYTHING)
def test_nothing_but_a_refusal_comes_of_what_is_no_table(document: Any) -> None:
    try:
        found = parse_prices(document, "file")
    except Refused:
        return
    assert all(0 < price.dollars < math.inf for price in found.rows.values())
