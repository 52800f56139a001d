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

    def act(self, observation: Array, out: Array) -> Scores:
        """The action for one observation, and how sure it is.

        Args:
            observation: (O,) in the contract's order and units.
            out: (A,) float64, the caller keeps it; in the action's units, not limited to its bounds.

        Returns:
            Doubt, and what else is known.
        """
