"""The commands of the runbook, given to a real kubectl."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.cluster import api_server
from trainyard.kube.traffic import route_manifest, weights_of

RUNBOOK = Path(__file__).resolve().parents[3] / "docs" / "runbook.md"


def test_the_patch_of_the_runbook_gives_all_traffic_to_one_release(tmp_path: Path) -> None:
    found = re.search(
        r"patch httproute MODEL --type=json -p \\\n\s+'(.+)'", RUNBOOK.read_text(encoding="utf-8")
    )
    assert found, "docs/runbook.md has no patch any more"
    space = "trainyard-serving"
    before = route_manifest("tiny", space, "trainyard", space, {"old": 50, "new": 50}, token=3)
    with api_server(tmp_path) as cluster:
        folder = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(folder))
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(before))
        patch = found[1].replace("RELEASE_ID", "old")
        cluster.kubectl("-n", space, "patch", "httproute", "tiny", "--type=json", "-p", patch)
        after = json.loads(cluster.kubectl("-n", space, "get", "httproute", "tiny", "-o", "json"))
    assert weights_of(after) == {"old": 100}
    assert after["metadata"]["annotations"]["trainyard.dev/lease-token"] == "3"
