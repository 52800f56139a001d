"""Which messages of one source count: those that are newer than the last. And a bucket that forgives single faults."""

from __future__ import annotations

import enum

__all__ = ["TOLERATED", "Arrival", "Arrivals", "LeakyBucket"]

# Faults at once before a source is invalid. Source: the message counters of comma's opendbc.
TOLERATED = 5
# What one good message makes up for: of many messages no more than a fifth may be bad, so that two writers whose
# messages alternate are found out. Source: the refill of PX4's delayed failsafe.
_GOOD = 0.25


class LeakyBucket:
    """Fills with faults and drains with what is good; full: not an accident any more."""

    def __init__(self) -> None:
        self.level = 0.0

    @property
    def full(self) -> bool:
        """Whether there were too many faults."""
        return self.level >= TOLERATED

    def add(self) -> None:
        """One fault; it never holds more than what makes it full, so that it drains as soon as things are good."""
        self.level = min(self.level + 1.0, float(TOLERATED))

    def drain(self, amount: float = _GOOD) -> None:
        """One good thing, or some time without a fault."""
        if self.level:
            self.level = max(self.level - amount, 0.0)


class Arrival(enum.Enum):
    """How a message stands to the ones before it."""

    NEXT = enum.auto()
    GAP = enum.auto()
    """Newer, but something is missing in between."""
    DUPLICATE = enum.auto()
    OUT_OF_ORDER = enum.auto()

    @property
    def counts(self) -> bool:
        """Whether the message is newer than what there was, and so to be used."""
        return self in (Arrival.NEXT, Arrival.GAP)


# Looking up a member of an enumeration takes longer than all the rest of `take`.
_NEXT, _GAP = Arrival.NEXT, Arrival.GAP


class Arrivals:
    """The order of the messages of one source.

    Args:
        step: Largest distance between two numbers with nothing missing in between: 1 for counters, and about a
            period in ns for stamps.
        gaps_count: Whether a gap is a fault of the source.
    """

    def __init__(self, step: int, *, gaps_count: bool) -> None:
        self._step = step
        self._gaps_count = gaps_count
        self.clear()

    def clear(self) -> None:
        """As if nothing had come."""
        self._last: int | None = None
        self._behind: int
        self._faults = LeakyBucket()

    @property
    def invalid(self) -> bool:
        """Whether the source keeps doing what it should not."""
        return self._faults.level >= TOLERATED

    def take(self, number: int) -> Arrival:
        """Judges one message.

        Args:
            number: Its counter or stamp.

        Returns:
            What it is. A source that goes on behind the last number (it was started again, or its clock was set)
            is followed after `TOLERATED` messages.
        """
        last = self._last
        if last is not None and number == last:
            self._faults.add()
            return Arrival.DUPLICATE
        if last is not None and number < last:
            self._behind += 1
            if self._behind >= TOLERATED:
                self._last, self._behind = number, 0
            self._faults.add()
            return Arrival.OUT_OF_ORDER
        gap = last is not None and number - last > self._step
        self._last, self._behind = number, 0
        if gap and self._gaps_count:
            self._faults.add()
        else:
            self._faults.drain()
        return _GAP if gap else _NEXT
