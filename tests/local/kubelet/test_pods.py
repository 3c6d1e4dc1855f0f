"""Pods as processes: what they see, how they start, what is refused and said about it."""

from __future__ import annotations

import base64
import json

import psutil

from local.client.kinds import CONFIGMAPS, PODS, SECRETS, SERVICEACCOUNTS, Obj
from tests.support.cluster import Cluster, container_status

SHOW = (
    "import json,os,sys,pathlib;"
    "print(json.dumps({'env':dict(os.environ),'argv':sys.argv[1:],'cwd':os.getcwd(),"
    "'files':{p:pathlib.Path(p).read_text() for p in sys.argv[1:] if os.path.isfile(p)}}))"
)


def test_a_container_sees_its_own_environment_and_volumes_and_nothing_else(
    cluster: Cluster, namespace: str
) -> None:
    cluster.create(
        CONFIGMAPS, {"metadata": {"name": "settings", "namespace": namespace}, "data": {"a": "from map"}}
    )
    secret = {"data": {"key": base64.b64encode(b"hush").decode()}}
    cluster.create(SECRETS, {"metadata": {"name": "hidden", "namespace": namespace}, **secret})
    cluster.pod(
        namespace,
        "shows",
        ["python3", "-c", SHOW],
        metadata={"labels": {"tier": "x"}, "annotations": {"local.trainyard.dev/faults": '{"slow": 2}'}},
        container={
            "args": [
                "/etc/settings/a",
                "--out=/data/x",
                '{"p":"/etc/hidden/key"}',
                "s3://data/y",
                "/etc/pod/labels",
            ],
            "workingDir": "/data",
            "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}},
            "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "TIER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {
                    "name": "MIB",
                    "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
                },
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "key"}}},
                {
                    "name": "NONE",
                    "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}},
                },
                {"name": "JOINED", "value": "$(NAME)-$(SECRET)-$(UNKNOWN)-$$(NAME)"},
                {"name": "PLACE", "value": "/data/here"},
            ],
            "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "MAP_"}],
            "volumeMounts": [
                {"name": "settings", "mountPath": "/etc/settings"},
                {"name": "hidden", "mountPath": "/etc/hidden"},
                {"name": "about", "mountPath": "/etc/pod"},
                {"name": "data", "mountPath": "/data", "subPath": "deep/er"},
            ],
        },
        volumes=[
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "hidden", "secret": {"secretName": "hidden"}},
            {
                "name": "about",
                "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
            },
            {"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    )
    pod = cluster.phase(namespace, "shows", "Succeeded", "Failed")
    seen = json.loads(cluster.kubectl("-n", namespace, "logs", "shows"))
    env, volumes = seen["env"], cluster.folder / "kubelet" / "pods" / pod["metadata"]["uid"] / "volumes"
    assert seen["argv"] == [
        f"{volumes}/settings/a",
        f"--out={volumes}/data/deep/er/x",
        f'{{"p":"{volumes}/hidden/key"}}',
        "s3://data/y",
        f"{volumes}/about/labels",
    ]
    assert seen["files"] == {f"{volumes}/settings/a": "from map", f"{volumes}/about/labels": 'tier="x"'}
    assert seen["cwd"] == str(volumes / "data" / "deep" / "er")
    assert {name: env.get(name) for name in ("NAME", "TIER", "NODE", "CPUS", "MIB", "SECRET", "MAP_a")} == {
        "NAME": "shows",
        "TIER": "x",
        "NODE": "local-system",
        "CPUS": "2",
        "MIB": "64",
        "SECRET": "hush",
        "MAP_a": "from map",
    }
    assert env["JOINED"] == "shows-hush-$(UNKNOWN)-$(NAME)"
    assert env["PLACE"] == f"{volumes}/data/deep/er/here"
    assert env["IP"] == env["LOCAL_POD_IP"] == pod["status"]["podIP"]
    assert env["LOCAL_FAULTS"] == '{"slow": 2}'
    assert "NONE" not in env
    assert "KUBELET_SECRET" not in env
    assert "PYTHONPATH" not in env


def test_pods_of_an_account_with_a_role_get_its_credentials(cluster: Cluster, namespace: str) -> None:
    account = {
        "metadata": {
            "name": "writer",
            "namespace": namespace,
            "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/writer"},
        }
    }
    cluster.create(SERVICEACCOUNTS, account)
    command = ["sh", "-c", "echo key=$AWS_ACCESS_KEY_ID"]
    cluster.pod(namespace, "with", command, serviceAccountName="writer")
    cluster.pod(namespace, "without", command)
    cluster.phase(namespace, "with", "Succeeded")
    cluster.phase(namespace, "without", "Succeeded")
    assert cluster.kubectl("-n", namespace, "logs", "with") == "key=pods\n"
    assert cluster.kubectl("-n", namespace, "logs", "without") == "key=\n"


