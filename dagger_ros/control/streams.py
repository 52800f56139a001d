"""The newest values of every stream, and the observation part of a row made from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract import Row, RowLayout
from dagger_ros.supervisor import Arrival, Arrivals, Reason

__all__ = ["GAP_PERIODS", "NewestStreams"]

Vector = np.ndarray[Any, np.dtype[np.float64]]

# Of a stream's period: a stamp so much later than the one before skipped a message.
GAP_PERIODS = 1.5


class NewestStreams:
    """Keeps the newest sample of each stream; what comes twice or out of order is left out and said.

    Args:
        layout: Row of the contract.
    """

    def __init__(self, layout: RowLayout) -> None:
        self._layout = layout
        self._rows = layout.new(1)
        self._held = self._rows[0]  # a view
        streams = layout.contract.streams.values()
        self._arrivals = [Arrivals(round(GAP_PERIODS * 1e9 / s.rate_hz), gaps_count=False) for s in streams]
        self._malformed: set[int] = set()
        self._notes = 0

    def clear(self) -> None:
        """As if nothing had been received."""
        self._rows[:] = self._layout.new(1)
        for arrivals in self._arrivals:
            arrivals.clear()
        self._malformed.clear()
        self._notes = 0

    def put(self, index: int, values: Vector | None, stamp_ns: int, receive_ns: int) -> Arrival:
        """Takes one sample.

        Args:
            index: Stream, in contract order.
            values: (n,) float64 in the stream's unit; copied. None: the message lacked a field.
            stamp_ns: Header stamp, ns.
            receive_ns: When it came, ns on the monotonic clock.

        Returns:
            How it stands to the ones before; it is kept if it `counts`.
        """
        arrival = self._arrivals[index].take(stamp_ns)
        if arrival is not Arrival.NEXT:
            self._notes |= int(Reason[f"OBSERVATION_{arrival.name}"])
        if not arrival.counts:
            return arrival
        if values is None:
            self._malformed.add(index)
        else:
            self._malformed.discard(index)
        self._layout.stream(self._held, index)[:] = np.nan if values is None else values
        self._held["stamp_ns"][index] = stamp_ns
        self._held["receive_ns"][index] = receive_ns
        return arrival

    def stamp_ns(self, index: int) -> int:
        """Header stamp of the newest sample of a stream, ns; -1: none."""
        return int(self._held["stamp_ns"][index])

    def fill(self, row: Row) -> None:
        """Writes observations, stamps, times of receipt, and what is to be said of how messages came."""
        for name in ("observation", "privileged", "stamp_ns", "receive_ns"):
            row[name] = self._held[name]
        bits, self._notes = self._notes, 0
        if self._malformed:
            bits |= int(Reason.OBSERVATION_SIZE)
        if any(arrivals.invalid for arrivals in self._arrivals):
            bits |= int(Reason.OBSERVATION_SEQUENCE)
        if bits:
            row["reasons"] |= np.uint64(bits)
