"""Deadlines at a fixed rate, as a function of the time that it is given."""

from __future__ import annotations

__all__ = ["Deadlines"]

# Of a period: how long before its deadline a tick may be taken for something that came. Ticks are then at most 1.4
# periods apart, and the limits on motion hold whatever the time up to 1.5.
_EARLY = 0.4
# Where that comes regularly: by how much the deadlines move at a time until it is early enough, and which share of the
# way to the middle of that time they go when it is.
_SHIFT, _FOLLOW = 0.1, 0.125


class Deadlines:
    """Absolute deadlines, one period apart from the first tick on, so that lateness does not add up.

    Args:
        period_ns: Control period.

    Attributes:
        due_ns: The next deadline; None: there was no tick yet.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._early_ns, self._shift_ns = int(_EARLY * period_ns), int(_SHIFT * period_ns)
        self._arrivals, self._in_vain = 0, False
        self.due_ns: int | None = None

    def take(self, now_ns: int) -> int:
        """Counts a tick at this time.

        Returns:
            How many whole periods were missed just before it. They are not made up for.
        """
        due_ns = now_ns if self.due_ns is None else self.due_ns
        ahead_ns, once = due_ns - now_ns, self._arrivals == 1
        self._in_vain, self._arrivals = once and ahead_ns <= 0, 0
        missed = max(0, (now_ns - due_ns) // self._period_ns)
        # A tick may come a little before its deadline, but each deadline has one tick.
        self.due_ns = due_ns + (missed + 1) * self._period_ns
        if once and ahead_ns > 0:
            self.due_ns += int(_FOLLOW * (self._early_ns / 2 - ahead_ns))
        return missed

    def arrive(self, now_ns: int) -> bool:
        """Whether to tick at once, ahead of the deadline, for something to decide on that has come.

        There is one tick a period all the same. What comes once a period finds its tick within a few of them, since the
        deadlines follow it.
        """
        if self.due_ns is None:
            return False
        self._arrivals += 1
        ahead_ns = self.due_ns - now_ns
        if ahead_ns <= self._early_ns:
            return True
        if self._in_vain:
            self._in_vain = False
            self.due_ns += self._shift_ns if 2 * ahead_ns > self._period_ns else -self._shift_ns
        return False