def test_init_containers_run_in_order_and_a_sidecar_ends_after_the_pod_s_work(
    cluster: Cluster, namespace: str
) -> None:
    mount = [{"name": "d", "mountPath": "/d"}]

    def step(name: str, script: str, **more: object) -> Obj:
        return {
            "name": name,
            "image": "busybox",
            "command": ["sh", "-c", script],
            "volumeMounts": mount,
            **more,
        }

    cluster.pod(
        namespace,
        "steps",
        ["sh", "-c", "cat /d/log; echo main >> /d/log"],
        container={"volumeMounts": mount},
        volumes=[{"name": "d", "emptyDir": {}}],
        initContainers=[
            step("one", "sleep 0.2; echo one >> /d/log"),
            step(
                "beside",
                "echo beside >> /d/log; trap 'exit 0' TERM; while :; do sleep 0.1; done",
                restartPolicy="Always",
            ),
            # A sidecar has started when its process has, whatever that has come to do.
            step("two", "until grep -q beside /d/log; do sleep 0.05; done; echo two >> /d/log"),
        ],
    )
    pod = cluster.phase(namespace, "steps", "Succeeded", "Failed")
    assert pod["status"]["phase"] == "Succeeded"
    lines = cluster.kubectl("-n", namespace, "logs", "steps", "-c", "main").split()
    assert lines[0] == "one"
    assert sorted(lines) == ["beside", "one", "two"]
    states = {each["name"]: each["state"] for each in pod["status"]["initContainerStatuses"]}
    assert all("terminated" in each for each in states.values())


def test_an_image_that_does_not_exist_is_reported_in_containerd_s_words(
    cluster: Cluster, namespace: str
) -> None:
    cluster.pod(namespace, "nothing", None, container={"image": "registry.example/none:1"})

    def backs_off() -> Obj | None:
        pod = cluster.find(PODS, namespace, "nothing")
        waiting = (pod or {})["status"].get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {})
        return waiting if waiting.get("reason") == "ImagePullBackOff" else None

    waiting = cluster.until("ImagePullBackOff", backs_off)
    assert waiting["message"] == (
        'Back-off pulling image "registry.example/none:1": ErrImagePull: rpc error: code = NotFound desc = '
        'failed to pull and unpack image "registry.example/none:1": failed to resolve reference '
        '"registry.example/none:1": registry.example/none:1: not found'
    )
    assert cluster.event(namespace, "nothing", "Failed", "Error: ErrImagePull")
    assert (
        cluster.event(namespace, "nothing", "BackOff") == 'Back-off pulling image "registry.example/none:1"'
    )
    described = cluster.kubectl("-n", namespace, "describe", "pod", "nothing")
    assert "ImagePullBackOff" in described


def test_a_command_that_is_not_there_is_a_start_error(cluster: Cluster, namespace: str) -> None:
    cluster.pod(namespace, "absent", ["no-such-program"])
    ended = container_status(cluster.phase(namespace, "absent", "Failed"))["state"]["terminated"]
    assert ended["reason"] == "StartError"
    assert 'exec: "no-such-program": executable file not found in $PATH' in ended["message"]


def test_a_missing_configuration_is_said_and_mended_by_making_it(cluster: Cluster, namespace: str) -> None:
    reference = {"configMapKeyRef": {"name": "later", "key": "k"}}
    cluster.pod(
        namespace,
        "waits",
        ["sh", "-c", "echo got $K"],
        container={"env": [{"name": "K", "valueFrom": reference}]},
    )
    cluster.event(namespace, "waits", "Failed", 'Error: configmap "later" not found')
    cluster.create(CONFIGMAPS, {"metadata": {"name": "later", "namespace": namespace}, "data": {"k": "v"}})
    cluster.phase(namespace, "waits", "Succeeded")
    assert cluster.kubectl("-n", namespace, "logs", "waits") == "got v\n"


def test_what_this_node_cannot_mount_is_refused_in_words(cluster: Cluster, namespace: str) -> None:
    cluster.pod(
        namespace,
        "reaches-out",
        ["true"],
        volumes=[{"name": "etc", "hostPath": {"path": "/etc"}}],
        container={"volumeMounts": [{"name": "etc", "mountPath": "/host"}]},
    )
    text = cluster.event(namespace, "reaches-out", "FailedMount")
    assert "hostPath /etc is refused" in text


def test_starting_a_container_costs_the_kubelet_little(cluster: Cluster, namespace: str) -> None:
    """Two dozen pods at once stay far below the 100 ms of kubelet time that one may cost."""
    kubelet = next(
        each
        for each in psutil.process_iter(["cmdline"])
        if "local.kubelet" in (each.info["cmdline"] or []) and str(cluster.kubeconfig) in each.info["cmdline"]
    )
    before = sum(kubelet.cpu_times()[:2])
    for number in range(24):
        cluster.pod(namespace, f"quick-{number}", ["true"])
    for number in range(24):
        cluster.phase(namespace, f"quick-{number}", "Succeeded")
    assert (sum(kubelet.cpu_times()[:2]) - before) / 24 < 0.1


def test_node_disks_are_shared_between_pods(cluster: Cluster, namespace: str) -> None:
    disk = {"name": "nvme", "hostPath": {"path": f"/mnt/k8s-disks/{namespace}", "type": "DirectoryOrCreate"}}
    mount = {"volumeMounts": [{"name": "nvme", "mountPath": "/cache"}]}
    cluster.pod(namespace, "writes", ["sh", "-c", "echo kept > /cache/x"], volumes=[disk], container=mount)
    cluster.phase(namespace, "writes", "Succeeded")
    cluster.pod(namespace, "reads", ["cat", "/cache/x"], volumes=[disk], container=mount)
    cluster.phase(namespace, "reads", "Succeeded")
    assert cluster.kubectl("-n", namespace, "logs", "reads") == "kept\n"
