"""The row: everything that is known of one control tick, as one numpy structured type."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract.schema import Contract
from dagger_ros.contract.scores import Scores
from dagger_ros.contract.types import MESSAGE_TYPES
from dagger_ros.contract.view import Numbers

__all__ = ["DURATIONS", "NEVER_NS", "Row", "RowLayout"]

# A stamp or a time of something that was never received.
NEVER_NS = -1

# What took how long, s; NaN: not measured.
DURATIONS = ("inference_s", "late_s", "gate_s", "command_s")

Row = Any
"""One element of a structured array of `RowLayout.dtype`, as `rows[i]` gives it (a view, no copy), or its `RowView`."""


class RowLayout:
    """Where each stream of a contract lies in the row.

    The fields of `dtype` are those of `msg/GateDecision.msg`, in its units; the message's comments say what each
    one means. Strings are ASCII bytes of fixed length.

    Args:
        contract: The task contract.

    Attributes:
        streams: Stream names, those that the policy sees first.
        seen_by_policy: (S,) bool, which streams a policy acts on.
        seen_by_expert: (S,) bool, which streams an expert acts on.
        slices: For each stream, in the order of `streams`, its place in `observation` or `privileged`.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.streams = tuple(contract.streams)
        sizes = [len(s.dimensions) for s in contract.streams.values()]
        self._privileged = [s.privileged for s in contract.streams.values()]
        self.seen_by_policy = np.array([not p for p in self._privileged])
        # An expert that is given streams of its own acts on those; any other one on what the policy sees.
        self.seen_by_expert = ~self.seen_by_policy if any(self._privileged) else self.seen_by_policy
        self.slices: list[slice] = []
        end = {False: 0, True: 0}
        for size, privileged in zip(sizes, self._privileged, strict=True):
            self.slices.append(slice(end[privileged], end[privileged] + size))
            end[privileged] += size
        self.observation_size, self.privileged_size = end[False], end[True]
        self.action_size = len(contract.action.dimensions)
        vector = {"O": (end[False],), "P": (end[True],), "A": (self.action_size,), "S": (len(sizes),)}
        self.dtype = np.dtype(
            [
                ("time_ns", "i8"),
                ("monotonic_ns", "i8"),
                ("tick", "i8"),
                ("mode", "u1"),
                ("reasons", "u8"),
                ("observation", "f8", vector["O"]),
                ("privileged", "f8", vector["P"]),
                ("stamp_ns", "i8", vector["S"]),
                ("receive_ns", "i8", vector["S"]),
                ("policy_action", "f8", vector["A"]),
                ("expert_action", "f8", vector["A"]),
                ("requested_action", "f8", vector["A"]),
                ("executed_action", "f8", vector["A"]),
                ("policy_stamp_ns", "i8"),
                ("expert_stamp_ns", "i8"),
                ("policy_receive_ns", "i8"),
                ("expert_receive_ns", "i8"),
                *((name, "f8") for name in Scores._fields),
                ("ask_limits", "f8", (len(Scores._fields),)),
                ("back_limits", "f8", (len(Scores._fields),)),
                ("help", "?"),
                ("label_source", "i1"),
                ("intervention", "i4"),
                ("intervention_reason", "u1"),
                ("expert_intent", "u1"),
                ("expert_reason", "u1"),
                ("requests", "u1"),
                ("missed_ticks", "i4"),
                *((name, "f8") for name in DURATIONS),
                ("round", "i4"),
                ("policy_round", "i4"),
                ("policy", "S32"),
                ("policy_sha256", "S64"),
                ("operator_id", "S64"),
                ("episode", "i4"),
                ("seed", "i8"),
            ]
        )

    def new(self, count: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Rows in which nothing has been received: (count,) of `dtype`; actions and observations are NaN."""
        rows = np.zeros(count, self.dtype)
        for name in ("observation", "privileged", "policy_action", "expert_action"):
            rows[name] = np.nan
        for name in ("requested_action", "executed_action", *Scores._fields, "ask_limits", "back_limits", *DURATIONS):
            rows[name] = np.nan
        for name in (
            "stamp_ns",
            "receive_ns",
            "policy_stamp_ns",
            "expert_stamp_ns",
            "policy_receive_ns",
            "expert_receive_ns",
        ):
            rows[name] = NEVER_NS
        for name in ("label_source", "round", "policy_round", "episode", "seed"):
            rows[name] = -1
        return rows

    def numbers(self, *names: str, gaps: bool = False) -> Numbers:
        """Access to these fields, all at once; see `Numbers`."""
        return Numbers(self.dtype, names, gaps=gaps)

    def stream(self, row: Row, index: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """View of the values of one stream in one row, (n,) float64 in the stream's unit."""
        part = row["privileged"] if self._privileged[index] else row["observation"]
        values: np.ndarray[Any, np.dtype[np.float64]] = part[self.slices[index]]
        return values

    def wire_dtype(self, index: int) -> np.dtype[Any]:
        """Type in which the values of one stream travel in their message."""
        stream = list(self.contract.streams.values())[index]
        return np.dtype(MESSAGE_TYPES[stream.type].wire_dtype)

    def meaning(self) -> dict[str, str]:
        """What each stream and the action hold, in words: rows mean the same under layouts where all of it is equal."""
        parts = {
            f"streams.{name}": f"{', '.join(s.dimensions)} [{s.unit}]{', privileged' if s.privileged else ''}"
            for name, s in self.contract.streams.items()
        }
        action = self.contract.action
        dimensions = ", ".join(f"{d.name} [{d.unit}]" for d in action.dimensions_)
        return parts | {"action": f"{action.interface.value} of {dimensions}"}

    def columns(self) -> tuple[str, ...]:
        """Name of each value of `observation`, as `stream.field`."""
        return tuple(
            f"{name}.{dimension}"
            for name, stream in self.contract.streams.items()
            if not stream.privileged
            for dimension in stream.dimensions
        )

    def resolution(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(O,) float64: for each value of `observation` the contract's resolution, in its unit."""
        streams = [s for s in self.contract.streams.values() if not s.privileged]
        return np.concatenate([np.full(len(s.dimensions), s.resolution) for s in streams])
