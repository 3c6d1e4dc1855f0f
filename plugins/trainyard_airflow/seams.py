"""Makes the seams of a task (S3, cluster, Hub) from Airflow's connections. All imports are late: parsing is
cheap."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainyard.bedrock import Bedrock
    from trainyard.kube.cluster import Cluster
    from trainyard.settings import Settings
    from trainyard.stages.context import Context
    from trainyard.store.objects import Objects
    from trainyard.store.signing import Keyring


def settings() -> Settings:
    from trainyard.settings import Settings

    return Settings()


def objects(config: Settings) -> Objects:
    """S3 by the provider's own hook: credentials and endpoint are those of the connection."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    from trainyard.store.objects import Objects, client_config

    hook: AwsGenericHook[Any] = AwsGenericHook(aws_conn_id=config.aws_conn_id, client_type="s3")
    endpoint = hook.conn_config.get_service_endpoint_url("s3")
    session = hook.get_session()
    # The hook's own `get_client_type` would parse megabytes of JSON, and search the stack for its caller.
    session._session.register_component("data_loader", service_models())
    client = session.client("s3", endpoint_url=endpoint, verify=hook.verify, config=client_config(endpoint))
    return Objects(client, config.bucket)


@cache
def service_models() -> Any:
    """botocore's descriptions of S3, parsed: a quarter of a second which a fork of this process does not pay
    again."""
    import botocore.loaders
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    loader = botocore.loaders.Loader()
    session = botocore.session.get_session()
    session.register_component("data_loader", loader)
    # The loader keeps whatever making a client asks it for.
    session.create_client("s3", region_name="us-east-1", config=Config(signature_version=UNSIGNED))
    return loader


def bedrock(region: str) -> Bedrock:
    """Bedrock's control plane in a region, by the same connection as S3."""
    from trainyard.bedrock import Bedrock, client_config

    def make_client() -> Any:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

        hook: AwsGenericHook[Any] = AwsGenericHook(
            aws_conn_id=settings().aws_conn_id, client_type="bedrock", region_name=region
        )
        endpoint = hook.conn_config.get_service_endpoint_url("bedrock")
        session = hook.get_session(region_name=region)
        return session.client("bedrock", endpoint_url=endpoint, verify=hook.verify, config=client_config())

    return Bedrock(make_client, region)


def cluster(kubernetes_conn_id: str) -> Cluster:
    """The cluster by the provider's own hook."""
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    from trainyard.kube.cluster import Cluster

    return Cluster(KubernetesHook(conn_id=kubernetes_conn_id).get_conn())


def cloudwatch(aws_conn_id: str | None, region_name: str | None = None) -> Any:
    """A CloudWatch client by the provider's own hook."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    hook: AwsGenericHook[Any] = AwsGenericHook(
        aws_conn_id=aws_conn_id, region_name=region_name, client_type="cloudwatch"
    )
    return hook.get_conn()


def hub_token(config: Settings) -> str | None:
    """The password of the Hub's connection, for gated models; None where there is no such connection."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(config.hub_conn_id).password
    except AirflowNotFoundException:
        return None


def keyring(config: Settings) -> Keyring | None:
    """Who signs, and whose signature is trusted; None where neither is configured. Raises PermanentError."""
    if not (config.public_keys or config.signing_conn_id or config.signing_key_file):
        return None
    from airflow.sdk import BaseHook

    from trainyard.errors import PermanentError
    from trainyard.store.signing import keyring as make

    private: str | bytes | None = None
    if config.signing_key_file:
        private = config.signing_key_file.read_bytes()
    elif config.signing_conn_id:
        private = BaseHook.get_connection(config.signing_conn_id).password
    if private is None:
        raise PermanentError(
            "TRAINYARD_PUBLIC_KEYS is set, and there is no key to sign with: every release would refuse what "
            "it wrote itself. Set TRAINYARD_SIGNING_CONN_ID or TRAINYARD_SIGNING_KEY_FILE: docs/signing.md."
        )
    return make(config.public_keys, private)


def context() -> Context:
    """All seams of a stage."""
    from trainyard.stages.context import Context

    config = settings()

    def make_hub() -> Any:
        from trainyard.hub import Hub

        return Hub(config.hub_endpoint, hub_token(config))

    return Context(
        settings=config,
        objects=objects(config),
        cluster=cluster(config.kubernetes_conn_id),
        make_hub=make_hub,
        log=logging.getLogger("airflow.task"),
        keyring=keyring(config),
    )
