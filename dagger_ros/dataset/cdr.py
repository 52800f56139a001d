"""Serialized messages as arrays: many of one type at once, without a Python object for each value.

Messages of the same lengths of strings and sequences have each value at the same place, so that all of them are one
structured array that looks into their bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

__all__ = ["Field", "fields_of", "read_messages"]

_HEADER = 4  # bytes before the payload, from whose begin values are aligned
_LITTLE_ENDIAN = 1
_PRIMITIVES = {
    "bool": "u1",
    "byte": "u1",
    "char": "u1",
    "octet": "u1",
    **{f"{kind}int{bits}": f"{kind or 'i'}{bits // 8}" for kind in ("", "u") for bits in (8, 16, 32, 64)},
    "float32": "f4",
    "float64": "f8",
}


@dataclass(frozen=True)
class Field:
    """One value of a message, or a string or a sequence of values.

    Args:
        name: Path inside the message, as in `header.stamp.sec`.
        format: numpy format of a value; empty: a string.
        count: How many; None: the message says it.
    """

    name: str
    format: str
    count: int | None


def fields_of(typestore: Typestore, type_: str, prefix: str = "") -> tuple[Field, ...]:
    """Every value of a message type in the order in which it is serialized.

    Raises:
        KeyError: If the type holds something other than values, strings, and arrays and sequences of values.
    """
    fields: list[Field] = []
    kind: Nodetype
    what: Any
    for name, (kind, what) in typestore.fielddefs[type_][1]:
        path = prefix + name
        if kind is Nodetype.NAME:
            fields += fields_of(typestore, what, f"{path}.")
            continue
        (of, detail), count = what if kind is not Nodetype.BASE else ((kind, what), 1)
        base = detail[0] if of is Nodetype.BASE else "message"
        if kind is Nodetype.BASE and base == "string":
            fields.append(Field(path, "", None))
        else:
            fields.append(Field(path, _PRIMITIVES[base], None if kind is Nodetype.SEQUENCE else count))
    return tuple(fields)


def read_messages(
    data: Sequence[bytes], fields: Sequence[Field]
) -> Iterator[tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[Any]]]]:
    """Reads messages of one type, those of one layout at a time.

    Args:
        data: Serialized messages (CDR, as ROS 2 writes it).
        fields: Of their type.

    Returns:
        For each layout which messages have it, as indices, and their values: a structured array with the names of the
        fields. It is a view: strings have no end mark, a sequence of no values is a (n, 0) array.

    Raises:
        ValueError: If a message is not one of the type; the message of the error begins with its index.
    """
    lengths = np.fromiter(map(len, data), np.int64, len(data))
    for length in np.unique(lengths).tolist():
        left = np.flatnonzero(lengths == length)
        while len(left):
            first = data[left[0]]
            try:
                dtype = _layout(first, fields)
            except (ValueError, struct.error) as error:
                raise ValueError(f"{left[0]}: {error}") from error
            values = np.frombuffer(b"".join([data[i] for i in left.tolist()]), dtype)
            counts = [name for name in dtype.names or () if name[-1] == "#"]
            same = np.logical_and.reduce([values[name] == values[name][0] for name in counts])
            yield left[same], values[same]
            left = left[~same]


def _layout(message: bytes, fields: Sequence[Field]) -> np.dtype[Any]:
    """Where everything lies in a message: each field, and the number of values before it where there is one."""
    if len(message) < _HEADER:
        raise ValueError(f"expected a serialized message, got {len(message)} bytes")
    order = "<" if message[1] & _LITTLE_ENDIAN else ">"
    names, formats, offsets = ["#"], ["V2"], [0]
    end = _HEADER
    for field in fields:
        count = field.count
        if count is None:
            at = _aligned(end, 4)
            (count,) = struct.unpack_from(f"{order}I", message, at)
            names.append(f"{field.name}#")
            formats.append(f"{order}u4")
            offsets.append(at)
            end = at + 4
        if field.format:
            size, format_ = int(field.format[1:]), f"{order}{field.format}"
            end = _aligned(end, size) if count else end  # where there is nothing, nothing is aligned
            formats.append(format_ if field.count == 1 else f"({count},){format_}")
        else:
            size = 1
            formats.append(f"S{max(count - 1, 0)}")  # without its end mark
        names.append(field.name)
        offsets.append(end)
        end += count * size
        if end > len(message):
            raise ValueError(f"expected {field.name} to end within the {len(message)} bytes of the message")
    if len(message) - end > 3:  # what the next value would have been aligned by
        raise ValueError(f"expected the message to end at byte {end}, it has {len(message)}")
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": len(message)})


def _aligned(offset: int, size: int) -> int:
    return offset + (_HEADER - offset) % size
