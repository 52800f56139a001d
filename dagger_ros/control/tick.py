"""One control tick in one process: policy, expert and gate, in the only file that knows their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, SCORES_OF_POLICY, Row, RowLayout
from dagger_ros.expert import Labeller
from dagger_ros.policy import Checkpoint, Policy
from dagger_ros.supervisor import Event, Gate

__all__ = ["ControlTick", "newest_ns"]


def newest_ns(row: Row, streams: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """Stamp of the newest sample in a row, ns: what an action computed from the row is stamped with.

    Args:
        row: Observations filled in.
        streams: (S,) bool, which ones it was computed from, as `RowLayout.seen_by_policy`.
    """
    return int(row["stamp_ns"][streams].max())


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
        received_ns = row["monotonic_ns"]
        if self._policy is not None:
            about, network = self._policy
            newest = newest_ns(row, self._layout.seen_by_policy)
            scores = network.act(row["observation"], row["policy_action"], newest)
            for name in SCORES_OF_POLICY:
                row[name] = getattr(scores, name)
            row["policy_stamp_ns"] = newest
            row["policy_receive_ns"] = received_ns
            row["policy_round"] = about.round
            row["policy"], row["policy_sha256"] = about.name.encode(), about.weights_sha256.encode()
        if self._labeller is not None:
            intent = self._labeller.label(row, previous, row["expert_action"])
            row["expert_stamp_ns"] = newest_ns(row, self._layout.seen_by_expert)
            row["expert_receive_ns"] = received_ns
            row["operator_id"] = self._labeller.operator_id.encode()
            row["expert_intent"], row["expert_reason"] = intent.bits(), intent.reason
        for source in ("policy", "expert"):
            if row[f"{source}_stamp_ns"] == NEVER_NS:
                row[f"{source}_receive_ns"] = NEVER_NS
        if self._starts:
            self._starts = False
            row["requests"] = Event.LOCK.bit  # the robot is somewhere else now
        self._gate.decide(row)
