"""The plant: what a robot and its simulation have in common for the graph around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["Plant", "Sample", "TaskStatus", "Vector"]

Vector = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Sample:
    """What one topic publishes at one tick.

    Args:
        topic: Name, as in the contract.
        stamp_ns: Header stamp, ns.
        values: For each stream on the topic its index in the contract and its (n,) float64 values, already
            rounded to the type in which they travel.
    """

    topic: str
    stamp_ns: int
    values: tuple[tuple[int, Vector], ...]


@dataclass(frozen=True)
class TaskStatus:
    """How the task stands after a step.

    Args:
        done: The episode is over.
        success: The contract's criterion holds.
        failure: Failure label of the contract, if over without success; else empty.
        metric: The contract's metric so far.
        progress: Larger is nearer to success, in the task's own unit.
    """

    done: bool
    success: bool
    failure: str
    metric: float
    progress: float


class Plant(Protocol):
    """A robot in its task. Time never goes back, not even at a reset."""

    time_ns: int
    tick: int

    def reset(self, seed: int) -> TaskStatus:
        """Draws a new initial state from the seed; the time goes on."""

    def observe(self) -> Sequence[Sample]:
        """What is published at this tick; a delayed or dropped message is not there."""

    def step(self, action: Vector | None) -> TaskStatus:
        """Moves on by one control period.

        Args:
            action: (A,) float64 in the contract's units; None: no command came, and the driver's own stop holds.
        """
