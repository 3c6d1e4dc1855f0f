"""preStop of a server: waits until it has nothing in flight, because vLLM before 0.18 cuts streams when told
to stop.

    python trainyard.pyz quiesce --port 8000 --seconds 120 --gauges NAME,NAME

Two seconds at least: for so long Services and Gateways may still send what they have not heard of. A server
whose figures cannot be read is waited for to the end, since nothing says that it is idle.
"""

from __future__ import annotations

import time

from trainyard.jobs.options import parse
from trainyard.jobs.pages import metrics_page, own_address

USAGE = "usage: quiesce --port PORT --seconds SECONDS --gauges NAME[,NAME] [--host ADDRESS]"
WITHDRAWAL_SECONDS = 2.0
POLL_SECONDS = 0.5


def main(arguments: list[str]) -> int:
    """0 when it is idle or time is up, 2 if called wrongly."""
    given = parse(arguments, {"host": own_address(), "port": "", "seconds": "", "gauges": ""})
    if given is None or not given["port"] or not given["seconds"] or not given["gauges"]:
        print(USAGE)
        return 2
    began = time.monotonic()
    end = began + float(given["seconds"])
    time.sleep(min(WITHDRAWAL_SECONDS, float(given["seconds"])))
    gauges = tuple(given["gauges"].split(","))
    while time.monotonic() < end:
        try:
            busy = in_flight(metrics_page(given["host"], int(given["port"]), 2.0), gauges)
        except ConnectionRefusedError:
            return 0  # it has ended by itself
        except (OSError, ValueError):
            busy = None
        if busy == 0:
            print(f"idle after {time.monotonic() - began:.1f} s")
            return 0
        time.sleep(POLL_SECONDS)
    print(f"not idle after {given['seconds']} s")
    return 0


def in_flight(page: str, gauges: tuple[str, ...]) -> float | None:
    """Sum of the gauges over all their series; None where the page has none of them."""
    values = []
    for line in page.splitlines():
        name, _, rest = line.partition(" ")
        if name.partition("{")[0] in gauges:
            # Labels may hold spaces: the value is the last word, and no time stamp follows in vLLM and TGI.
            values.append(float(rest.rsplit(" ", 1)[-1]))
    return sum(values) if values else None
