"""When another round is not worth it, and which policy to take: decided on the same rollouts for every policy."""

from __future__ import annotations

from collections.abc import Sequence

from dagger_ros.evaluation.panel import PanelResult, same_rollouts
from dagger_ros.evaluation.statistics import Paired, paired

__all__ = ["against", "best_of", "plateau"]


def best_of(results: Sequence[PanelResult], *, maximize: bool) -> int:
    """Index of the best by the mean of the metric, then of success; of equals the first, which has the fewest labels.

    Args:
        results: Of one panel, round by round.
        maximize: Whether a larger metric is better.
    """
    sign = -1 if maximize else 1
    return min(range(len(results)), key=lambda k: (sign * results[k].metric_mean, -results[k].success_rate, k))


def against(before: PanelResult, after: PanelResult, *, maximize: bool) -> Paired:
    """What a policy does on the rollouts of an earlier one.

    Raises:
        DaggerError: If they were not judged alike.
    """
    same_rollouts([before, after])
    return paired(before.successes, after.successes, before.metrics, after.metrics, maximize=maximize)


def plateau(results: Sequence[PanelResult], *, patience: int, maximize: bool) -> str:
    """Why to stop; empty: go on.

    Args:
        results: Of one panel, round by round.
        patience: Stop when none of so many last policies is credibly better than the best one before them; 0: never.
        maximize: Whether a larger metric is better.
    """
    if patience == 0 or len(results) <= patience:
        return ""
    earlier, last = results[:-patience], results[-patience:]
    best = earlier[best_of(earlier, maximize=maximize)]
    gains = [against(best, result, maximize=maximize) for result in last]
    if any(gain.better for gain in gains):
        return ""
    said = ", ".join(
        f"{result.policy} {100 * gain.success:+.0f} points ({100 * gain.success_ci95[0]:+.0f} to "
        f"{100 * gain.success_ci95[1]:+.0f})"
        for result, gain in zip(last, gains, strict=True)
    )
    return (
        f"no credible improvement over {best.policy} for {patience} rounds; success on the same "
        f"{len(best.rollouts)} rollouts: {said}"
    )
