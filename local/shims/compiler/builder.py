"""NxD's ModelBuilder, which optimum-neuron and NxD Inference share: HLOs, then NEFFs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from local.shims import logs
from local.shims.compiler.cache import compile_graph
from local.shims.compiler.graph import Graph

WORKERS = 8


def compile_all(graphs: list[Graph], target: str, version: str) -> dict[str, bytes]:
    """The NEFF of each graph by key; the last one goes first, its layouts bind the others."""
    began = time.monotonic()
    logs.neuron(f"Generating HLOs for the following models: {[graph.key for graph in graphs]}")
    for graph in graphs:
        time.sleep(0.1 / len(graphs))
        logs.neuron(f"Finished generating HLO for {graph.key} in {time.monotonic() - began} seconds")
    *others, first = graphs
    logs.neuron("Starting compilation for the priority HLO")
    logs.neuron(f"{first.key!r} is the priority model with bucket rank 0")
    logs.neuron(f"Neuron compiler flags: {' '.join(first.flags)} --target {target}")
    neffs = {first.key: compile_graph(first, target, version)}
    logs.neuron(f"Done compilation for the priority HLO in {time.monotonic() - began} seconds")
    logs.neuron("Starting compilation for all HLOs")
    with ThreadPoolExecutor(WORKERS) as pool:
        running = [(graph.key, pool.submit(compile_graph, graph, target, version)) for graph in others]
        neffs |= {key: made.result() for key, made in running}
    logs.neuron(f"Finished Compilation for all HLOs in {time.monotonic() - began} seconds")
    logs.neuron(f"Finished building model in {time.monotonic() - began} seconds")
    return neffs
