"""The kubelet's pure parts: path rewriting, expansion, logs, devices, thresholds, phases."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.kubelet.addresses import Addresses
from local.kubelet.devices import Devices
from local.kubelet.environment import expand
from local.kubelet.images import ImageTable, full_reference
from local.kubelet.logs import ContainerLog, LogOptions, nano_stamp, parse_time, read_log, tail_offset
from local.kubelet.paths import PathMap, safe_join
from local.kubelet.probes import Probe, Verdict
from local.kubelet.status import ContainerState, PodState, phase

ROOT = Path(__file__).parents[3]
PATHS = PathMap({"/models": Path("/h/m"), "/models/cache": Path("/h/c"), "/tmp": Path("/h/t")})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/models", "/h/m"),
        ("/models/x", "/h/m/x"),
        ("--out=/models/x", "--out=/h/m/x"),
        ("/models/cache/y", "/h/c/y"),
        ('{"a": "/models/x", "b": ["/tmp/y"]}', '{"a": "/h/m/x", "b": ["/h/t/y"]}'),
        ("cp /models/a /tmp/b; ls /models", "cp /h/m/a /h/t/b; ls /h/m"),
        ("/usr/bin:/models/bin", "/usr/bin:/h/m/bin"),
        ("file:///models/x", "file:///h/m/x"),
        ("s3://models/x", "s3://models/x"),
        ("http://host:8000/models/x", "http://host:8000/models/x"),
        ("http://host/v1/models", "http://host/v1/models"),
        ("/data/models", "/data/models"),
        ("/models-old/x", "/models-old/x"),
        ("/models.bak", "/models.bak"),
        ("see /models.", "see /h/m."),
        ("${HOME}/models", "${HOME}/models"),
        ("/var/tmp/x", "/var/tmp/x"),
    ],
)
def test_mount_paths_are_rewritten_at_path_boundaries_only(text: str, expected: str) -> None:
    assert PATHS.rewrite(text) == expected


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="ab/.-= \"':,", max_size=40))
def test_rewriting_is_undone_by_rewriting_back(text: str) -> None:
    there = PathMap({"/a": Path("/Q")})
    back = PathMap({"/Q": Path("/a")})
    assert back.rewrite(there.rewrite(text)) == text


def test_a_path_out_of_its_volume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leads out"):
        safe_join(tmp_path, "../other")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("x$(A)y$(A)", "x1y1"),
        ("$A $", "$A $"),
        ("$$$(A)", "$1"),
    ],
)
def test_variables_expand_as_kubernetes_expands_them(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet="xy", max_size=5), max_size=30), st.integers(0, 35), st.booleans())
def test_the_tail_begins_where_the_last_lines_begin(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], wanted: int, ended: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "tail"
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    file.write_bytes(text.encode())
    rest = text[tail_offset(file, wanted) :]
    assert rest.splitlines() == (text.splitlines()[-wanted:] if wanted else [])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 4 * 10**18))
def test_stamps_keep_nanoseconds(moment: int) -> None:
    assert parse_time(nano_stamp(moment).encode()) == moment


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=50), max_size=20))
async def test_a_log_gives_back_what_was_written_whatever_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("log") / "0.log"
    log = ContainerLog(path)
    for piece in pieces:
        log.write("stdout", piece)
    log.close()
    assert b"".join([chunk async for chunk in read_log(path, log, LogOptions(follow=True))]) == b"".join(
        pieces
    )


def test_devices_are_held_once_and_init_containers_lend_theirs() -> None:
    devices = Devices(4)
    assert devices.allocate("p", "prepare", 2, init=True) == [0, 1]
    assert devices.allocate("p", "main", 3) == [0, 1, 2]
    assert devices.allocate("p", "main", 3) == [0, 1, 2]
    with pytest.raises(RuntimeError, match="Requested: 2, Available: 1"):
        devices.allocate("q", "main", 2)
    devices.release("p")
    assert devices.allocate("q", "main", 2) == [0, 1]


def test_two_clusters_on_one_machine_do_not_begin_with_the_same_address() -> None:
    taken = {Addresses("127.64.0.0/12", root).take() for root in ("one", "two", "three", "four")}
    assert len(taken) == 4
    assert Addresses("127.64.0.0/12", "one").take() in taken
    small = Addresses("127.64.0.0/29", "any")
    assert len({small.take() for _ in range(5)}) == 5


def test_addresses_are_not_reused_at_once_and_run_out_in_words() -> None:
    addresses = Addresses("127.64.0.0/29")
    first = addresses.take()
    addresses.give_back(first)
    assert addresses.take() != first
    assert addresses.take("10.0.0.1") not in ("10.0.0.1", first)
    for _ in range(3):
        addresses.take()
    with pytest.raises(RuntimeError, match="no free pod address"):
        addresses.take()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), max_size=30), st.integers(1, 3), st.integers(1, 4))
def test_a_probe_s_verdict_changes_only_after_its_threshold_in_a_row(
    results: list[bool], success: int, failure: int
) -> None:
    verdict = Verdict(Probe({}, success=success, failure=failure))
    for index, good in enumerate(results, 1):
        verdict.count(good)
        needed = success if good else failure
        if len(set(results[max(0, index - needed) : index])) == 1 and index >= needed:
            assert verdict.settled is good
        elif verdict.settled is not None:
            assert verdict.settled is not good or index > needed


@pytest.mark.parametrize(
    ("image", "path"),
    [
        (
            "763104351884.dkr.ecr.us-east-2.amazonaws.com/huggingface-vllm-inference-neuronx:0.11.0",
            "local/shims/bin",
        ),
        ("public.ecr.aws/neuron/pytorch-inference-vllm-neuronx:0.24.0.1.1.0-neuronx", "local/shims/bin"),
        ("ghcr.io/huggingface/text-generation-inference:3.0-neuron", "local/shims/bin"),
    ],
)
def test_neuron_images_bring_the_shims_and_no_trainyard(image: str, path: str) -> None:
    found = ImageTable.load(ROOT / "local" / "kubelet" / "images.yaml", ROOT).find(image)
    assert found is not None
    assert found.path == (ROOT / path,)
    assert found.pythonpath == ()


def test_the_job_image_holds_the_package_and_strangers_do_not_exist() -> None:
    table = ImageTable.load(ROOT / "local" / "kubelet" / "images.yaml", ROOT)
    for name in ("trainyard-jobs:1.0", "registry.example/team/trainyard-jobs:abc"):
        found = table.find(name)
        assert found is not None
        assert found.pythonpath == (ROOT / "include",)
    assert table.find("registry.example/other:1") is None
    assert table.find("ghcr.io/huggingface/text-generation-inference:3.0") is None


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("team/app:1", "docker.io/team/app:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("a.b/c@sha256:00", "a.b/c@sha256:00"),
    ],
)
def test_references_are_spelled_out_as_containerd_does(short: str, full: str) -> None:
    assert full_reference(short) == full


def ended(name: str, code: int) -> ContainerState:
    state = ContainerState(name, "x")
    state.end({"exitCode": code})
    state.done = True
    return state


def running(name: str) -> ContainerState:
    state = ContainerState(name, "x")
    state.run("local://1")
    return state


@pytest.mark.parametrize(
    ("init", "main", "sidecars", "expected"),
    [
        ([], [ContainerState("a", "x")], (), "Pending"),
        ([], [running("a"), ended("b", 0)], (), "Running"),
        ([], [ended("a", 0), ended("b", 0)], (), "Succeeded"),
        ([], [ended("a", 0), ended("b", 1)], (), "Failed"),
        ([ended("i", 1)], [ContainerState("a", "x")], (), "Failed"),
        ([running("s")], [ended("a", 0)], ("s",), "Running"),
        ([ended("s", 143)], [ended("a", 0)], ("s",), "Succeeded"),
    ],
)
def test_the_phase_follows_the_containers(
    init: list[ContainerState], main: list[ContainerState], sidecars: tuple[str, ...], expected: str
) -> None:
    assert phase(PodState(init, main, frozenset(sidecars)), "Never") == expected
