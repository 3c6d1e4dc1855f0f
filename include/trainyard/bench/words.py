"""Text of a known length, without a tokenizer."""

from __future__ import annotations

import random
from functools import lru_cache

# Common English words: about one token each in every tokenizer in use, so none has to be downloaded.
WORDS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an
they which one you were all her she there would their we him been has when who will no more if out
so up said what its about than into them can only other time new some could these two may first then
do any like my now over such our man me even most made after also did many off before must well back
through years much where your way down should because long each just state people those too mr how
little good world make very year still see own work men day get here old between both life being
under three never know same last
""".split()  # noqa: SIM905
BLOCKS_KEPT = 4096  # of a few kilobytes each


def prompt(tokens: int, seed: object) -> str:
    """About `tokens` tokens of words. Different seeds share no prefix, so no prefix cache answers."""
    chosen = random.Random(str(seed))
    return " ".join(chosen.choices(WORDS, k=max(1, tokens)))


@lru_cache(BLOCKS_KEPT)
def block(tokens: int, seed: str) -> str:
    """The same, for text that many requests share."""
    return prompt(tokens, seed)
