"""Descriptions that were written as JSON, read with the type of every value checked."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from dagger_ros.contract import DaggerError
from dagger_ros.contract.load import problems_of

__all__ = ["read_record"]

# How pydantic says of a dataclass that a key is not known.
_EXTRA = "Unexpected keyword argument"


class _Record(Protocol):
    @property
    def schema(self) -> str:
        """Its format, with a version."""


_T = TypeVar("_T", bound=_Record)


def read_record(path: Path, kind: type[_T], what: str, schema: str) -> _T:
    """Reads a dataclass.

    Args:
        path: The file.
        kind: The dataclass.
        what: Of what it is the description, for the messages.
        schema: That it has.

    Raises:
        DaggerError: If it is not one.
        OSError: If it cannot be read.
    """
    text = path.read_bytes()
    try:
        record = TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise DaggerError(f"{path}: expected {what} ({schema}); {error.errors()[0]['msg']}") from error
        problems = [f"  {problem}".replace(_EXTRA, "no such key here") for problem in problems_of(error)]
        raise DaggerError("\n".join([f"{path}: expected {what} ({schema})", *problems])) from error
    if record.schema != schema:
        raise DaggerError(f"{path}: expected {what} ({schema}), found {record.schema}")
    return record
