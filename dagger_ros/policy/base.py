"""What every policy has in common, wherever its network comes from."""

from __future__ import annotations

from typing import Protocol

from dagger_ros.contract import Scores
from dagger_ros.policy.mlp import Array

__all__ = ["Policy"]


class Policy(Protocol):
    """Proposes an action for each observation."""

    def start_episode(self) -> None:
        """Forgets what it saw before."""

    def act(self, observation: Array, out: Array, stamp_ns: int) -> Scores:
        """The action for one observation, and how sure it is.

        Whoever remembers tells ticks apart by `stamp_ns`, never by a clock or by counting calls: an observation that
        is shown twice gives the same action twice.

        Args:
            observation: (O,) in the contract's order and units.
            out: (A,) float64, the caller keeps it; in the action's units, not limited to its bounds.
            stamp_ns: Of the newest value in the observation, ns; -1: nothing was received yet.

        Returns:
            Doubt, and what else is known.
        """
