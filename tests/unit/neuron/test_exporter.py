"""The exporter's text: what it says is read, what it leaves out is not invented, and its ECC is no proof."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.exporter import idle, scrape
from trainyard.neuron.exporter import parse_samples, parse_scrape
from trainyard.neuron.health import Expected, judge
from trainyard.neuron.readings import Reading


def read(text: str, at: float = 0.0) -> Reading:
    found = parse_scrape(text, at)
    assert found is not None
    return found


def health(*texts: str, **expected: Any) -> tuple[str, str]:
    readings = [read(text, 10.0 * place) for place, text in enumerate(texts)]
    found = judge(readings, Expected(**{"devices": 2, **expected}))
    return found.state, "; ".join(found.reasons)


def test_a_scrape_says_what_the_json_would() -> None:
    found = read(scrape(ecc={(1, "sram_ecc_uncorrected"): 3, (1, "mem_ecc_uncorrected"): 4}, hardware=2))
    assert (found.devices, found.cores_per_device, found.runtimes) == (2, 4, 1)
    assert found.ecc == {0: 0, 1: 7}
    assert found.errors["hardware"] == 2
    assert found.utilization_percent == pytest.approx(40)
    assert found.memory_bytes == 12_000_000_000


def test_a_node_that_serves_without_errors_is_healthy() -> None:
    assert health(scrape(), scrape(vcpu=0.2)) == ("healthy", "")


def test_an_idle_exporter_is_unknown_and_never_healthy() -> None:
    state, words = health("\n".join(idle()), "\n".join(idle()))
    assert state == "unknown"
    assert "no Neuron runtime is running" in words
    assert "no hardware counters were reported" in words
    assert health("\n".join(idle()), "\n".join(idle()), runtime=False)[0] == "unknown"


def test_an_exporter_that_stands_still_is_unknown() -> None:
    state, words = health(scrape(), scrape())
    assert state == "unknown"
    assert "the very same each time" in words


def test_ecc_that_grows_is_a_doubt_and_no_proof_because_the_exporter_over_counts() -> None:
    old = {(0, "mem_ecc_uncorrected"): 5.0}
    state, words = health(scrape(ecc=old), scrape(ecc={(0, "mem_ecc_uncorrected"): 10.0}, vcpu=0.2))
    assert state == "unknown"
    assert "device 0: the Prometheus exporter counts 5 ECC event(s), which may be old" in words
    corrected = {(0, "mem_ecc_corrected"): 5.0}
    assert health(scrape(), scrape(ecc=corrected, vcpu=0.2))[0] == "healthy"


@pytest.mark.parametrize("kind", ["hardware", "runtime", "numerical"])
def test_errors_count_as_they_grow_not_as_they_stand(kind: str) -> None:
    assert health(scrape(**{kind: 3}), scrape(**{kind: 3}, vcpu=0.2)) == ("healthy", "")
    assert health(scrape(**{kind: 3}), scrape(**{kind: 5}, vcpu=0.2)) == (
        "sick",
        f"2 {kind} error(s) in the Neuron runtime",
    )


def test_a_counter_that_began_anew_still_counts() -> None:
    assert health(scrape(hardware=3), scrape(hardware=1, vcpu=0.2))[0] == "sick"


def test_an_execution_that_timed_out_is_sick() -> None:
    assert health(scrape(), scrape(timed_out=1, vcpu=0.2)) == ("sick", "1 execution(s) timed out")


def test_memory_headroom_needs_to_be_told_how_much_there_is() -> None:
    texts = scrape(), scrape(vcpu=0.2)
    state, words = health(*texts, least_free_memory=0.5)
    assert (state, words) == (
        "unknown",
        "the Prometheus exporter does not tell how much device memory is free",
    )
    assert health(*texts, least_free_memory=0.5, device_memory_bytes=96 * 10**9)[0] == "healthy"
    state, words = health(*texts, least_free_memory=0.5, device_memory_bytes=10**10)
    assert (state, words) == ("sick", "40.0% of the device memory is free, 50.0% have to be")


def test_utilisation_has_to_lie_in_its_window() -> None:
    texts = scrape(), scrape(vcpu=0.2)
    assert health(*texts, utilization=(30, 50))[0] == "healthy"
    assert health(*texts, utilization=(50, 90)) == (
        "sick",
        "the cores are used at 40.0 %, expected are 50 to 90 %",
    )
    assert "no utilisation" in health("\n".join(idle()), "\n".join(idle()), utilization=(0, 1))[1]


def test_the_text_of_another_exporter_is_no_reading() -> None:
    assert parse_scrape("# TYPE up gauge\nup 1\n", 0.0) is None
    assert parse_scrape("<html>", 0.0) is None


LABELS = st.dictionaries(st.from_regex(r"\A[a-zA-Z_][a-zA-Z0-9_]{0,8}\Z"), st.text(max_size=12), max_size=4)
VALUES = st.floats(allow_nan=False)


def written(name: str, labels: dict[str, str], value: float, stamp: int | None) -> str:
    """As the exposition format says it."""

    def escaped(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    inside = ",".join(f'{key}="{escaped(each)}"' for key, each in labels.items())
    number = {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value, repr(value))
    return f"{name}{{{inside}}} {number}" + (f" {stamp}" if stamp is not None else "")


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"\A[a-zA-Z_:][a-zA-Z0-9_:]{0,10}\Z"),
            LABELS,
            VALUES,
            st.none() | st.integers(0, 2**40),
        ),
        max_size=5,
    )
)
def test_whatever_was_written_is_read_back(
    lines: list[tuple[str, dict[str, str], float, int | None]],
) -> None:
    text = "\n".join(["# HELP x y", *(written(*each) for each in lines), ""])
    found = [(each.name, each.labels, each.value) for each in parse_samples(text)]
    assert found == [(name, labels, value) for name, labels, value, _ in lines]


@given(st.text() | st.text(alphabet='ab_{}="\\,# \n\t0123456789.+-eNanIf'))
def test_no_text_raises(text: str) -> None:
    list(parse_samples(text))
    parse_scrape(text, 0.0)


@given(st.data())
def test_a_scrape_with_lines_lost_or_garbled_never_looks_better(data: st.DataObject) -> None:
    bad = scrape(hardware=1, vcpu=0.2).split("\n")
    place = data.draw(st.integers(0, len(bad) - 1))
    new = data.draw(
        st.sampled_from(["", "x", 'neuron_hardware_info{neuron_device_count="9e99"} NaN', "a 1e999"])
    )
    bad[place] = new
    first, second = read(scrape(), 0.0), parse_scrape("\n".join(bad), 10.0)
    readings = [each for each in (first, second) if each is not None]
    lost_the_error = "hardware" in scrape(hardware=1, vcpu=0.2).split("\n")[place]
    assert judge(readings, Expected(devices=2)).state != "healthy" or lost_the_error
