"""What a policy was taught near a place where it decided wrongly."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, Label, RowLayout
from dagger_ros.dataset import TrainingEpisode
from dagger_ros.evaluation.diagnosis.usual import action_distance, expert_actions
from dagger_ros.sim.tasks import Task

__all__ = ["Lesson", "Taught", "taught_by"]

Rows = np.ndarray[Any, np.dtype[Any]]
Values = np.ndarray[Any, np.dtype[np.float64]]

# Labelled frames that are looked at around a wrong decision, and wrong decisions that are looked at.
_NEAREST, _DECISIONS = 5, 5


class Lesson(enum.Enum):
    """What the nearest labels say about a wrong decision."""

    WRONG = "the labels of the nearest frames are not what the expert would do there: it was taught wrongly"
    COARSE = "the labels of the nearest frames are right there, and would be wrong here"
    RIGHT = "the labels of the nearest frames are right here too: it does not do what it was taught"


@dataclass(frozen=True)
class Taught:
    """Labelled frames.

    Args:
        observations: (N, O) in the contract's order and units.
        labels: (N, A) what was learned from.
        wanted: (N, A) what the task's scripted expert would do in them.
    """

    observations: Values
    labels: Values
    wanted: Values

    def lesson(self, rows: Rows, wrong: np.ndarray[Any, np.dtype[np.bool_]], contract: Contract, task: Task) -> Lesson:
        """What the first wrong decisions of a rollout were taught by.

        Args:
            rows: (T,) of it.
            wrong: (T,) which decisions are wrong; at least one is.
            contract: Of both.
            task: Of both.
        """
        scale = self.observations.std(axis=0) + RowLayout(contract).resolution()
        said: list[Lesson] = []
        for row in rows[wrong][:_DECISIONS]:
            apart = ((self.observations - row["observation"]) / scale) ** 2
            nearest = apart.sum(axis=1).argsort()[:_NEAREST]
            here = np.repeat(expert_actions(row[None], contract, task), len(nearest), axis=0)
            wrong_there = np.median(action_distance(self.labels[nearest], self.wanted[nearest], contract))
            wrong_here = np.median(action_distance(self.labels[nearest], here, contract))
            if wrong_there > task.operator.agreement * task.operator.tolerance:
                said.append(Lesson.WRONG)
            else:
                said.append(Lesson.COARSE if wrong_here > task.operator.tolerance else Lesson.RIGHT)
        return max(Lesson, key=said.count)


def taught_by(episodes: Sequence[TrainingEpisode], contract: Contract, task: Task) -> Taught | None:
    """What is learned from some episodes; None: nothing of it can be judged."""
    rows = np.concatenate([e.rows[e.rows["label_source"] == Label.EXPERT] for e in episodes])
    wanted = expert_actions(rows, contract, task)
    usable = np.isfinite(rows["observation"]).all(axis=1) & np.isfinite(wanted).all(axis=1)
    if not usable.any():
        return None
    return Taught(rows["observation"][usable], rows["expert_action"][usable], wanted[usable])
