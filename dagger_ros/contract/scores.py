"""How sure the policy is at one tick, as numbers that query rules compare with limits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["SCORES_OF_POLICY", "Scores"]


class Scores(NamedTuple):
    """One number for each way to be unsure, or a limit for each; larger is worse, NaN: not known, or no limit.

    The fields are those of `msg/PolicyAction.msg` and `msg/GateDecision.msg`.

    Args:
        doubt: Root of the mean over the action's dimensions of the variance of the ensemble's members, in half bound
            ranges; 0 with one member.
        novelty: Distance of the observation to the nearest one that was trained on, as a multiple of the distance
            that 95 % of those have a neighbour within.
        deviation: Estimated probability that the expert would do something else, from 0 to 1.
        risk: Estimated probability of failing the task from here, discounted, from 0 to 1.
        discrepancy: Distance of the policy's action from the expert's, each within the bounds, in half bound ranges.
            Known only while somebody labels.
    """

    doubt: float = np.nan
    novelty: float = np.nan
    deviation: float = np.nan
    risk: float = np.nan
    discrepancy: float = np.nan

    def given(self) -> dict[str, float]:
        """Those that are known, by name."""
        return {name: value for name, value in self._asdict().items() if not np.isnan(value)}


# Those that the policy gives with each proposal.
SCORES_OF_POLICY = ("doubt", "novelty", "deviation", "risk")
