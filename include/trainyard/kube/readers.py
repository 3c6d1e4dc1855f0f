"""Readers of Neuron devices through the cluster: neuron-monitor in a pod, or the exporter's text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from trainyard.errors import Inconclusive, NotFound, PermanentError
from trainyard.kube.cluster import Cluster, Object
from trainyard.neuron.exporter import parse_scrape
from trainyard.neuron.monitor import CONFIG, parse_reports
from trainyard.neuron.readings import Reading

MONITOR = "neuron-monitor"  # part of the name or image of AWS's DaemonSet, in the chart and the manifest
PORT = 8000
# Long enough for three reports at a period of a second, and for a slow start of the tool.
_MONITOR_SECONDS = 3.5
_EXEC_SECONDS = 8.0
_SCRAPE_SECONDS = 10.0


@dataclass(frozen=True)
class PodReader:
    """Runs neuron-monitor in a container that has it: a server's (its devices), or the DaemonSet's (the
    node's). Each call gives about three reports, a second apart. container: default: the first one."""

    cluster: Cluster
    namespace: str
    pod: str
    container: str

    def read(self) -> tuple[Reading, ...]:
        """Raises ClusterUnavailable, Inconclusive (no report came), and NotFound for a pod that is gone."""
        pod = pod_named(self.cluster, self.namespace, self.pod)
        if pod is None:
            raise NotFound(f"Pod {self.namespace}/{self.pod} is gone: its devices cannot be asked any more.")
        # `timeout` ends it: a monitor runs for ever. AWS's images have it in PATH or in its usual place.
        script = (
            f"printf '%s' '{json.dumps(CONFIG)}' > \"${{TMPDIR:-/tmp}}/neuron-monitor.json\" && "
            f'PATH="$PATH:/opt/aws/neuron/bin" exec timeout {_MONITOR_SECONDS} '
            'neuron-monitor -c "${TMPDIR:-/tmp}/neuron-monitor.json"'
        )
        out = self.cluster.execute(
            self.pod,
            self.namespace,
            self.container or pod["spec"]["containers"][0]["name"],
            ["sh", "-c", script],
            seconds=_EXEC_SECONDS,
        )
        found = tuple(parse_reports(out, time.time()))
        if not found:
            said = f"It said: {out.strip()[-300:]!r}" if out.strip() else "It said nothing"
            raise Inconclusive(f"neuron-monitor gave no report in pod {self.namespace}/{self.pod}. {said}.")
        return found


@dataclass(frozen=True)
class ExporterReader:
    """Reads the exporter once a call: a gate needs two or more, at least five seconds (its period) apart.

    fetch: gives the text. Raises what fetch raises.
    """

    fetch: Callable[[], str]
    where: str

    def read(self) -> tuple[Reading, ...]:
        text = self.fetch()
        found = parse_scrape(text, time.time())
        if found is None:
            raise Inconclusive(
                f"{self.where} answered without neuron_hardware_info: it is no Neuron exporter, or has not "
                f"read neuron-monitor yet. It began with {text[:80]!r}."
            )
        return (found,)


def http_exporter(url: str) -> ExporterReader:
    """An exporter that can be reached from here, by its address (http://10.0.0.7:8000/metrics)."""

    def fetch() -> str:
        import httpx

        try:
            # Pods are inside: no proxy leads there.
            with httpx.Client(timeout=_SCRAPE_SECONDS, trust_env=False) as client:
                answer = client.get(url)
                answer.raise_for_status()
                return answer.text
        except httpx.HTTPError as error:
            raise Inconclusive(
                f"The Neuron exporter at {url} did not answer properly: {type(error).__name__}: {error}"
            ) from None
        except httpx.InvalidURL as error:
            raise PermanentError(
                f"exporter_url = {url!r} is no address: {error}. Write http://host:8000/metrics."
            ) from None

    return ExporterReader(fetch, f"The exporter at {url}")


def proxied_exporter(cluster: Cluster, node: str, port: int = PORT) -> ExporterReader:
    """The exporter of a node's monitor pod, through the Kubernetes API (the right `get` on `pods/proxy`)."""

    def fetch() -> str:
        pod = monitor_pod(cluster, node)
        meta = pod["metadata"]
        return cluster.through(meta["name"], meta["namespace"], port, "metrics")

    return ExporterReader(fetch, f"The exporter of node {node}")


@dataclass(frozen=True)
class NodeReader:
    """neuron-monitor of a node, in whichever monitor pod is there now."""

    cluster: Cluster
    node: str

    def read(self) -> tuple[Reading, ...]:
        return node_monitor(self.cluster, self.node).read()


def node_monitor(cluster: Cluster, node: str) -> PodReader:
    """neuron-monitor in the node's monitor pod: it sees all devices of the node. Raises Inconclusive."""
    pod = monitor_pod(cluster, node)
    container = next(
        (
            item["name"]
            for item in pod["spec"]["containers"]
            if MONITOR in f"{item['name']} {item.get('image')}"
        ),
        pod["spec"]["containers"][0]["name"],
    )
    return PodReader(cluster, pod["metadata"]["namespace"], pod["metadata"]["name"], container)


def conditions_at(cluster: Cluster, namespace: str, pod: str) -> list[Object]:
    """The conditions of the node that a pod runs on: node agents condemn devices there."""
    host = ((pod_named(cluster, namespace, pod) or {}).get("spec") or {}).get("nodeName")
    return node_conditions(cluster, host) if host else []


def node_conditions(cluster: Cluster, node: str) -> list[Object]:
    return ((cluster.find("Node", node) or {}).get("status") or {}).get("conditions") or []


def pod_named(cluster: Cluster, namespace: str, name: str) -> Object | None:
    """By a list, which the pipeline's account may do everywhere; it may not `get` every pod."""
    return next(iter(cluster.list("Pod", namespace, fields=f"metadata.name={name}")), None)


def monitor_pod(cluster: Cluster, node: str) -> Object:
    """The running pod of AWS's monitor DaemonSet on a node. Raises NotFound (no such node), Inconclusive."""
    pods = cluster.list("Pod", fields=f"spec.nodeName={node}")
    for pod in pods:
        images = " ".join(str(item.get("image")) for item in pod["spec"]["containers"])
        if (
            MONITOR in f"{pod['metadata']['name']} {images}"
            and pod.get("status", {}).get("phase") == "Running"
        ):
            return pod
    if cluster.find("Node", node) is None:
        raise NotFound(f"Node {node} does not exist.")
    raise Inconclusive(
        f"No running {MONITOR} pod is on node {node}: nobody says how its devices are. Install the DaemonSet "
        f"(its published manifest leaves trn2 out and tolerates no taints)."
    )
