"""What may be said from few rollouts: intervals, paired differences, trends, distance of a policy from its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from dagger_ros.contract import DaggerError

__all__ = ["Paired", "Shift", "Trend", "covariate_shift", "mean_ci95", "paired", "trend", "wilson"]

Values = np.ndarray[Any, np.dtype[Any]]

# Fewer pairs can show nothing: 5 that all go one way have p = 0.06 in the exact test.
FEWEST_PAIRS = 6
_RESAMPLES = 10_000
# Of both samples in `covariate_shift`, evenly chosen.
_MOST_FRAMES = 2000
_FOLDS = 5


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, after Wilson (1927).

    Raises:
        DaggerError: Without a trial.
    """
    if count < 1:
        raise DaggerError("interval: expected at least one rollout, got none")
    interval = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mean_ci95(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of a few training seeds, by Student's t; None: fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    middle = float(np.mean(values))
    return middle - half, middle + half


@dataclass(frozen=True)
class Paired:
    """What policy B does on the rollouts of policy A; differences are B - A.

    Args:
        pairs: Rollouts, of all training seeds.
        seeds: Training seeds.
        success: Mean difference of success.
        success_ci95: Its interval, by bootstrap over training seeds and rollouts.
        only_a: Rollouts in which only A succeeded.
        only_b: Rollouts in which only B succeeded.
        p_value: Of the exact test of McNemar (1947): both succeed alike. None with several training seeds: it takes
            rollouts for independent, and those of one policy are not.
        metric: Mean difference of the metric.
        metric_ci95: Its interval, by the same bootstrap.
        better: With the sign of the metric's goal, the lower end of the one-sided 95 % interval of the difference is
            above 0: B is credibly better.
        worse: The same the other way.
    """

    pairs: int
    seeds: int
    success: float
    success_ci95: tuple[float, float]
    only_a: int
    only_b: int
    p_value: float | None
    metric: float
    metric_ci95: tuple[float, float]
    better: bool
    worse: bool


def paired(
    success_a: Values, success_b: Values, metric_a: Values, metric_b: Values, *, maximize: bool, seed: int = 0
) -> Paired:
    """Compares two policies, or two methods with several training seeds each, on the same rollouts.

    With several training seeds a rollout is the same one for each, so seeds and rollouts are drawn anew independently
    of each other, which keeps the share of the uncertainty that either has.

    Args:
        success_a: (R,) or (S, R) bool: training seeds by rollouts.
        success_b: The same of B.
        metric_a: (R,) or (S, R).
        metric_b: The same of B.
        maximize: Whether a larger metric is better.
        seed: Of the resampling: the same figures each time.

    Raises:
        DaggerError: If the shapes differ, there are fewer than 6 rollouts, or a metric is not finite.
    """
    arrays = [np.atleast_2d(np.asarray(a, dtype=float)) for a in (success_a, success_b, metric_a, metric_b)]
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        raise DaggerError(f"paired comparison: expected the same rollouts of both, got {sorted(shapes)}")
    ((seeds, rollouts),) = shapes
    if rollouts < FEWEST_PAIRS:
        raise DaggerError(
            f"paired comparison: expected at least {FEWEST_PAIRS} rollouts, got {rollouts}: fewer show nothing; "
            "take a larger panel"
        )
    if not all(np.isfinite(a).all() for a in arrays):
        raise DaggerError("paired comparison: expected finite metrics, got NaN or infinity")
    success, metric = arrays[1] - arrays[0], arrays[3] - arrays[2]
    only_a, only_b = int((success < 0).sum()), int((success > 0).sum())
    drawn = _resampled(np.stack([success, metric]), np.random.default_rng(seed))
    gain = drawn[1] if maximize else -drawn[1]
    return Paired(
        pairs=seeds * rollouts,
        seeds=seeds,
        success=float(success.mean()),
        success_ci95=_interval(drawn[0]),
        only_a=only_a,
        only_b=only_b,
        p_value=_mcnemar(only_a, only_b) if seeds == 1 else None,
        metric=float(metric.mean()),
        metric_ci95=_interval(drawn[1]),
        better=bool(np.quantile(gain, 0.05) > 0),
        worse=bool(np.quantile(gain, 0.95) < 0),
    )


def _mcnemar(only_a: int, only_b: int) -> float:
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def _resampled(values: Values, rng: np.random.Generator) -> Values:
    """(K, resamples) means of (K, S, R), rows and columns drawn with replacement."""
    _, seeds, rollouts = values.shape
    # How often each was drawn, so that a mean is two products.
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), _RESAMPLES) / seeds
    of_rollouts = rng.multinomial(rollouts, np.full(rollouts, 1 / rollouts), _RESAMPLES) / rollouts
    result: Values = np.einsum("ns,ksr,nr->kn", of_seeds, values, of_rollouts, optimize=True)
    return result


