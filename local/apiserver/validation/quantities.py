"""Resource quantities (k8s.io/apimachinery/pkg/api/resource), exact."""

from __future__ import annotations

import re
from decimal import Decimal

QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]*)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]+)?")
QUANTITY_TEXT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_SCALE = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_quantity(text: str) -> Decimal:
    """The amount that `text` stands for, such as 0.5 for "500m"; ValueError if it is no quantity."""
    found = QUANTITY.fullmatch(text)
    if not found or not re.search(r"[0-9]", found[1]):
        raise ValueError(QUANTITY_TEXT)
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix.endswith("i"):
        return number * Decimal(1024) ** ("KMGTPE".index(suffix[0]) + 1)
    if suffix in _SCALE:
        return number.scaleb(_SCALE[suffix])
    return number.scaleb(int(suffix[1:]))
