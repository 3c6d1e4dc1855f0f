"""What tasks import and parse. A scheduler that forks its tasks imports this once; no task pays for it again.

This module works when it is imported, as its purpose is: nobody but the parent of tasks imports it.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from trainyard import stages
from trainyard.params import overrides_schema
from trainyard_airflow.seams import service_models

# Names and no import statements: those would look unused, and be tidied away.
MODULES = (
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.providers.cncf.kubernetes.hooks.kubernetes",
    "airflow.sdk.definitions.timetables.interval",
    "airflow.sdk.definitions.timetables.trigger",
    "airflow.timetables.base",
    "huggingface_hub.hf_api",
    "jinja2",
    "kubernetes.stream",
    "numpy",
    "trainyard.catalogue",
    "trainyard.cloudwatch",
    "trainyard.hub",
    "trainyard.kube.watchers",
    "trainyard.neuron.window",
    "trainyard_airflow.operators.karpenter",
    "trainyard_airflow.operators.kubernetes",
    "trainyard_airflow.operators.neuron",
    "trainyard_airflow.operators.plan",
    "trainyard_airflow.operators.pod",
    "trainyard_airflow.operators.record",
    "trainyard_airflow.operators.watch",
    "trainyard_airflow.triggers.cluster",
    "trainyard_airflow.triggers.neuron",
)

for _name in (*MODULES, *(module.name for module in iter_modules(stages.__path__, f"{stages.__name__}."))):
    import_module(_name)
service_models()
overrides_schema()
