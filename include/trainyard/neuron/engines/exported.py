"""Sets that `optimum-cli export neuron` writes: what optimum (0.4.5) and tgi (0.3.0) share.

Source: huggingface/optimum-neuron at these tags (exporters, NxDNeuronConfig).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from trainyard.neuron.engines.base import Build, Host, Versions

_DESCRIPTION = "neuron_config.json"
COMPILES = re.compile(
    r"(Compiling the model|Compiler status|neuronx-cc compile|Exporting the model|exported on the fly)", re.I
)


def expects(build: Build) -> Mapping[str, int]:
    # An export from a local directory writes the sharded weights; one from a Hub id does not, but then every
    # server would download the checkpoint again.
    return {
        _DESCRIPTION: 1,
        "config.json": 1,
        "model.pt": 1,
        "checkpoint/weights/tp*_sharded_checkpoint.safetensors": build.tensor_parallel,
    }


def problems(read: Callable[[str], bytes], build: Build, versions: Versions, target: str | None) -> list[str]:
    """Loading fails hard on another version, target or shape: said here, before a node is bought for it."""
    config = read_description(read, _DESCRIPTION)
    if isinstance(config, str):
        return [config]
    wanted = {
        "optimum_neuron_version": versions.engine,
        "tp_degree": build.tensor_parallel,
        "batch_size": build.batch_size,
        "sequence_length": build.sequence_length,
        "target": target,
        "neuronxcc_version": versions.compiler,
    }
    # The compiler adds its build (2.21.33363.0+82129205), which its release already fixes.
    found = {key: config.get(key) for key in wanted}
    found["neuronxcc_version"] = str(found["neuronxcc_version"]).partition("+")[0]
    return differences(_DESCRIPTION, {key: config.get(key) for key in wanted}, found, wanted)


def doubts(log: str) -> list[str]:
    """Without the flag that allows it, a set that does not fit ends the server; with it, the log tells."""
    return [f"its log says {line.strip()!r}" for line in log.splitlines() if COMPILES.search(line)][:1]


def host(weight_bytes: int) -> Host:
    # Sharding holds the checkpoint and its shards; a server reads the shards that it gives to the devices.
    return Host(compiling=2 * weight_bytes, serving=weight_bytes)


def read_description(read: Callable[[str], bytes], path: str) -> Mapping[str, object] | str:
    """A JSON object of the set; a text that says what is wrong with it where it is none."""
    try:
        config = json.loads(read(path))
    except (ValueError, RecursionError) as error:
        return f"{path} is no JSON ({error})"
    return config if isinstance(config, dict) else f"{path} holds no object"


def differences(
    path: str, said: Mapping[str, object], found: Mapping[str, object], wanted: Mapping[str, object]
) -> list[str]:
    return [
        f"{path} says {key} = {said[key]!r}, planned was {value!r}"
        for key, value in wanted.items()
        if found[key] != value
    ]
