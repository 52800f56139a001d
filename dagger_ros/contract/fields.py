"""What single fields of a contract may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "PATTERNS",
    "Count",
    "Flag",
    "Name",
    "NotNegative",
    "Number",
    "Part",
    "Positive",
    "Share",
    "Text",
    "Topic",
]

_NAME = r"^[a-z][a-z0-9_]*$"
# No leading slash, so that a namespace can be put before it.
_TOPIC = r"^[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$"
# What each pattern wants, for messages.
PATTERNS = {
    _NAME: "a name of lower case letters, digits and underscores",
    _TOPIC: "a relative topic name, without a slash before it",
}
Name = Annotated[str, Field(pattern=_NAME)]
Text = Annotated[str, Field(min_length=1)]
Topic = Annotated[str, Field(pattern=_TOPIC)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]


class Part(BaseModel):
    """One section of a file: no key too many, and nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid")
