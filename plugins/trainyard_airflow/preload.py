"""What stages import. A scheduler that forks its tasks imports this once, and no task pays for it again."""

from __future__ import annotations

import trainyard_airflow.operators.pod  # noqa: F401
