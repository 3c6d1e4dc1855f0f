"""What is read from a compiler's log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainyard.jobs.compiler_log import CompilerLog, Summary

ONE, TWO = "MODULE_56f0d314fda2b6e1e336+617f6939", "MODULE_ae92d68443828ba4e463+ad9e832d"
STAMP = "2026-09-11 14:10:14.000827:  11  INFO ||NEURON_CC_WRAPPER||: "
CACHE = "/var/tmp/neuron-compile-cache/neuronxcc-2.20.9961.0+0acef03a"
MD5 = "0123456789abcdef0123456789abcdef"


def read(*lines: tuple[float, str]) -> Summary:
    log = CompilerLog()
    for at, line in lines:
        log.take(line, at)
    return log.summary()


def call(module: str) -> str:
    work = f"/tmp/nxd_model/token_generation_model/_tp0_bk0/model.{module}"
    return (
        f"{STAMP}Call compiler with cmd: neuronx-cc compile --framework=XLA {work}.hlo_module.pb --output x"
    )


def test_a_graph_takes_from_its_call_to_its_pass() -> None:
    graph = read((10, call(ONE)), (12, "...."), (70, ".Compiler status PASS")).graphs[0]
    assert (graph.name, graph.key, graph.origin) == (ONE, "token_generation_model[0]", "compiled")
    assert graph.seconds == 60


def test_a_cached_graph_is_no_compiled_one() -> None:
    summary = read((0, f"{STAMP}Using a cached neff at {CACHE}/{ONE}/model.neff"))
    assert (summary.count("cache"), summary.count("compiled"), summary.from_scratch) == (1, 0, False)


def test_a_graph_that_another_process_finds_again_stays_compiled() -> None:
    hit = f"{STAMP}Using a cached neff at {CACHE}/{ONE}/model.neff"
    summary = read((0, call(ONE)), (9, "Compiler status PASS"), (10, hit))
    assert [graph.origin for graph in summary.graphs] == ["compiled"]
    assert summary.from_scratch


def test_a_graph_that_fails_says_why_by_its_number() -> None:
    summary = read(
        (0, call(ONE)),
        (1, "ERROR: something after it"),
        (2, "[ERROR] [NCC_INLA001] Unhandled exception with message: tensorizer"),
        (3, f"{STAMP}Compilation failed for /tmp/x/model.{ONE}.hlo_module.pb after 0 retries."),
    )
    assert [graph.origin for graph in summary.graphs] == ["failed"]
    assert summary.first_error is not None
    assert "NCC_INLA001" in summary.first_error


def test_a_failed_entry_is_named_by_its_path() -> None:
    line = (
        f"INFO ||NCC_WRAPPER||: Got a cached failed neff at {CACHE}/{ONE}/model.neff. Will skip compilation"
    )
    assert read((0, line), (1, line)).poisoned == (f"{CACHE}/{ONE}/model.neff",)


def test_waiting_begins_with_its_first_line_and_ends_with_work() -> None:
    log = CompilerLog()
    for minute in range(3):
        log.take(f"{STAMP}Another process must be compiling x, been waiting for: {minute}.0 minutes", minute)
    log.take("chatter of another rank", 5)
    assert log.waiting_since == 0
    log.take(call(TWO), 6)
    assert log.waiting_since is None


def test_the_native_plugins_lines_are_understood() -> None:
    other = MD5[::-1]
    summary = read(
        (0, f"(APIServer pid=1) INFO 09-11 [cache.py:166] Local cache miss for key: {MD5}"),
        (1, f"INFO [cache.py:166] Acquired compilation lock for cache: /pod/neuron/compile_cache/{MD5}"),
        (40, "INFO [cache.py:166] Compilation complete in 38.50 seconds"),
        (41, f"INFO [cache.py:166] Local cache hit for key: {other}"),
    )
    assert [(g.name, g.origin, g.seconds) for g in summary.graphs] == [
        (MD5, "compiled", 38.5),
        (other, "cache", None),
    ]


def test_warnings_are_counted_and_not_repeated() -> None:
    summary = read(*((0, f"WARNING layer {number}") for number in range(100)))
    assert summary.warnings == 100
    assert summary.lines() == ["graphs: 0 compiled, 0 from the cache; 100 warning(s), 0 error line(s)"]


PIECES = [
    call(ONE),
    call(TWO),
    "Compiler status PASS",
    f"Using a cached neff at {CACHE}/{TWO}/model.neff",
    f"Compilation failed for x/{ONE}.pb",
    f"Got a cached failed neff at {CACHE}/{ONE}/model.neff.",
    "Another process must be compiling",
    f"Acquired compilation lock for cache: {MD5}",
    "Compilation complete in 99999999999999999999 seconds",
    "Compilation complete in 1.5 seconds",
]


@given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "replace")))
)
def test_any_output_gives_a_summary_that_adds_up(lines: list[str]) -> None:
    log = CompilerLog()
    for number, line in enumerate(lines):
        log.take(line, float(number))
    summary = log.summary()
    assert sum(summary.count(origin) for origin in ("compiled", "cache", "failed", "unfinished")) == len(
        summary.graphs
    )
    assert len({graph.name for graph in summary.graphs}) == len(summary.graphs)
    assert all(graph.seconds is None or graph.seconds >= 0 for graph in summary.graphs)
    assert all(graph.seconds is not None for graph in summary.graphs if graph.origin == "compiled")
    assert summary.lines()
    assert summary.to_json()["compiled"] <= len(lines)
