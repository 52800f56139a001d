"""Who drives: the events that change the mode, and the one table of transitions."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from dagger_ros.contract import Mode

__all__ = ["TRANSITIONS", "Event", "next_mode"]


class Event(enum.IntEnum):
    """What can change the mode."""

    ARM = 0
    """A person (or a simulation) arms; the gate passes it on only while every observation is fresh."""
    RESUME = 1
    """Control is explicitly given to the policy."""
    TAKEOVER = 2
    """The expert takes control."""
    RELEASE = 3
    """The expert lets go."""
    HOLD = 4
    """Somebody asks to hold, or the driver of this mode has nothing usable to say."""
    LOCK = 5
    """An observation is missing or stale."""
    ESTOP = 6
    RESET_ESTOP = 7


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
