"""The versions that are "installed": those of the image that the shim stands for (neuron.md, 0)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stack:
    """One serving stack. `neuronxcc` is what `neuronxcc.__version__` says."""

    engine: str
    vllm: str
    sdk: str
    neuronxcc: str
    optimum: str = ""

    @property
    def vllm_release(self) -> tuple[int, ...]:
        """(0, 11) of "0.11.0"."""
        return tuple(int(part) for part in self.vllm.split(".")[:2])

    @property
    def optimum_release(self) -> tuple[int, ...]:
        """(0, 4) of "0.4.5"."""
        return tuple(int(part) for part in self.optimum.split(".")[:2])


# Compiler versions: optimum-neuron 0.4.5's pyproject.toml, and the release notes of SDK 2.31 and 2.32; for
# TGI 3.3.5 to 3.3.7 its Dockerfile.neuron, whose compiler is of SDK 2.24 and whose runtime is newer.
OPTIMUM = Stack("optimum", "0.11.0", "2.26.1", "2.21.33363.0+82129205", "0.4.5")
NXDI = Stack("nxdi", "0.16.0", "2.31.1", "2.26.6360.0+e7a13b21")
NATIVE = Stack("native", "0.24.0", "2.32.0", "2.27.5334.0+c21fe6a8")
TGI = Stack("tgi", "", "2.24.0", "2.19.8089.0+8ab9f450", "0.3.0")
COMPILERS = {stack.sdk: stack.neuronxcc for stack in (OPTIMUM, NXDI, NATIVE)}


def stack(default: Stack = OPTIMUM, environment: Mapping[str, str] | None = None) -> Stack:
    """The stack of LOCAL_IMAGE's repository and tag; `default` when it is unset or says nothing."""
    image = (os.environ if environment is None else environment).get("LOCAL_IMAGE", "")
    repository, _, tag = image.partition("@")[0].rpartition(":")
    if "huggingface-vllm" in repository:
        found = OPTIMUM
    elif "pytorch-inference-vllm-neuronx" in repository:
        found = NATIVE if tag.count(".", 0, tag.find("-")) > 3 else NXDI
    elif "text-generation-inference" in repository:
        found = TGI
    else:
        return default
    if match := re.match(r"(\d+\.\d+\.\d+)", tag):
        found = replace(found, vllm=match[1] if found.vllm else "")
    if match := re.search(r"optimum(\d+\.\d+\.\d+)", tag):
        found = replace(found, optimum=match[1])
    if match := re.search(r"sdk(\d+\.\d+\.\d+)", tag):
        # An SDK that is not in the table has another compiler than the ones that are.
        found = replace(found, sdk=match[1], neuronxcc=COMPILERS.get(match[1], f"{match[1]}.0+local"))
    return found
