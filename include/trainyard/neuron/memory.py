"""Does a model fit the cores it is given? Weights and KV cache, per logical core.

Kept simple where engines differ by less than a percent: embedding and output matrix count as shared out (they
are, in NxD Inference and optimum-neuron alike), norms and routers too (they are copied, but are small).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from trainyard.neuron.instances import Instance
from trainyard.neuron.models import ModelFacts

# Activations, the runtime's own buffers and the NEFFs: measured systems keep about a tenth of HBM for them.
OVERHEAD = 0.10


@dataclass(frozen=True)
class Memory:
    """Bytes, for one logical core unless the name says otherwise.

    weights: with the copies that sharding makes. weights_total: the model's, over all cores and without them.
    """

    hbm: int
    weights: int
    kv_cache: int
    overhead: int
    kv_bytes_per_token: int
    weights_total: int
    copies: int

    @property
    def free(self) -> int:
        return self.hbm - self.weights - self.kv_cache - self.overhead

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "free": self.free}


def memory_of(
    facts: ModelFacts,
    kind: Instance,
    lnc: int,
    tp: int,
    batch: int,
    sequence: int,
    weight_bytes: int | None = None,
) -> Memory:
    """weight_bytes: as they are loaded (dequantized or quantized); default: as published."""
    hbm = kind.hbm_bytes_per_core(lnc)
    total = facts.weight_bytes if weight_bytes is None else weight_bytes
    copies = _copies(facts, tp)
    return Memory(
        hbm=hbm,
        weights=-(-total // tp) + copies,
        kv_cache=_kv_bytes_per_token(facts, tp) * batch * sequence,
        overhead=int(hbm * OVERHEAD),
        kv_bytes_per_token=facts.kv_bytes_per_token,
        weights_total=total,
        copies=copies,
    )


def kv_heads_on(facts: ModelFacts, tp: int) -> int:
    """KV heads on one of `tp` cores, copies included.

    Where neither number divides the other, NxD's attention gives each query head a KV head of its own (its
    CONVERT_TO_MHA), and others would have to do something like it.
    """
    if facts.kv_heads % tp == 0 or tp % facts.kv_heads == 0:
        return -(-facts.kv_heads // tp)
    return -(-max(facts.heads, facts.kv_heads) // tp)


def _kv_bytes_per_token(facts: ModelFacts, tp: int) -> int:
    if facts.latent:
        return facts.kv_bytes_per_token_on(tp)
    return facts.kv_bytes_per_token // facts.kv_heads * kv_heads_on(facts, tp)


def _copies(facts: ModelFacts, tp: int) -> int:
    """Bytes of weights that a core holds beyond its share: whole heads are dealt out.

    KV heads that are fewer than cores are copied to each core that attends with them; query heads that cannot
    be dealt evenly are padded. 16 bit: a fraction of a percent where they are quantized.
    """
    query = -(-facts.heads // tp) * tp - facts.heads
    # Latent attention has no KV heads of its own: its small down-projection is copied, as norms are.
    keys = 0 if facts.latent else kv_heads_on(facts, tp) * tp - facts.kv_heads
    # A query head has a part in the input and in the output projection, a KV head in those of K and V.
    return facts.layers * 2 * 2 * facts.hidden * facts.head_dim * (query + keys) // tp


def size(count: int) -> str:
    """Bytes for people: GB of 10**9."""
    return f"{count / 1e9:.1f} GB" if abs(count) >= 10**8 else f"{count / 1e6:.1f} MB"
