"""What stages import. A scheduler that forks its tasks imports this once, and no task pays for it again."""

from __future__ import annotations

import airflow.providers.amazon.aws.hooks.base_aws
import airflow.providers.cncf.kubernetes.hooks.kubernetes
import kubernetes.stream
import numpy

import trainyard.catalogue
import trainyard.hub
import trainyard.stages.judgement
import trainyard.stages.plan
import trainyard.stages.publish
import trainyard.stages.step
import trainyard_airflow.operators.pod  # noqa: F401
