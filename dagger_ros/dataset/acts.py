"""What the operator did at the pad: as it stands in episode.json, and what it means for the labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, Act, Contract, InterventionReason, Label, stamp_ns

__all__ = ["ENDS", "ActLog", "act_of", "corrections", "undo"]

# Acts that end an episode.
ENDS = (Act.DISCARD, Act.SUCCESS, Act.FAILURE)
# An emergency stop that was not repeated for so long is another one.
_ESTOP_PERIODS = 5


class ActLog:
    """What the operator did in one episode.

    Args:
        contract: Of the episode; acts under another one mean something else.

    Attributes:
        acts: As they stand in episode.json.
        end: The act that ended the episode: whatever else is said, this is how it ended; None: none did.
    """

    def __init__(self, contract: Contract) -> None:
        self._sha256, self._period_ns = contract.sha256, contract.timing.period_ns
        self._estop_ns = NEVER_NS
        self.acts: list[dict[str, Any]] = []
        self.end: Any = None

    def take(self, act: Any) -> bool:
        """Keeps an OperatorAct, and says whether the episode ends with it."""
        if act.contract_sha256 != self._sha256:
            return False
        data = act_of(act)
        if act.act == Act.ESTOP:
            again = data["stamp_ns"] - self._estop_ns < _ESTOP_PERIODS * self._period_ns
            self._estop_ns = data["stamp_ns"]
            if again:
                return False  # said in each period while it is pressed
        self.acts.append(data)
        if act.act not in ENDS or self.end is not None:
            return False
        self.end = act
        return True


def act_of(message: Any) -> dict[str, Any]:
    """An OperatorAct as data: `stamp_ns`, `act`, and `reason` or `failure` where it has one."""
    known = message.act in Act.__members__.values()
    act: dict[str, Any] = {
        "stamp_ns": stamp_ns(message.header.stamp),
        "act": Act(message.act).name.lower() if known else str(message.act),
    }
    if message.reason in InterventionReason.__members__.values() and message.reason:
        act["reason"] = InterventionReason(message.reason).name.lower()
    if message.failure:
        act["failure"] = message.failure
    return act


def undo(rows: np.ndarray[Any, np.dtype[Any]], ticks: Sequence[int]) -> None:
    """Takes the label from corrections that the operator took back.

    Args:
        rows: (T,) rows of one bag, in the order of recording, changed in place.
        ticks: For each time that `undo` was pressed, how many of the rows had been recorded by then: it takes back the
            last correction that had begun and was not taken back yet. By the order in the bag, which one clock made;
            those of the nodes may differ.
    """
    left = corrections(rows)
    for count in sorted(ticks):
        begun = [run for run in left if run.start < count]
        if begun:
            rows["label_source"][begun[-1]] = Label.NONE
            left.remove(begun[-1])


def corrections(rows: np.ndarray[Any, np.dtype[Any]]) -> list[slice]:
    """Where each correction lies; its number may be used again by a supervisor that was started anew."""
    intervention = rows["intervention"]
    edges = np.flatnonzero(np.diff(intervention, prepend=0, append=0))
    return [slice(a, b) for a, b in itertools.pairwise(edges.tolist()) if intervention[a] > 0]
