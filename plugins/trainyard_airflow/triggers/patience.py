"""How long a trigger keeps still after a deferral.

A task that defers ends its process, and Airflow's supervisor may notice that end `[workers]
min_heartbeat_interval`
seconds late. If the trigger has fired by then and the task runs again, the scheduler takes the late word for
the end
of the new run: "finished with state success, but the task instance's state attribute is running", and the try
is lost.
"""

from __future__ import annotations


def patience() -> float:
    """Seconds; from Airflow's own configuration."""
    from airflow.sdk.configuration import conf

    return float(conf.getint("workers", "min_heartbeat_interval", fallback=5)) + 1.0
