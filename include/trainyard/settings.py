"""Where things are: bucket, namespaces, gateway, connections. Never credentials.

Every field is an environment variable with the prefix TRAINYARD_; `trainyard status` prints them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TRAINYARD_", frozen=True, extra="ignore")

    bucket: str = Field("trainyard", description="S3 bucket of blobs, bundles, ledger and channels.")
    region: str = Field("us-east-2", description="AWS region: fills the registry of AWS's own images.")
    releases_dir: Path = Field(
        Path(__file__).resolve().parents[1] / "releases", description="The catalogue: one YAML file a model."
    )
    jobs_namespace: str = "trainyard-jobs"
    serving_namespace: str = "trainyard-serving"
    jobs_image: str = Field(
        "trainyard-jobs:local", description="Image of fetch, materialise and load-test pods."
    )
    gateway_name: str = "trainyard"
    gateway_namespace: str = "trainyard-serving"
    gateway_url: str = Field(
        "http://trainyard.trainyard-serving.svc", description="How pods reach the Gateway's listener."
    )
    service_addressing: Literal["dns", "endpoints"] = Field(
        "dns", description="How load-test pods address a Service: cluster DNS, or its ready endpoints."
    )
    hub_endpoint: str = "https://huggingface.co"
    compile_cache_claim: str = Field(
        "",
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        description="PersistentVolumeClaim in the jobs' namespace that compile pods mount as their cache.",
    )
    node_cache_claim: str = Field(
        "",
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        description="PersistentVolumeClaim in the serving namespace, on the nodes' own disks, that server "
        "pods share as a cache of blobs.",
    )
    node_cache_gib: int = Field(1000, ge=1, description="What that cache may hold; the oldest goes first.")
    airflow_url: str = Field("http://127.0.0.1:8080", description="For links in records and reports.")
    aws_conn_id: str = "aws_default"
    kubernetes_conn_id: str = "kubernetes_default"
    hub_conn_id: str = Field(
        "huggingface_default", description="Its password is the Hub token with which plan reads gated models."
    )
    poll_seconds: float = Field(
        30.0, gt=0, description="Between two looks at a pod or node that is waited for."
    )
    retry_seconds: float = Field(30.0, gt=0, description="Before a task is tried again; doubles each time.")
    capacity_wait_minutes: float = Field(
        30.0, gt=0, description="For a node; then the release fails as NoCapacity."
    )
    refresh_schedule: str | None = Field(
        "*/15 * * * *", description="Cron of model_refresh: how often the Hub is asked for new revisions."
    )
    follow: str = Field(
        "",
        description="Entries that model_refresh releases: names or patterns, with commas between them. None "
        "by default: each costs nodes.",
    )
    health_schedule: str | None = Field(
        "*/30 * * * *", description="Cron of fleet_health: how often what serves now is looked at."
    )
    housekeeping_schedule: str | None = Field(
        "30 3 * * *", description="Cron of housekeeping: how often what nothing names is looked for."
    )
    housekeeping_deletes: bool = Field(
        False, description="Do scheduled runs of housekeeping delete? Else they only say what they would."
    )
    keep_good_releases: int = Field(
        3, ge=1, description="Promoted releases a model that stay ready, whatever their age."
    )
    keep_days: float = Field(
        14.0, ge=0, description="How long everything of a release is kept, good or not, and what none names."
    )
    keep_log_days: float = Field(
        30.0, ge=0, description="Logs and samples of releases that are not kept for another reason."
    )
    keep_cache_days: float = Field(60.0, ge=0, description="Compile caches that nobody wrote to.")
    sweep_grace_hours: float = Field(
        24.0, ge=1, description="What is younger may be part of something being written: it is never swept."
    )
    public_keys: str = Field(
        "",
        description="Trusted ed25519 keys, commas between: raw in base64, or paths of PEM files. With any of "
        "them, unsigned manifests and records are refused.",
    )
    signing_conn_id: str = Field("", description="Connection whose password is the private key.")
    signing_key_file: Path | None = Field(None, description="A mounted secret with the private key, instead.")
    lease_minutes: float = Field(
        240.0, gt=0, description="A holder that says nothing for so long loses the model."
    )
    lease_wait_minutes: float = Field(
        240.0, ge=0, description="How long a release waits for another one of the same model."
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="Least wait between the last shift and the end of the previous stable."
    )
