"""The newest values of every stream, and the observation part of a row made from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract import CdrReader, Row, RowLayout, RowView
from dagger_ros.supervisor import Arrival, Arrivals, Reason

__all__ = ["GAP_PERIODS", "NewestStreams"]

Vector = np.ndarray[Any, np.dtype[np.float64]]

# Of a stream's period: a stamp so much later than the one before skipped a message.
GAP_PERIODS = 1.5

_NOTES: dict[Arrival, int] = {
    arrival: int(Reason[f"OBSERVATION_{arrival.name}"]) for arrival in Arrival if arrival is not Arrival.NEXT
}
_NEXT, _GAP = Arrival.NEXT, Arrival.GAP
_SIZE, _SEQUENCE = int(Reason.OBSERVATION_SIZE), int(Reason.OBSERVATION_SEQUENCE)
# What it writes, side by side in the row.
_WRITTEN = ("observation", "privileged", "stamp_ns", "receive_ns")


class NewestStreams:
    """Keeps the newest sample of each stream; what comes twice or out of order is left out and said.

    Args:
        layout: Row of the contract.
    """

    def __init__(self, layout: RowLayout) -> None:
        self._layout = layout
        self._held = RowView(layout.new(1)[0])
        self._values = [layout.stream(self._held, i) for i in range(len(layout.streams))]
        self._stamps_ns, self._receives_ns = self._held.stamp_ns, self._held.receive_ns
        streams = layout.contract.streams.values()
        self._arrivals = [Arrivals(round(GAP_PERIODS * 1e9 / s.rate_hz), gaps_count=False) for s in streams]
        self._malformed: set[int] = set()
        self._notes = 0
        written, reasons = layout.numbers(*_WRITTEN), layout.numbers("reasons")
        self._part, self._reasons = slice(written.start, written.end), reasons
        self._held_part = self._held.bytes[self._part]

    def clear(self) -> None:
        """As if nothing had been received."""
        self._held_part[:] = RowView(self._layout.new(1)[0]).bytes[self._part]
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
        arrival = self._arrive(index, stamp_ns, receive_ns)
        if arrival.counts:
            if values is None:
                self._lack(index)
            else:
                self._values[index][:] = values
                self._malformed.discard(index)
        return arrival

    def take(self, index: int, reader: CdrReader, message: bytes, stamp_ns: int, receive_ns: int) -> None:
        """Takes one sample from its serialized message, straight to where it is kept.

        Args:
            index: Stream, in contract order.
            reader: Of the stream.
            message: Of its type.
            stamp_ns: As for `put`.
            receive_ns: Likewise.
        """
        arrival = self._arrive(index, stamp_ns, receive_ns)
        if arrival is _NEXT or arrival is _GAP:
            if not reader.read(message, self._values[index]):
                self._lack(index)
            elif self._malformed:
                self._malformed.discard(index)

    def stamp_ns(self, index: int) -> int:
        """Header stamp of the newest sample of a stream, ns; -1: none."""
        return int(self._stamps_ns[index])

    def fill(self, row: Row) -> None:
        """Writes observations, stamps, times of receipt, and what is to be said of how messages came."""
        view = RowView.of(row)
        view.bytes[self._part] = self._held_part
        bits, self._notes = self._notes, 0
        if self._malformed:
            bits |= _SIZE
        for arrivals in self._arrivals:
            if arrivals.invalid:
                bits |= _SEQUENCE
        if bits:
            self._reasons.write(view, self._reasons.read(view)[0] | bits)

    def _arrive(self, index: int, stamp_ns: int, receive_ns: int) -> Arrival:
        """Judges the order of a sample, and takes its times if it counts."""
        arrival = self._arrivals[index].take(stamp_ns)
        if arrival is not _NEXT:
            self._notes |= _NOTES[arrival]
            if arrival is not _GAP:
                return arrival
        self._stamps_ns[index] = stamp_ns
        self._receives_ns[index] = receive_ns
        return arrival

    def _lack(self, index: int) -> None:
        """The newest message of a stream lacks a field."""
        self._values[index].fill(np.nan)
        self._malformed.add(index)
