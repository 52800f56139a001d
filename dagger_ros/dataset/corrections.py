"""Messages of an episode in, those out that surround the expert's driving."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from dagger_ros.contract import Mode, mode_of

__all__ = ["CorrectionFilter", "Received"]


class Received(NamedTuple):
    """A serialized message of a topic, and when it was received, ns."""

    topic: str
    time_ns: int
    data: bytes


class CorrectionFilter:
    """Lets pass what the expert drove, and what came shortly before; holds the latter in memory until it is known.

    Args:
        decisions: Topic of GateDecision, which says who drives.
        always: Topics that pass whoever drives.
        before_ns: Messages so much older than a takeover pass with it, ns; memory is bounded by it.
    """

    def __init__(self, *, decisions: str, always: Collection[str], before_ns: int) -> None:
        self._decisions, self._always, self._before_ns = decisions, always, before_ns
        self._held: deque[Received] = deque()
        self._expert_drives = False

    def take(self, message: Received) -> list[Received]:
        """Takes a message, in the order of receipt, and gives what is to be kept now, oldest first."""
        if message.topic in self._always:
            return [message]
        drove = self._expert_drives
        if message.topic == self._decisions:
            self._expert_drives = mode_of(message.data) == Mode.EXPERT
        self._held.append(message)
        # Where the clock was set back, what is held is of a time to come.
        while not 0 <= message.time_ns - self._held[0].time_ns <= self._before_ns:
            self._held.popleft()
        if not drove and not self._expert_drives:  # the decision that ends a correction belongs to it
            return []
        kept = list(self._held)
        self._held.clear()
        return kept
