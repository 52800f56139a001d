"""Deadlines at a fixed rate, as a function of the time that it is given."""

from __future__ import annotations

__all__ = ["Deadlines"]


class Deadlines:
    """Absolute deadlines, one period apart from the first tick on, so that lateness does not add up.

    Args:
        period_ns: Control period.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._next_ns: int | None = None

    def take(self, now_ns: int) -> int:
        """Counts a tick at this time.

        Returns:
            How many whole periods were missed just before it. They are not made up for.
        """
        if self._next_ns is None:
            self._next_ns = now_ns
        missed = max(0, (now_ns - self._next_ns) // self._period_ns)
        # A tick may come a little before its deadline, but each deadline has one tick.
        self._next_ns += (missed + 1) * self._period_ns
        return missed
