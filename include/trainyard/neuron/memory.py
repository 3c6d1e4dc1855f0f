"""Does a model fit the cores it is given? Weights and KV cache, per logical core."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from trainyard.neuron.instances import Instance
from trainyard.neuron.models import ModelFacts

# Activations, the runtime's own buffers and the NEFFs: measured systems keep about a tenth of HBM for them.
_OVERHEAD = 0.10


@dataclass(frozen=True)
class Memory:
    """Bytes, for one logical core unless the name says otherwise."""

    hbm: int
    weights: int
    kv_cache: int
    overhead: int
    kv_bytes_per_token: int

    @property
    def free(self) -> int:
        return self.hbm - self.weights - self.kv_cache - self.overhead

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "free": self.free}


def memory_of(facts: ModelFacts, kind: Instance, lnc: int, tp: int, batch: int, sequence: int) -> Memory:
    """Shares weights and KV heads over `tp` cores. KV heads that are fewer than cores are copied, not
    split."""
    hbm = kind.hbm_bytes_per_core(lnc)
    kv_heads_per_core = -(-max(facts.kv_heads, tp) // tp)
    per_token_per_core = facts.kv_bytes_per_token // facts.kv_heads * kv_heads_per_core
    return Memory(
        hbm=hbm,
        weights=-(-facts.weight_bytes // tp),
        kv_cache=per_token_per_core * batch * sequence,
        overhead=int(hbm * _OVERHEAD),
        kv_bytes_per_token=facts.kv_bytes_per_token,
    )
