from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import provenance, registry, results
from benchmarks.model import Bar, Benchmark, Figure, NotMeasured, Options, compared
from benchmarks.statistics import Pair, spread

PAIRS = [Pair(1.2, 1.0), Pair(2.2, 2.0), Pair(1.0, 1.0)]


def bench(name: str = "some", seconds: float = 10) -> Benchmark:
    return Benchmark(name, "It is quick.", "something slow", seconds, lambda options: [])


def test_a_result_has_the_fields_that_every_reader_needs(tmp_path: Path) -> None:
    figures = compared("reading", "s", "peer", PAIRS, Bar("<=", 1.3))
    written = json.loads(results.write(tmp_path, results.document(bench(), figures, 0.5)).read_text())
    assert {"name", "value", "unit", "bar", "met", "peer", "repeats", "command"} <= set(written)
    assert (written["value"], written["unit"], written["bar"], written["met"]) == (
        1.1,
        "ratio",
        "<= 1.3",
        True,
    )
    assert written["repeats"] == 3
    assert written["command"] == "python -m benchmarks --only some"
    assert written["figures"][0]["least"] == 1.0
    assert (tmp_path / "some.json").exists()


def test_a_result_says_of_which_code_it_is_by_what_and_with_which_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINYARD_BENCH_MIB", "256")
    monkeypatch.setenv("TRAINYARD_PEERS", str(tmp_path))  # a place of this machine
    found = results.document(
        bench(), compared("reading", "s", "peer", PAIRS, None), 0.5, pairs=7, versions={"GuideLLM": "0.8.1"}
    )
    assert found["command"] == "python -m benchmarks --only some --pairs 7"
    assert found["settings"] == {"TRAINYARD_BENCH_MIB": "256"}
    assert found["versions"]["GuideLLM"] == "0.8.1"
    assert {"locust", "numpy"} <= set(found["versions"])
    assert {"cores", "architecture", "processor", "system", "python", "load"} == set(found["machine"])


def test_a_result_of_changed_files_does_not_say_that_it_is_of_the_commit(tmp_path: Path) -> None:
    assert provenance.commit(tmp_path) is None

    def git(*words: str) -> None:
        user = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *user, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "one")
    git("tag", "v1")
    clean = provenance.commit(tmp_path)
    assert clean is not None
    assert len(clean) == 12
    (tmp_path / "file").write_text("two")
    assert provenance.commit(tmp_path) == f"{clean}-dirty"


@pytest.mark.parametrize(
    ("words", "code"),
    [([], 0), (["--strict"], 1), (["--only", "broken"], 2), (["--only", "missed", "--only", "broken"], 2)],
)
def test_a_missed_bar_is_shown_and_ends_with_one_only_where_that_was_asked_for(
    words: list[str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    missed = Figure("figure", "s", spread([3.0]), Bar("<=", 2))

    def broken(options: Options) -> list[Figure]:
        raise NotMeasured("there is no server")

    known = [
        Benchmark("missed", "It is quick.", "a limit", 1, lambda options: [missed]),
        Benchmark("broken", "It runs.", "a limit", 61, broken),
    ]
    monkeypatch.setattr(registry, "benchmarks", lambda: known)
    monkeypatch.setattr(command, "REPOSITORY", tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmarks", *words])
    assert command.main() == code
    printed = capsys.readouterr()
    if code != 2 or len(words) > 2:
        assert "NO" in printed.out
        assert json.loads((tmp_path / "build" / "bench" / "missed.json").read_text())["met"] is False
    assert ("there is no server" in printed.err) == (code == 2)
    assert not (tmp_path / "build" / "bench" / "broken.json").exists()


def test_a_result_names_no_place_of_this_machine() -> None:
    figures = compared("reading", "s", "peer", PAIRS, None)
    assert str(Path.home()) not in json.dumps(results.document(bench(), figures, 0.5))


def test_one_missed_bar_means_not_met_and_figures_without_a_bar_do_not_count() -> None:
    good = Figure("good", "s", spread([1.0]), Bar("<=", 2))
    bad = Figure("bad", "s", spread([3.0]), Bar("<=", 2))
    plain = Figure("plain", "s", spread([9.0]))
    assert results.document(bench(), [good, plain], 0)["met"] is True
    assert results.document(bench(), [good, plain, bad], 0)["met"] is False


@pytest.mark.parametrize(
    ("bar", "value", "met"), [("<=", 1.0, True), ("<=", 1.1, False), (">=", 1.0, True), (">=", 0.9, False)]
)
def test_a_bar_says_on_which_side_of_it_is_good(bar: str, value: float, met: bool) -> None:
    assert Bar(bar, 1.0).met(value) is met  # type: ignore[arg-type]


def test_the_short_run_takes_what_is_under_a_minute_and_fits_into_five() -> None:
    known = [bench("long", 60), *(bench(f"b{number}", 59) for number in range(6)), bench("quick", 1)]
    chosen = registry.select(known)
    assert [benchmark.name for benchmark in chosen] == ["quick", "b0", "b1", "b2", "b3", "b4"]
    assert registry.select(known, full=True) == known
    assert [benchmark.name for benchmark in registry.select(known, only=["long"])] == ["long"]


def test_a_name_that_no_benchmark_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(registry.UnknownBenchmark, match="no benchmark parse; there are: some"):
        registry.select([bench()], only=["parse"])


def test_every_file_of_the_suite_is_a_benchmark_of_its_own_name() -> None:
    found = registry.benchmarks()
    assert [benchmark.name for benchmark in found] == sorted({benchmark.name for benchmark in found})
    assert {"control-plane", "dag-parse"} <= {benchmark.name for benchmark in found}
    assert all(benchmark.claim.endswith(".") for benchmark in found)
