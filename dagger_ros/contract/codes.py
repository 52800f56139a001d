"""The small numbers that stand in a row, and what an expert says beside its action."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Act", "ExpertIntent", "Intent", "InterventionReason", "Label", "Mode"]


class Mode(enum.IntEnum):
    """Who drives. The numbers are those of `msg/GateDecision.msg`."""

    LOCKED = 0
    """Boot, an observation that was never seen or is stale, contract mismatch. Only arming leads out."""
    HOLD = 1
    """Armed, nobody drives."""
    POLICY = 2
    EXPERT = 3
    ESTOP = 4
    """Latched. Only its reset leads out, and only to HOLD."""


class Label(enum.IntEnum):
    """Whose action labels the observation. The numbers are those of `msg/GateDecision.msg`."""

    NONE = -1
    POLICY = 0
    EXPERT = 1


class InterventionReason(enum.IntEnum):
    """Why the expert has control. The numbers are those of `msg/ExpertAction.msg`."""

    NONE = 0
    PERCEPTION = 1
    STATE_ESTIMATION = 2
    PLANNING = 3
    CONTROL = 4
    TIMING = 5
    DATA_COVERAGE = 6
    EVALUATION = 7
    TOLERANCE = 8
    NO_PROGRESS = 9
    DEMONSTRATION = 10
    ASKED = 11


class Act(enum.IntEnum):
    """What the operator does at the pad. The numbers are those of `msg/OperatorAct.msg`."""

    TAKEOVER = 1
    RELEASE = 2
    ARM = 3
    HOLD = 4
    RESUME = 5
    ESTOP = 6
    SUCCESS = 7
    FAILURE = 8
    DISCARD = 9
    UNDO = 10
    REASON = 11
    BEGIN = 12


class Intent(enum.IntFlag):
    """What the expert asks for, as it stands in a row. The numbers are those of `msg/GateDecision.msg`."""

    LABEL = 1
    TAKEOVER = 2
    RESUME = 4
    UNATTENDED = 8


# As plain numbers: operations on flags are slow, and these are done at every tick.
_LABEL, _TAKEOVER, _RESUME, _UNATTENDED = (int(intent) for intent in Intent)


@dataclass
class ExpertIntent:
    """What the expert asks for beside its action; the fields of `msg/ExpertAction.msg`.

    Args:
        label: The action may be learned as the label of the observation.
        takeover: The expert wants control, or keeps it (deadman).
        resume: Control is explicitly given back to the policy.
        reason: Why the expert wants control.
        unattended: A script, which has no deadman. Anybody else drives only while `takeover` or `label` is true.
    """

    label: bool = False
    takeover: bool = False
    resume: bool = False
    reason: InterventionReason = InterventionReason.NONE
    unattended: bool = False

    def bits(self) -> int:
        """All but the reason as a mask of `Intent`."""
        return self.label * _LABEL + self.takeover * _TAKEOVER + self.resume * _RESUME + self.unattended * _UNATTENDED
