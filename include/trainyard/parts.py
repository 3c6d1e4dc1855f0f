"""What every part of a spec has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    # Infinity is no objective, and JSON cannot say it.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
