"""What is usual in rollouts of a policy that succeed: how new what it sees is, and how often it decides wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dagger_ros.contract import Contract
from dagger_ros.sim.tasks import Task

__all__ = ["Usual", "action_distance", "expert_actions", "usual", "wrong_decisions"]

Rows = np.ndarray[Any, np.dtype[Any]]
Values = np.ndarray[Any, np.dtype[np.float64]]

# Novelty that so many of the observations that were trained on are below, by definition (`learning.novelty`).
_KNOWN = 0.95
# Share of wrong decisions in a rollout with which nobody would say that it succeeded by luck.
_FEW = 0.05
# Quantiles over the rollouts that succeed: almost all are below the first, the typical ones below the second.
_MOST, _TYPICAL = 0.95, 0.75


@dataclass(frozen=True)
class Usual:
    """What is usual.

    Args:
        novelty: Limit above which an observation is unfamiliar.
        wrong: Largest share of wrong decisions in a rollout.
        typical_wrong: The same in a typical one.
        typical_ticks: Length of a typical one.
    """

    novelty: float = 1.0
    wrong: float = _FEW
    typical_wrong: float = _FEW
    typical_ticks: float = np.inf


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
    if not rollouts:
        return Usual(limit)
    shares = [float(wrong_decisions(rows, contract, task).mean()) for rows in rollouts]
    wrong, typical_wrong = (float(q) for q in np.quantile(shares, (_MOST, _TYPICAL)))
    return Usual(limit, max(_FEW, wrong), typical_wrong, float(np.quantile([len(r) for r in rollouts], _TYPICAL)))


def wrong_decisions(rows: Rows, contract: Contract, task: Task) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(T,) at which ticks the policy wants something that the task's operator would not let pass."""
    distance = action_distance(rows["policy_action"], expert_actions(rows, contract, task), contract)
    result: np.ndarray[Any, np.dtype[np.bool_]] = distance > task.operator.tolerance
    return result


def expert_actions(rows: Rows, contract: Contract, task: Task) -> Values:
    """(T, A) what the scripted expert would do, in the action's units."""
    wanted = np.empty((len(rows), len(contract.action.dimensions)))
    for truth, out in zip(rows["privileged"], wanted, strict=True):
        task.expert.act(truth, out)
    return wanted


def action_distance(one: Values, other: Values, contract: Contract) -> Values:
    """(T,) between actions (T, A), each within the bounds, in half bound ranges."""
    lower, upper = np.array([(d.lower, d.upper) for d in contract.action.dimensions_]).T
    apart = np.clip(one, lower, upper) - np.clip(other, lower, upper)
    distance: Values = np.linalg.norm(apart / ((upper - lower) / 2), axis=1)
    return distance
