"""Who labels: the interface of every expert, and the scripted expert that labels every state."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from dagger_ros.contract import ExpertIntent, InterventionReason, Row

__all__ = ["Expert", "Labeller", "ScriptedLabeller", "Vector"]

Vector = np.ndarray[Any, np.dtype[np.float64]]


class Expert(Protocol):
    """Knows what to do in every state of a task. Smooth and without memory, or its labels cannot be learned."""

    name: str

    def act(self, privileged: Vector, out: Vector) -> None:
        """The action for a state.

        Args:
            privileged: (P,) float64, the contract's privileged streams. A value that is not finite gives NaN.
            out: (A,) float64 in the action's units, the caller keeps it.
        """

    def progress(self, privileged: Vector) -> float:
        """How near the state is to success; larger is nearer, in the task's own unit."""


class Labeller(Protocol):
    """What the expert_label node asks at each tick: an action, and what the expert wants."""

    operator_id: str

    def start_episode(self, seed: int) -> None:
        """Forgets the last episode; all randomness of the next one comes from `seed`."""

    def label(self, row: Row, previous: Row | None, out: Vector) -> ExpertIntent:
        """The expert's action for a tick and what it asks for.

        Args:
            row: The tick, with its observations filled in.
            previous: The decided row of the tick before; None at the start of an episode.
            out: (A,) float64 in the action's units, the caller keeps it.

        Returns:
            What the expert asks for; the same object at each call.
        """


class ScriptedLabeller:
    """Labels every state, and leaves it to the rule who drives: demonstrations and shadow labels.

    Args:
        expert: Gives the actions.
    """

    def __init__(self, expert: Expert) -> None:
        self.operator_id = expert.name
        self._expert = expert
        self._intent = ExpertIntent(label=True, reason=InterventionReason.DEMONSTRATION, unattended=True)

    def start_episode(self, seed: int) -> None:
        """Nothing to forget."""

    def label(self, row: Row, previous: Row | None, out: Vector) -> ExpertIntent:
        """The expert's action, as a label."""
        self._expert.act(row["privileged"], out)
        return self._intent
