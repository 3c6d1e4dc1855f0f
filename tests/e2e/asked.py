"""Releases that are started together, before the first test looks at one: each is a model of its own.

Lengths of their own: what one model compiled would be found, and used, by another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

KNOBS = "local.trainyard.dev/faults"
EYES = "trainyard/tiny-qwen3-vl"  # a model that takes pictures

# One an engine at least; `optimum` is the story of test_releases.py.
ENGINES: Mapping[str, Mapping[str, Any]] = {
    "on-native": {"engine": "native", "compile__sequence_length": 800},
    "on-native-with-eyes": {
        "engine": "native",
        "model__repo": EYES,
        "compile__sequence_length": 704,
        "rollout__load__images": {"width": 64, "height": 64},
    },
    "on-nxdi": {
        "engine": "nxdi",
        "compile__sequence_length": 832,
        "compile__bundle": {"holds": "graph"},
        "rollout__load__workers": 2,
    },
    "on-tgi": {
        "engine": "tgi",
        "compile__sequence_length": 768,
        "hardware": {"instance_type": "inf2.xlarge", "nodepool": "neuron-inf2", "tensor_parallel": 2},
        "serving__cpu": 1,
        "compile__cpu": 1,
    },
}

FAULTS: Mapping[str, Mapping[str, Any]] = {
    "bad-compiler": {
        "compile__annotations": {KNOBS: json.dumps({"compile_exit": 70})},
        "compile__sequence_length": 960,
    },
    "bad-image": {"image": "registry.example.com/no/such-image:1"},
    "bad-memory": {
        "compile__memory": "256Mi",
        "compile__annotations": {KNOBS: json.dumps({"oom_mib": 600})},
        "compile__sequence_length": 928,
    },
    # Right by all rules, but the local cluster's NodePool has no such type.
    "bad-place": {"hardware": {"instance_type": "trn2u.48xlarge", "tensor_parallel": 4}},
    "bad-server": {
        "serving__annotations": {KNOBS: json.dumps({"crash_on_start": "the devices are gone"})},
    },
}

# Asked for later, by tests of their own.
OTHERS = ("kept", "survivor")
MODELS = (*ENGINES, *FAULTS, *OTHERS)
