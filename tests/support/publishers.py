"""Publishers of one fingerprint as processes of their own, all let loose at once.

    python -m tests.support.publishers COUNT BUCKET

Each publishes what is staged as `try<number>`; prints one line a process: `created` or `adopted`, and the
digest of the first file of the bundle that stands.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.synchronize import Barrier

from tests.support.bundles import FINGERPRINT, publish_staged
from trainyard.store import keys
from trainyard.store.objects import Objects, client


def publish(number: int, store: Objects, together: Barrier) -> None:
    together.wait(120)
    found = publish_staged(store, keys.staging(FINGERPRINT, f"try{number}"))
    how = "created" if found.created else "adopted"
    sys.stdout.write(f"{how} {found.manifest.files[0].sha256}\n")
    sys.stdout.flush()


def main() -> int:
    count = int(sys.argv[1])
    # Forked, with a client that has no connection yet: twenty that import boto3 would be most of the test.
    store = Objects(client(), sys.argv[2])
    context = multiprocessing.get_context("fork")
    together = context.Barrier(count)
    processes = [context.Process(target=publish, args=(n, store, together)) for n in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return max(abs(process.exitcode or 0) for process in processes)


if __name__ == "__main__":
    sys.exit(main())
