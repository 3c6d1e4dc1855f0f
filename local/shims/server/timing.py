"""The timing model: what a step of the engine takes.

Decoders on Neuron encode one prompt at a time and generate one token for the whole batch at a time: time to
first token grows with the prompts encoded before, and inter-token time with the sequences that run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TimingModel:
    """Seconds; `slow` is the fault knob's factor on all of them."""

    encode_base: float = 0.011
    encode_per_token: float = 0.00003
    decode_base: float = 0.004
    decode_per_sequence: float = 0.00012
    slow: float = 1.0

    def encode(self, prompt_tokens: int) -> float:
        """Time to encode one prompt, and to have its first token."""
        return self.slow * (self.encode_base + self.encode_per_token * prompt_tokens)

    def decode(self, running: int) -> float:
        """Time to generate one token for each of `running` sequences."""
        return self.slow * (self.decode_base + self.decode_per_sequence * running)
