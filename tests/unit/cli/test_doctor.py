"""How the doctor's findings are told, and what makes a cluster not ready."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from trainyard.doctor.findings import Finding, Part, healthy
from trainyard.doctor.rights import review
from trainyard.errors import PermanentError
from trainyard.kube.permissions import Permission
from trainyard_cli import doctor

PART = Part("gateway")
FINE, ODD = PART.ok("Gateway a/b", "programmed"), PART.warning("x", "odd", "Look.")
BAD, DARK = PART.failed("y", "[broken] away", "Mend it."), PART.unknown("z", "not seen", "Ask.")


@pytest.mark.parametrize(
    ("findings", "well"),
    [([FINE], True), ([FINE, ODD, DARK], True), ([FINE, BAD], False), ([], True)],
)
def test_only_what_failed_keeps_a_cluster_from_being_ready(findings: list[Finding], well: bool) -> None:
    assert healthy(findings) is well


def test_each_finding_is_a_line_and_what_to_do_another() -> None:
    out = io.StringIO()
    console = Console(file=out, width=40)
    for each in (FINE, BAD):
        doctor.show(console, each)

    assert out.getvalue().splitlines() == [
        "ok      gateway    Gateway a/b: programmed",
        "failed  gateway    y: [broken] away",
        "                   to do: Mend it.",
    ]
    assert doctor.summary([FINE, BAD, BAD]) == "not ready: 1 ok, 2 failed"
    assert doctor.summary([FINE, ODD]) == "ready: 1 ok, 1 warning"


def test_a_kubeconfig_that_is_not_there_is_a_finding_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "TRAINYARD_RELEASES_DIR": str(tmp_path),
        "TRAINYARD_HUB_ENDPOINT": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()

    code = doctor.run(Console(file=out), kubeconfig=tmp_path / "none", as_json=True)

    document = json.loads(out.getvalue())
    states = {each["part"]: each for each in document["findings"]}
    assert (code, document["healthy"]) == (1, False)
    assert "the kubeconfig cannot be used" in states["api"]["says"]
    assert states["bucket"]["state"] == "failed"
    assert states["catalogue"]["state"] == "warning"


def test_errors_of_other_libraries_become_ours_and_ours_stay() -> None:
    def odd() -> None:
        raise KeyError("x")

    def ours() -> None:
        raise PermanentError("so it is")

    with pytest.raises(PermanentError, match=r"it cannot be \(KeyError: 'x'\)"):
        doctor._plainly(odd, "it cannot be")()
    with pytest.raises(PermanentError, match=r"^so it is$"):
        doctor._plainly(ours, "it cannot be")()


def test_a_right_is_asked_for_by_resource_and_subresource() -> None:
    asked = review(Permission("serving", "", "pods/exec", "create"), "trainyard-serving")

    assert asked["spec"] == {
        "resourceAttributes": {
            "namespace": "trainyard-serving",
            "verb": "create",
            "resource": "pods",
            "subresource": "exec",
        }
    }
    assert str(Permission("cluster", "karpenter.sh", "nodeclaims", "list")) == (
        "list nodeclaims.karpenter.sh in all namespaces"
    )
