"""What is usual in rollouts of a policy that succeed: how new what it sees is, and how often it decides wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dagger_ros.contract import Contract
from dagger_ros.sim.tasks import Task

__all__ = ["Usual", "usual", "wrong_decisions"]

Rows = np.ndarray[Any, np.dtype[Any]]

# Novelty that so many of the observations that were trained on are below, by definition (`learning.novelty`).
_KNOWN = 0.95
# Of the ticks of a rollout, and of rollouts: where fewer are wrong nobody would say that it succeeded by luck.
_FEW, _MOST = 0.05, 0.95


@dataclass(frozen=True)
class Usual:
    """What is usual.

    Args:
        novelty: Limit above which an observation is unfamiliar.
        wrong: Largest share of wrong decisions in a rollout that succeeds as those do.
    """

    novelty: float = 1.0
    wrong: float = _FEW


def usual(rollouts: Sequence[Rows], alike: Sequence[Rows], contract: Contract, task: Task, *, disturbed: bool) -> Usual:
    """What is usual in some rollouts.

    Args:
        rollouts: (T,) rows of each of a policy that succeeds.
        alike: Those of them that are of the condition in question.
        contract: Of them.
        task: Of them.
        disturbed: Something is perturbed in this condition: that alone takes everything further from what was trained
            on, and the limit rises with it.
    """
    novelty = np.concatenate([np.empty(0), *(rows["novelty"] for rows in alike)])
    novelty = novelty[np.isfinite(novelty)]
    limit = max(1.0, float(np.quantile(novelty, _KNOWN))) if disturbed and len(novelty) else 1.0
    shares = [float(wrong_decisions(rows, contract, task).mean()) for rows in rollouts]
    return Usual(limit, max(_FEW, float(np.quantile(shares, _MOST))) if shares else _FEW)


def wrong_decisions(rows: Rows, contract: Contract, task: Task) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(T,) at which ticks the policy wants something that the task's operator would not let pass."""
    lower, upper = np.array([(d.lower, d.upper) for d in contract.action.dimensions_]).T
    wanted = np.empty((len(rows), len(lower)))
    for truth, out in zip(rows["privileged"], wanted, strict=True):
        task.expert.act(truth, out)
    apart = np.clip(rows["policy_action"], lower, upper) - np.clip(wanted, lower, upper)
    distance = np.linalg.norm(apart / ((upper - lower) / 2), axis=1)
    result: np.ndarray[Any, np.dtype[np.bool_]] = distance > task.operator.tolerance
    return result
