"""Who drives: the events that change the mode, and the one table of transitions."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

from dagger_ros.contract import Mode

__all__ = ["TRANSITIONS", "Event", "events_of", "next_mode"]


class Event(enum.IntEnum):
    """What can change the mode, the more restrictive the later: of several in one tick the last one prevails."""

    RESET_ESTOP = 0
    ARM = 1
    """A person (or a simulation) arms; the gate passes it on only while every observation is fresh."""
    RESUME = 2
    """Control is explicitly given to the policy."""
    TAKEOVER = 3
    """The expert takes control."""
    RELEASE = 4
    """The expert lets go."""
    HOLD = 5
    """Somebody asks to hold, or the driver of this mode has nothing usable to say."""
    LOCK = 6
    """An observation is missing or stale, or the robot is not where it was."""
    ESTOP = 7

    @property
    def bit(self) -> int:
        """Its place in a row's `requests`."""
        return 1 << self


_DRIVEN = (Mode.POLICY, Mode.EXPERT)
_NOT_STOPPED = (Mode.LOCKED, Mode.HOLD, *_DRIVEN)

# What is not in the table leaves the mode as it is. Letting go leads to HOLD, never straight back to the policy.
TRANSITIONS: Mapping[tuple[Mode, Event], Mode] = {
    (Mode.LOCKED, Event.ARM): Mode.HOLD,
    (Mode.HOLD, Event.RESUME): Mode.POLICY,
    (Mode.HOLD, Event.TAKEOVER): Mode.EXPERT,
    (Mode.POLICY, Event.TAKEOVER): Mode.EXPERT,
    (Mode.EXPERT, Event.RELEASE): Mode.HOLD,
    **{(mode, Event.HOLD): Mode.HOLD for mode in _DRIVEN},
    **{(mode, Event.LOCK): Mode.LOCKED for mode in _NOT_STOPPED},
    **{(mode, Event.ESTOP): Mode.ESTOP for mode in Mode},
    (Mode.ESTOP, Event.RESET_ESTOP): Mode.HOLD,
}


def next_mode(mode: Mode, event: Event) -> Mode:
    """The mode after an event."""
    return TRANSITIONS.get((mode, event), mode)


def events_of(requests: int) -> Iterator[Event]:
    """The events in a row's `requests`, the most restrictive last."""
    return (event for event in Event if requests & event.bit)