def _interval(drawn: Values) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Trend:
    """Whether something falls from round to round, on matched rollouts.

    Args:
        means: Of each round.
        p_value: One-sided, of Page's trend test (1963): no order between the rounds; None: fewer than three rounds.
    """

    means: tuple[float, ...]
    p_value: float | None

    @property
    def falling(self) -> bool:
        """At 5 %."""
        return self.p_value is not None and self.p_value < 0.05


def trend(values: Values) -> Trend:
    """Tests for a fall over rounds.

    Args:
        values: (K, R) rounds by rollouts, the same rollouts in each round.
    """
    values = np.asarray(values, dtype=float)
    p_value = None
    if len(values) >= 3:
        p_value = 1.0
        if (values != values[0]).any():
            # Predicted: the last round has the lowest rank.
            p_value = float(stats.page_trend_test(values.T[:, ::-1], method="asymptotic").pvalue)
    return Trend(tuple(float(m) for m in values.mean(axis=1)), p_value)


@dataclass(frozen=True)
class Shift:
    """How far what a policy visits lies from what it learned from.

    Args:
        auc: Of a classifier that tells the two apart, on episodes that it has not seen: 0.5: it cannot, 1: always.
        covered: Share of the visited frames whose nearest labelled frame is within the distance that 95 % of the
            labelled frames have to one of another episode.
    """

    auc: float
    covered: float


def covariate_shift(data: Sequence[Values], visited: Sequence[Values], resolution: Values, *, seed: int = 0) -> Shift:
    """Compares observations that were learned from with those that a policy visits.

    Args:
        data: For each episode (T, O) labelled observations.
        visited: For each rollout (T, O) observations.
        resolution: (O,) smallest change that means something; added to the spread that values are divided by.
        seed: Of the classifier.

    Raises:
        DaggerError: If either has fewer than two episodes with finite frames.

    Source: two-sample classifier test: Lopez-Paz and Oquab (2017), arXiv 1610.06545.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    frames, groups, labels = [], [], []
    for label, episodes in enumerate((data, visited)):
        usable = [e[np.isfinite(e).all(axis=1)] for e in episodes]
        usable = [e for e in usable if len(e)]
        if len(usable) < 2:
            raise DaggerError(
                f"covariate shift: expected at least two {'rollouts' if label else 'labelled episodes'}, "
                f"got {len(usable)}"
            )
        together = np.concatenate(usable)
        chosen = np.linspace(0, len(together) - 1, min(len(together), _MOST_FRAMES)).round().astype(int)
        frames.append(together[chosen])
        number = np.repeat(np.arange(len(usable)), [len(e) for e in usable])[chosen]
        groups.append(number + label * 1_000_000)
        labels.append(np.full(len(chosen), label))
    scale = frames[0].std(axis=0) + resolution
    x, group, y = np.concatenate(frames) / scale, np.concatenate(groups), np.concatenate(labels)
    folds = min(_FOLDS, *(len(set(g.tolist())) for g in groups))
    forest = RandomForestClassifier(100, min_samples_leaf=5, class_weight="balanced", random_state=seed, n_jobs=1)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    said = cross_val_predict(forest, x, y, groups=group, cv=split, method="predict_proba")[:, 1]
    return Shift(float(roc_auc_score(y, said)), _covered(frames[0] / scale, groups[0], frames[1] / scale))


def _covered(data: Values, episodes: Values, visited: Values) -> float:
    from scipy.spatial import KDTree

    nearest = np.empty(len(data))
    for episode in np.unique(episodes):
        own = episodes == episode
        nearest[own] = KDTree(data[~own]).query(data[own])[0]
    return float((KDTree(data).query(visited)[0] <= np.quantile(nearest, 0.95)).mean())
