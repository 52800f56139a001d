"""The row as a message and back: the one place that knows both."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from dagger_ros.contract.messages import stamp_from_ns, stamp_ns
from dagger_ros.contract.row import DURATIONS, Row
from dagger_ros.contract.scores import Scores
from dagger_ros.contract.view import Numbers, RowView

__all__ = ["DecisionWriter", "mode_of", "read_decision"]

_VECTORS = (
    "observation",
    "privileged",
    "stamp_ns",
    "receive_ns",
    "policy_action",
    "expert_action",
    "requested_action",
    "executed_action",
    "ask_limits",
    "back_limits",
)
_INTEGERS = (
    "tick",
    "monotonic_ns",
    "mode",
    "reasons",
    "policy_stamp_ns",
    "expert_stamp_ns",
    "policy_receive_ns",
    "expert_receive_ns",
    "label_source",
    "intervention",
    "intervention_reason",
    "expert_intent",
    "expert_reason",
    "requests",
    "missed_ticks",
    "round",
    "policy_round",
    "episode",
    "seed",
)
_FLOATS = (*Scores._fields, *DURATIONS)
_FLAGS = ("help",)
_STRINGS = ("policy", "policy_sha256", "operator_id")


class DecisionWriter:
    """Fills one preallocated GateDecision from rows.

    Args:
        message: An empty `dagger_ros/msg/GateDecision`, of rclpy or of a bag's reader, whose vectors are numpy arrays.
        row: Any row of the layout, for the sizes.
        contract_sha256: Stands in every message.
    """

    def __init__(self, message: Any, row: Row, contract_sha256: str) -> None:
        self.message = message
        message.contract_sha256 = contract_sha256
        for name in _VECTORS:
            is_array = isinstance(getattr(message, name), np.ndarray)
            setattr(message, name, row[name].copy() if is_array else row[name].tolist())
        self._views = [(name, np.asarray(getattr(message, name))) for name in _VECTORS]
        dtype = row.dtype
        single = {*_INTEGERS, *_FLOATS, *_FLAGS}
        self._names = [name for name in dtype.names if name in single]
        self._numbers, self._time = Numbers(dtype, self._names, gaps=True), Numbers(dtype, ["time_ns"])
        self._strings = Numbers(dtype, _STRINGS)

    def fill(self, row: Row, reasons_text: str) -> Any:
        """Writes a row.

        Args:
            row: Decided row.
            reasons_text: Its reasons in words.

        Returns:
            The message; the same object at each call, valid until the next one.
        """
        message, view = self.message, RowView.of(row)
        stamp_from_ns(message.header.stamp, *self._time.read(view))
        message.reasons_text = reasons_text
        for name, target in self._views:
            target[:] = view[name]
        for name, value in zip(self._names, self._numbers.read(view), strict=True):
            setattr(message, name, value)
        for name, text in zip(_STRINGS, self._strings.read(view), strict=True):
            setattr(message, name, text.rstrip(b"\0").decode("ascii", "replace"))
        return message


def read_decision(message: Any, row: Row) -> bool:
    """Writes a GateDecision into a row.

    Args:
        message: Of this version, as rclpy or a bag's reader gives it. `dataset.rows` reads those of earlier ones.
        row: Of the layout of the contract that the message was made under.

    Returns:
        Whether its vectors have the row's sizes; False: the row is unfinished.
    """
    row["time_ns"] = stamp_ns(message.header.stamp)
    for name in _VECTORS:
        values = np.asarray(getattr(message, name))
        if values.shape != row[name].shape:
            return False
        row[name] = values
    for name in (*_INTEGERS, *_FLOATS, *_FLAGS):
        row[name] = getattr(message, name)
    for name in _STRINGS:
        row[name] = getattr(message, name).encode("ascii", "replace")
    return True


def mode_of(data: bytes) -> int:
    """Who drives, of a serialized GateDecision, without decoding the rest of it.

    Args:
        data: CDR with its header of 4 bytes, as it is on the wire and in a bag.

    Returns:
        As in `Mode`, if the writer knows it.

    Raises:
        struct.error, IndexError: If the bytes end before it.
    """
    order = "<" if data[1] else ">"
    # Fields are aligned from behind the CDR header: stamp (8), frame_id (length with its NUL, bytes), tick (8, aligned
    # to 8), monotonic_ns (8), contract_sha256 (length, bytes), mode.
    (frame_id,) = struct.unpack_from(f"{order}I", data, 12)
    tick = 4 + -(-(12 + frame_id) // 8) * 8
    (sha256,) = struct.unpack_from(f"{order}I", data, tick + 16)
    return int(data[tick + 20 + sha256])
