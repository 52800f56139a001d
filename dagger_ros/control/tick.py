"""One control tick in one process: policy, expert and gate, in the only file that knows their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, SCORES_OF_POLICY, Row, RowLayout, RowView, Scores
from dagger_ros.expert import Labeller
from dagger_ros.policy import Checkpoint, Policy
from dagger_ros.supervisor import Event, Gate

__all__ = ["ControlTick", "newest_ns"]

# Neighbours in the row that are written together.
_PROPOSED = ("policy_stamp_ns", "expert_stamp_ns", "policy_receive_ns", "expert_receive_ns", *SCORES_OF_POLICY)
_NAMES = ("policy_round", "policy", "policy_sha256", "operator_id")
_OF_POLICY, _UNKNOWN = len(SCORES_OF_POLICY), Scores()
_LOCK_REQUEST = Event.LOCK.bit


def newest_ns(row: Row, streams: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """Stamp of the newest sample in a row, ns: what an action computed from the row is stamped with.

    Args:
        row: Observations filled in.
        streams: (S,) bool, which ones it was computed from, as `RowLayout.seen_by_policy`.
    """
    stamps_ns: list[int] = row["stamp_ns"].tolist()
    return max([stamp for stamp, seen in zip(stamps_ns, streams.tolist(), strict=True) if seen])


class ControlTick:
    """Completes rows in which the observations are filled in.

    The nodes do the same steps, one process each; a test holds the two equal bit for bit.

    Args:
        layout: Row of the contract.
        gate: Decides.
        labeller: Labels and may want control; None where nobody labels.
        policy: What it is and its network; None where there is no policy yet.
    """

    def __init__(
        self,
        layout: RowLayout,
        gate: Gate,
        labeller: Labeller | None,
        policy: tuple[Checkpoint, Policy] | None,
    ) -> None:
        self._layout = layout
        self._gate = gate
        self._labeller = labeller
        self._policy = policy
        self._starts = False
        self._monotonic, self._proposed = layout.numbers("monotonic_ns"), layout.numbers(*_PROPOSED)
        self._wishes, names = layout.numbers("expert_intent", "expert_reason"), layout.numbers(*_NAMES)
        who = (-1, b"", b"")
        if policy is not None:
            who = policy[0].round, policy[0].name.encode(), policy[0].weights_sha256.encode()
        self._names_part = slice(names.start, names.end)
        self._names = names.pack(*who, b"" if labeller is None else labeller.operator_id.encode())

    def start_episode(self, seed: int) -> None:
        """Forgets the last episode."""
        self._starts = True
        self._gate.start_episode(seed)
        if self._policy is not None:
            self._policy[1].start_episode()
        if self._labeller is not None:
            self._labeller.start_episode(seed)

    def __call__(self, row: Row, previous: Row | None) -> None:
        """Decides one tick.

        Args:
            row: Times, observations, round, episode and seed are filled in; everything else is written.
            previous: The decided row of the tick before; None at the start of an episode.
        """
        row = RowView.of(row)
        (now_ns,) = self._monotonic.read(row)
        policy_ns = expert_ns = NEVER_NS
        scores = _UNKNOWN
        row.bytes[self._names_part] = self._names
        if self._policy is not None:
            policy_ns = newest_ns(row, self._layout.seen_by_policy)
            scores = self._policy[1].act(row.observation, row.policy_action, policy_ns)
        if self._labeller is not None:
            intent = self._labeller.label(row, previous, row.expert_action)
            expert_ns = newest_ns(row, self._layout.seen_by_expert)
            self._wishes.write(row, intent.bits(), intent.reason)
        policy_receive_ns = NEVER_NS if policy_ns == NEVER_NS else now_ns
        expert_receive_ns = NEVER_NS if expert_ns == NEVER_NS else now_ns
        self._proposed.write(row, policy_ns, expert_ns, policy_receive_ns, expert_receive_ns, *scores[:_OF_POLICY])
        if self._starts:
            self._starts = False
            row["requests"] = _LOCK_REQUEST  # the robot is somewhere else now
        self._gate.decide(row)
