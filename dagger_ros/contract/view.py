"""A row as the control path uses it: vectors are looked up once, and numbers several at a time."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["VECTORS", "Numbers", "RowView"]

# Fields of a row that hold a number for each value of streams, for each stream, or for each dimension of the action.
VECTORS = (
    "observation",
    "privileged",
    "stamp_ns",
    "receive_ns",
    "policy_action",
    "expert_action",
    "requested_action",
    "executed_action",
)

# Of `struct`, by the kind and size of numpy's types.
_CODES = {"i8": "q", "u8": "Q", "f8": "d", "i4": "i", "u1": "B", "i1": "b", "b1": "?"}


class RowView:
    """One row; `row[name]` reads and writes as in the structured array, and each vector is an attribute of its name.

    Args:
        row: As `rows[i]` gives it. What is written here stands there.

    Attributes:
        bytes: All of the row.
    """

    __slots__ = ("_row", "bytes", *VECTORS)

    observation: Any
    privileged: Any
    stamp_ns: Any
    receive_ns: Any
    policy_action: Any
    expert_action: Any
    requested_action: Any
    executed_action: Any

    def __init__(self, row: Any) -> None:
        self._row = row
        self.bytes: memoryview = np.asarray(row).reshape(1).view(np.uint8).data
        for name in VECTORS:
            setattr(self, name, row[name])

    @staticmethod
    def of(row: Any) -> RowView:
        """The view of a row; of a view itself."""
        return row if type(row) is RowView else RowView(row)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the row."""
        dtype: np.dtype[Any] = self._row.dtype
        return dtype

    def __getitem__(self, name: str) -> Any:
        return self._row[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._row[name] = value


class Numbers:
    """Some fields of a row, read or written all at once as Python's own numbers.

    Args:
        dtype: Of the row.
        names: Of the fields, in the order of the row. A vector counts as its numbers, a string as its bytes with the
            NULs behind them.
        gaps: There may be other fields in between; such numbers are only read.

    Raises:
        ValueError: If there are, and may not be.
    """

    def __init__(self, dtype: np.dtype[Any], names: Sequence[str], *, gaps: bool = False) -> None:
        fields: Any = dtype.fields
        self.start: int = fields[names[0]][1]
        code, end = "=", self.start
        for name in names:
            type_, offset = fields[name][:2]
            if offset < end or (offset > end and not gaps):
                raise ValueError(f"expected fields of the row beside each other, in its order; got {', '.join(names)}")
            code += f"{offset - end}x" if offset > end else ""
            base, count = type_.base, int(np.prod(type_.shape))
            code += f"{base.itemsize}s" if base.kind == "S" else count * _CODES[base.str[1:]]
            end = offset + type_.itemsize
        self.end = end
        self._struct = struct.Struct(code)

    def read(self, row: RowView) -> tuple[Any, ...]:
        """What stands in a row."""
        return self._struct.unpack_from(row.bytes, self.start)

    def write(self, row: RowView, *values: Any) -> None:
        """Writes one value for each number."""
        self._struct.pack_into(row.bytes, self.start, *values)

    def pack(self, *values: Any) -> bytes:
        """The same as bytes, for `row.bytes[start:end]`."""
        return self._struct.pack(*values)
