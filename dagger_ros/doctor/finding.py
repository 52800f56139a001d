"""What can be wrong with a graph: a code that stays the same, and one sentence."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Code", "Finding", "Severity"]


class Severity(enum.IntEnum):
    """What a finding means; the worst is the smallest."""

    ERROR = 0
    """The graph does not work, or not safely."""
    WARNING = 1
    """It works, and something that people rely on is missing."""
    NOTE = 2
    """Nothing is wrong, and it is good to know."""


class Code(enum.Enum):
    """Each thing that can be found; docs/doctor.md explains them."""

    NO_SUPERVISOR = "no_supervisor"
    NO_POLICY = "no_policy"
    NO_EXPERT = "no_expert"
    NO_RECORDER = "no_recorder"
    NO_DRIVER = "no_driver"
    NO_DEADMAN = "no_deadman"
    PAD_NOT_BELIEVED = "pad_not_believed"
    DRIVER_TIMEOUT = "driver_timeout"
    DRIVER_UNTESTED = "driver_untested"
    SECOND_WRITER = "second_writer"
    WRONG_TYPE = "wrong_type"
    QOS_MISMATCH = "qos_mismatch"
    CONTRACT_DIFFERS = "contract_differs"
    NOT_ACTIVE = "not_active"
    NODE_IN_ERROR = "node_in_error"
    SUPERVISOR_OBJECTS = "supervisor_objects"
    TOPIC_MISSING = "topic_missing"
    TOPIC_SILENT = "topic_silent"
    TOPIC_SLOW = "topic_slow"
    TOPIC_OLD = "topic_old"
    STAMP_ZERO = "stamp_zero"
    STAMP_FUTURE = "stamp_future"
    CLOCK_DIFFERS = "clock_differs"
    CLOCK_MISSING = "clock_missing"
    SIM_TIME_MIXED = "sim_time_mixed"
    STRANGERS = "strangers"
    OTHER_GRAPH = "other_graph"
    OPEN_NETWORK = "open_network"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong at one place.

    Args:
        code: What.
        severity: How bad that is.
        where: Topic, node or machine.
        expected: What would be right.
        found: What is there.
        remedy: What to do.
    """

    code: Code
    severity: Severity
    where: str
    expected: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}; found {self.found}. {self.remedy}"
