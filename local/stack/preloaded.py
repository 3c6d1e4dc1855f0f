"""`python -m local.stack.preloaded ARGUMENTS...`: `airflow ARGUMENTS...`, with what tasks import imported.

Task processes are forks of the scheduler, parsers of the DAG processor: what is imported here, once, they
need not import each time. (Not in `airflow_local_settings`: Airflow imports that half-way through itself.)
"""

from __future__ import annotations

import importlib
import sys

MODULES = (
    "airflow.providers.cncf.kubernetes.operators.pod",
    "boto3",
    "kubernetes.client",
    "trainyard_airflow.preload",
)


def main() -> None:
    """Import, then be `airflow`. Raises whatever a module raises but its absence."""
    import airflow  # noqa: F401  whose settings come before everything else

    for name in MODULES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # A speed-up only: tasks that need it will say so themselves.
            print(f"not preloaded: {name}: {error}", file=sys.stderr)
    from airflow.__main__ import main as airflow_main

    sys.argv[0] = "airflow"
    airflow_main()


if __name__ == "__main__":
    main()
