"""The newest values of every stream, and the observation part of a row made from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, Row, RowLayout

__all__ = ["NewestStreams"]

Vector = np.ndarray[Any, np.dtype[np.float64]]


class NewestStreams:
    """Keeps the newest sample of each stream; what arrives older than what is there is left out.

    Args:
        layout: Row of the contract.
    """

    def __init__(self, layout: RowLayout) -> None:
        self._rows = layout.new(1)
        self._held = self._rows[0]  # a view
        self._layout = layout

    def clear(self) -> None:
        """As if nothing had been received."""
        self._rows[:] = self._layout.new(1)

    def put(self, index: int, values: Vector, stamp_ns: int, receive_ns: int) -> None:
        """Takes one sample.

        Args:
            index: Stream, in contract order.
            values: (n,) float64 in the stream's unit; copied.
            stamp_ns: Header stamp, ns.
            receive_ns: When it came, ns on the monotonic clock.
        """
        if self._held["receive_ns"][index] != NEVER_NS and stamp_ns < self._held["stamp_ns"][index]:
            return
        self._layout.stream(self._held, index)[:] = values
        self._held["stamp_ns"][index] = stamp_ns
        self._held["receive_ns"][index] = receive_ns

    def stamp_ns(self, index: int) -> int:
        """Header stamp of the newest sample of a stream, ns; -1: none."""
        return int(self._held["stamp_ns"][index])

    def fill(self, row: Row) -> None:
        """Writes observations, stamps and times of receipt into a row."""
        for name in ("observation", "privileged", "stamp_ns", "receive_ns"):
            row[name] = self._held[name]
