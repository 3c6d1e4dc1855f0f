"""The compile job around the engine's tool (its stand-in) and a real S3: what is looked up, kept, cleaned."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from local.shims.versions import OPTIMUM, stack
from tests.local.shims.conftest import environment
from tests.support.compiles import HISTORY, KEY, Job, compiling, counts, log_of, modules
from tests.support.faulty_s3 import Rule, faulty_s3
from tests.support.seaweed import S3Server
from trainyard.errors import CompilerFailed, CompileStalled, LeaseHeld
from trainyard.jobs import command as command_module
from trainyard.jobs import compile as compile_job
from trainyard.jobs import compiler_run
from trainyard.store.blobs import put_blob
from trainyard.store.bundles import BundleManifest
from trainyard.store.compile_cache import CompileCache
from trainyard.store.compile_history import read_history
from trainyard.store.documents import encode
from trainyard.store.manifests import FileEntry
from trainyard.store.objects import Objects
from trainyard.store.staging import staged_result
from trainyard.store.writers import WriterLease


@pytest.fixture
def run(store: Objects, monkeypatch: pytest.MonkeyPatch) -> Callable[[Job], Job]:
    """The job in this process; its log goes to pytest."""
    monkeypatch.setattr(compile_job, "open_store", lambda _: store)
    monkeypatch.setattr(command_module, "CHECK_SECONDS", 0.05)
    return compile_job.run


def test_what_one_compile_made_the_next_one_takes(
    make: Callable[..., Job], run: Callable[[Job], Job], store: Objects, tmp_path: Path
) -> None:
    assert counts(run(make("one"))) == (2, 0, 0, 2)
    second = run(make("two", lookup={"command": ["no-such-tool"]}))
    assert counts(second) == (0, 2, 2, 0)
    # Ours comes before the Hub's, which is not asked.
    assert second["compile"]["hub"] == ""
    assert log_of(store, "two").count("Using a cached neff at") == 2
    assert (tmp_path / "one/out/model.pt").read_bytes() == (tmp_path / "two/out/model.pt").read_bytes()
    # Only the first one tells how long a compile takes.
    assert [(sample["attempt"], sample["outcome"]) for sample in read_history(store, HISTORY)] == [
        ("one", "good")
    ]
    staged = json.loads(store.get(staged_result(second["staging"])).body)
    assert staged["compile"] == second["compile"]


def test_a_failed_compile_is_not_shared_and_does_not_stop_the_next(
    make: Callable[..., Job], run: Callable[[Job], Job], store: Objects
) -> None:
    failing = make("one", faults={"compile_seconds": 0, "compile_exit": 70})
    with pytest.raises(CompilerFailed, match="NCC_INLA001"):
        run(failing)
    assert modules(store) == {}
    assert "NCC_INLA001" in log_of(store, "one")
    # The same disk again: a volume keeps what the failed one left.
    result = run(make("one"))
    assert counts(result) == (2, 0, 0, 2)
    assert result["compile"]["cache"]["poisoned"] == 1
    assert "Got a cached failed neff" not in log_of(store, "one")


def test_a_failure_in_a_cache_that_nobody_named_is_compiled_past(
    make: Callable[..., Job], run: Callable[[Job], Job], store: Objects, tmp_path: Path
) -> None:
    hidden = {"NEURON_CC_FLAGS": f"--cache_dir={tmp_path}/hidden"}
    with pytest.raises(CompilerFailed):
        run(make("one", faults={"compile_seconds": 0, "compile_exit": 70}, env=hidden))
    result = run(make("one", env=hidden))
    assert result["compile"]["retried"]
    assert counts(result)[0] == 2
    log = log_of(store, "one")
    assert "Got a cached failed neff at" in log
    assert "Compiler status PASS" in log


def test_a_lock_that_nobody_holds_is_told_and_not_waited_for(
    make: Callable[..., Job], run: Callable[[Job], Job], store: Objects, tmp_path: Path
) -> None:
    hidden = {"NEURON_CC_FLAGS": f"--cache_dir={tmp_path}/hidden"}
    run(make("one", env=hidden))
    for entry in (tmp_path / "hidden").glob("neuronxcc-*/MODULE_*"):
        (entry / "model.neff").unlink()
        (entry / "model.hlo_module.pb.lock").touch()
    with pytest.raises(CompileStalled, match="no compiler has run here"):
        run(make("two", env=hidden, stall_seconds=0.2))
    assert "Another process must be compiling" in log_of(store, "two")


def put_bundle(store: Objects) -> None:
    files = (FileEntry("config.json", 2, put_blob(store, b"{}")),)
    manifest = BundleManifest("f1", files, {}, "optimum", {}, "trn2", "", 1.0, None, False)
    store.put(manifest.key, encode(manifest.to_json()))


def test_a_bundle_that_is_there_ends_the_job_before_anything_is_compiled(
    make: Callable[..., Job], run: Callable[[Job], Job], store: Objects
) -> None:
    put_bundle(store)
    job = make("one", bundle="bundles/f1/manifest.json", command=["no-such-compiler"])
    assert run(job) == {"published": "bundles/f1/manifest.json"}


@pytest.fixture
def other(store: Objects) -> WriterLease:
    """Another pod that holds the key."""
    lease = WriterLease(store, CompileCache(store, KEY).writer_key, "other-release", 60.0)
    assert lease.acquire()
    return lease


def test_a_bundle_that_appears_ends_the_waiting(
    make: Callable[..., Job], run: Callable[[Job], Job], store: Objects, other: WriterLease
) -> None:
    publish = threading.Timer(0.3, partial(put_bundle, store))
    publish.start()
    assert "published" in run(make("one", bundle="bundles/f1/manifest.json", command=["no-such-compiler"]))
    publish.join()


def test_waiting_for_another_pod_has_an_end(
    make: Callable[..., Job], run: Callable[[Job], Job], other: WriterLease
) -> None:
    with pytest.raises(LeaseHeld, match="other-release still compiles") as caught:
        run(make("one", cache={"wait_seconds": 0.1}))
    assert caught.value.retry_after


def test_what_is_damaged_in_s3_is_compiled_and_kept_anew(
    make: Callable[..., Job], run: Callable[[Job], Job], store: Objects
) -> None:
    run(make("one"))
    cache = CompileCache(store, KEY)
    neff = next(file for file in cache.read().entries[0].files if file.path == "model.neff")
    store.put(cache.blob(neff.sha256), b"\0" * neff.size)
    result = run(make("two"))
    assert counts(result) == (1, 1, 1, 1)
    assert result["compile"]["cache"]["corrupt"] == 1
    assert counts(run(make("three"))) == (0, 2, 2, 0)


def test_a_store_that_refuses_the_cache_does_not_stop_a_compile(
    make: Callable[..., Job], s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_s3(s3_server.endpoint) as faulty:
        faulty.rules = [
            Rule("status", method, "compile-cache/|bundles/", 99, 403)
            for method in ("GET", "HEAD", "PUT", "DELETE")
        ]
        refusing = Objects(s3_server.client(endpoint_url=faulty.endpoint, attempts=1), bucket)
        monkeypatch.setattr(compile_job, "open_store", lambda _: refusing)
        assert counts(compile_job.run(make("one", bundle="bundles/f1/manifest.json"))) == (2, 0, 0, 0)
        assert any("compile-cache/" in line for line in faulty.seen)


def lookup_job(disk: Path, **more: str) -> Job:
    command = ["optimum-cli", "neuron", "cache", "lookup", "org/tiny", "--instance_type", "trn2"]
    return {"command": command, "env": environment(disk, **more)}


REGISTERED = {
    "batch_size": 4,
    "sequence_length": 1024,
    "tp_degree": 4,
    "torch_dtype": "bfloat16",
    "target": "trn2",
    "optimum_neuron_version": stack(OPTIMUM).optimum,
    "neuronxcc_version": stack(OPTIMUM).neuronxcc,
}
ECHO = ["python3", "-c", "import os; print('offline', os.environ.get('HF_HUB_OFFLINE')); open('o', 'w')"]


@pytest.mark.parametrize("outcome", ["hit", "miss", "unreachable"])
def test_a_hit_of_the_hubs_cache_lets_the_compiler_go_there(
    make: Callable[..., Job], run: Callable[[Job], Job], store: Objects, tmp_path: Path, outcome: str
) -> None:
    registered = tmp_path / "registry" / "org" / "tiny"
    registered.mkdir(parents=True)
    (registered / "a.json").write_text(json.dumps(REGISTERED))
    lookup = lookup_job(tmp_path, LOCAL_NEURON_CACHE_REGISTRY=str(tmp_path / "registry"))
    if outcome == "miss":
        shutil.rmtree(registered)
    if outcome == "unreachable":
        (registered / "a.json").write_text("{ half")
    echo = [*ECHO[:-1], ECHO[-1].replace("'o'", repr(str(tmp_path / "one" / "out" / "model.pt")))]
    result = run(make("one", command=echo, lookup=lookup))
    assert result["compile"]["hub"] == outcome
    assert f"offline {None if outcome == 'hit' else 1}\n" in log_of(store, "one")


def test_a_compile_that_outlasts_what_was_learned_is_stopped_and_remembered(
    make: Callable[..., Job],
    run: Callable[[Job], Job],
    store: Objects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_file = tmp_path / "compile-one.log"

    def monotonic() -> float:
        """No time passes until the compiler was called, then a lot."""
        return 100.0 * (log_file.exists() and "Call compiler" in log_file.read_text())

    monkeypatch.setattr(compiler_run, "time", SimpleNamespace(monotonic=monotonic))
    job = make("one", faults={"compile_seconds": 600}, deadline={"seconds": 0.8, "learned": True})
    with pytest.raises(CompileStalled, match="next try gets twice the time"):
        run(job)
    [sample] = read_history(store, HISTORY)
    assert (sample["outcome"], sample["seconds"]) == ("cut", 0.8)
    assert "Call compiler" in log_of(store, "one")
    # Nobody has to wait for it: the lease was given back.
    assert not compiling(store, "one")


def test_the_specs_own_deadline_is_final(make: Callable[..., Job], run: Callable[[Job], Job]) -> None:
    job = make("one", faults={"compile_seconds": 600}, deadline={"seconds": 0.5, "learned": False})
    with pytest.raises(CompilerFailed, match=r"compile\.deadline_minutes") as caught:
        run(job)
    assert caught.value.reason == "DeadlineExceeded"


def test_an_unfinished_graph_of_the_native_plugin_is_not_staged(
    make: Callable[..., Job], run: Callable[[Job], Job], tmp_path: Path
) -> None:
    root = tmp_path / "one" / "out" / "neuron" / "compile_cache"
    program = (
        "import pathlib\n"
        f"for name, done in (('{'a' * 32}', True), ('{'b' * 32}', False)):\n"
        f"    folder = pathlib.Path({str(root)!r}, name)\n"
        "    folder.mkdir(parents=True)\n"
        "    (folder / f'graph_{name}.neff').write_text('neff')\n"
        "    if done: (folder / '.compilation_complete').touch()\n"
    )
    job = make("one", command=["python3", "-c", program], cache={"kind": "vllm"}, expect=["*.neff"])
    result = run(job)
    assert result["files"] == 2
    assert result["compile"]["cache"]["broken"] == 1
