"""Text of a known length, without a tokenizer."""

from __future__ import annotations

import random
from collections import OrderedDict

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
KEPT_CHARACTERS = 64 << 20


def prompt(tokens: int, seed: object) -> str:
    """About `tokens` tokens of words. Different seeds share no prefix, so no prefix cache answers."""
    chosen = random.Random(str(seed))
    return " ".join(chosen.choices(WORDS, k=max(1, tokens)))


class Shared:
    """Texts that many requests share, the last used ones kept. The same as `prompt` makes."""

    def __init__(self, most: int = KEPT_CHARACTERS) -> None:
        self._most, self._held = most, 0
        self._texts: OrderedDict[tuple[int, str], str] = OrderedDict()

    def text(self, tokens: int, seed: str) -> str:
        found = self._texts.get((tokens, seed))
        if found is not None:
            self._texts.move_to_end((tokens, seed))
            return found
        made = self._texts[tokens, seed] = prompt(tokens, seed)
        self._held += len(made)
        while self._held > self._most and len(self._texts) > 1:
            self._held -= len(self._texts.popitem(last=False)[1])
        return made
