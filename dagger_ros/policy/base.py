"""What every policy has in common, wherever its network comes from."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from dagger_ros.contract import Scores
from dagger_ros.policy.mlp import Array

__all__ = ["Picture", "Policy", "SeeingPolicy"]

Picture = np.ndarray[Any, np.dtype[np.uint8]]
"""(height, width, 3) RGB."""


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


@runtime_checkable
class SeeingPolicy(Policy, Protocol):
    """A policy that acts on pictures too.

    Attributes:
        cameras: Those of the contract that it wants. Without a fresh picture of each it is not asked to act.
    """

    cameras: tuple[str, ...]

    def see(self, camera: str, picture: Picture, stamp_ns: int) -> None:
        """Is shown the newest picture of each of its cameras before every `act`.

        Args:
            camera: Its name in the contract.
            picture: (height, width, 3) uint8 RGB, of the contract's size. A read-only view of what came, without a
                copy: to be read until `act` returns, and not to be kept.
            stamp_ns: When it was taken, ns; may be that of the last call; -1: a blank one, to try the policy.
        """
