"""Real compile pods beside each other: one writer a key, also when it is killed or stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.compiles import KEY, Job, compiling, counts, log_of, modules
from tests.support.faulty_s3 import Faulty
from tests.support.pod import Pod
from tests.support.processes import kill_whole, left_of
from tests.support.waiting import wait_for
from trainyard.jobs.cache_hygiene import compiler_runs
from trainyard.jobs.runtime import EXIT_STOPPED, RESULT_PREFIX
from trainyard.store.compile_cache import CompileCache
from trainyard.store.objects import Objects


def result_of(output: str) -> Job:
    found: Job = json.loads(output.splitlines()[-1].removeprefix(RESULT_PREFIX))
    return found


def looks(faulty: Faulty, store: Objects) -> int:
    """How often a pod behind the proxy has looked who has the key."""
    wanted = f"GET /{store.bucket}/{CompileCache(store, KEY).writer_key}"
    return sum(line.startswith(wanted) for line in faulty.seen)


def test_of_two_pods_at_once_one_compiles_and_the_other_takes_its_result(
    pod: Pod, make: Callable[..., Job], store: Objects, faulty: Faulty, tmp_path: Path
) -> None:
    gate, job = tmp_path / "gate", make("one")
    waiting = f'while [ ! -e {gate} ]; do sleep 0.05; done; exec "$@"'
    first = pod.start("compile", {**job, "command": ["sh", "-c", waiting, "sh", *job["command"]]})
    wait_for(lambda: compiling(store, "one"))
    pod.environment["AWS_ENDPOINT_URL_S3"] = faulty.endpoint
    second = pod.start("compile", make("two"))
    wait_for(lambda: looks(faulty, store) >= 2)
    gate.touch()
    outputs = [process.communicate(timeout=180)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert counts(result_of(outputs[0])) == (2, 0, 0, 2)
    assert counts(result_of(outputs[1])) == (0, 2, 2, 0)
    assert result_of(outputs[1])["compile"]["cache"]["waited_for"] == "one"
    assert set(modules(store).values()) == {"one"}
    # The task's log is short, whatever the compiler said.
    assert len(outputs[1].splitlines()) < 30


def test_a_writer_that_is_killed_is_replaced_and_its_lock_removed(
    pod: Pod, make: Callable[..., Job], store: Objects, faulty: Faulty, tmp_path: Path
) -> None:
    volume = {"dir": str(tmp_path / "volume"), "shared": True}
    often = {**volume, "lease_seconds": 1.2}
    first = pod.start("compile", make("one", faults={"compile_seconds": 600}, cache=often))
    wait_for(lambda: list((tmp_path / "volume").rglob("*.lock")))
    pod.environment["AWS_ENDPOINT_URL_S3"] = faulty.endpoint
    second = pod.start("compile", make("two", cache=volume))
    wait_for(lambda: looks(faulty, store) >= 1)
    writer = CompileCache(store, KEY).writer_key
    seen = store.get(writer).etag
    wait_for(lambda: store.get(writer).etag != seen and looks(faulty, store) >= 2)
    assert second.poll() is None
    assert list((tmp_path / "volume").rglob("*.lock"))
    assert left_of(kill_whole(first.pid)) == []
    first.communicate()
    # A lease that ran out minutes ago: how long a silence is death is told by tests of the lease.
    store.put(writer, json.dumps({**json.loads(store.get(writer).body), "expires_at": 0.0}).encode())
    output, _ = second.communicate(timeout=180)
    assert second.returncode == 0, output
    told = result_of(output)["compile"]["cache"]
    assert (told["took_over"], told["stale_locks"], told["kept"]) == ("one", 1, 2)
    assert not list((tmp_path / "volume").rglob("*.lock"))


def test_a_pod_that_is_stopped_gives_the_key_back_and_keeps_its_log(
    pod: Pod, make: Callable[..., Job], store: Objects, tmp_path: Path
) -> None:
    process = pod.start("compile", make("one", faults={"compile_seconds": 600}))
    wait_for(lambda: compiler_runs(tmp_path / "one" / "cache" / KEY))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_STOPPED, output
    assert not compiling(store, "one")
    assert "Call compiler with cmd" in log_of(store, "one")
    assert "graphs: 0 compiled, 0 from the cache, 1 unfinished" in output
