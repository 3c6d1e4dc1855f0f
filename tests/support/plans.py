"""Plans of a spec against a Hub of paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.models import GB, LLAMA, PaperHub, entry, paper_context
from trainyard.errors import Problem, Refused
from trainyard.release import Plan
from trainyard.spec import parse_spec
from trainyard.stages import plan as stage


def planned(tmp_path: Path, hub: PaperHub | None = None, **changes: Any) -> Plan:
    return stage.make_plan(paper_context(tmp_path, hub), parse_spec(entry(**changes), "here"))


def problems(tmp_path: Path, hub: PaperHub | None = None, **changes: Any) -> dict[str, Problem]:
    with pytest.raises(Refused) as caught:
        planned(tmp_path, hub, **changes)
    assert all(problem.rule and problem.remedy for problem in caught.value.problems)
    return {problem.field: problem for problem in caught.value.problems}


def hardware(tp: int, kind: str = "trn2.48xlarge") -> dict[str, Any]:
    return {"instance_type": kind, "nodepool": "neuron", "tensor_parallel": tp}


def compiling(**changes: Any) -> dict[str, Any]:
    return {"batch_size": 8, "sequence_length": 4096, "memory": "64Gi", **changes}


def hub_of(size: int = 16 * GB, **config: Any) -> PaperHub:
    return PaperHub({**LLAMA, **config}, {"model.safetensors": size})
