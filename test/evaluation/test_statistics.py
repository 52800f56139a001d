"""Figures against textbooks and against what they must do."""

from __future__ import annotations

import numpy as np
import pytest

from dagger_ros.contract import DaggerError
from dagger_ros.evaluation import (
    PanelResult,
    RolloutResult,
    best_of,
    covariate_shift,
    mean_ci95,
    paired,
    plateau,
    trend,
    wilson,
)


def test_wilson_interval_is_that_of_the_tables() -> None:
    assert wilson(27, 30) == pytest.approx((0.744, 0.965), abs=5e-4)
    low, high = wilson(0, 10)
    assert (low, high) == pytest.approx((0.0, 0.278), abs=5e-4)
    with pytest.raises(DaggerError, match="expected at least one rollout"):
        wilson(0, 0)


def test_interval_over_training_seeds_is_students() -> None:
    # t(0.975, 4) = 2.776; standard deviation of 1..5 is 1.581.
    assert mean_ci95([1, 2, 3, 4, 5]) == pytest.approx((3 - 1.963, 3 + 1.963), abs=1e-3)
    assert mean_ci95([1.0]) is None


def outcomes(only_a: int, only_b: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    b = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    return np.array(a), np.array(b)


def test_mcnemar_is_exact() -> None:
    a, b = outcomes(1, 8, 10, 11)
    result = paired(a, b, a, b, maximize=True)
    # 2 (C(9,0) + C(9,1)) / 2^9
    assert result.p_value == pytest.approx(20 / 512)
    assert (result.only_a, result.only_b, result.pairs) == (1, 8, 30)
    assert result.success == pytest.approx(7 / 30)
    low, high = result.success_ci95
    assert 0 < low < 7 / 30 < high
    assert result.better
    assert not result.worse


def test_policy_compared_with_itself_is_neither_better_nor_worse() -> None:
    a, _ = outcomes(5, 0, 10, 5)
    result = paired(a, a, a, a, maximize=True)
    assert (result.success, result.p_value, result.better, result.worse) == (0.0, 1.0, False, False)
    assert result.success_ci95 == (0.0, 0.0)


def test_smaller_metric_is_better_where_the_goal_says_so() -> None:
    a, b = outcomes(0, 12, 9, 9)
    falls_a, falls_b = 3.0 - a, 3.0 - 2 * b
    assert paired(a, b, falls_a, falls_b, maximize=False).better
    assert paired(a, b, falls_a, falls_b, maximize=True).worse


def test_few_training_seeds_that_disagree_are_not_credible_though_each_panel_is_large() -> None:
    one_seed_won = np.zeros((3, 60), bool)
    one_seed_won[0] = True
    nothing = np.zeros((3, 60), bool)
    assert not paired(nothing, one_seed_won, nothing, one_seed_won, maximize=True).better
    all_won = np.ones((3, 60), bool)
    certain = paired(nothing, all_won, nothing, all_won, maximize=True)
    assert certain.better
    assert certain.p_value is None


def test_paired_interval_holds_the_truth_as_often_as_it_says() -> None:
    """90 % of one-sided pairs: of 200 comparisons of equal policies about 5 % are called better."""
    rng = np.random.default_rng(0)
    called = sum(
        paired(a, b, a, b, maximize=True, seed=i).better for i in range(200) for a, b in [rng.random((2, 30)) < 0.6]
    )
    assert called <= 20


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((5, 5), "at least 6 rollouts, got 5"), ((30, 20), "the same rollouts of both")],
)
def test_too_few_or_other_rollouts_are_refused(sizes: tuple[int, int], message: str) -> None:
    a, b = (np.ones(size) for size in sizes)
    with pytest.raises(DaggerError, match=message):
        paired(a, b, a, b, maximize=True)


def test_metric_that_is_not_finite_is_refused() -> None:
    a = np.ones(8)
    with pytest.raises(DaggerError, match="expected finite metrics"):
        paired(a, a, a, np.full(8, np.nan), maximize=True)


def test_fall_over_rounds_is_told_from_noise() -> None:
    rng = np.random.default_rng(1)
    noise = rng.random((4, 30))
    assert not trend(noise).falling
    assert trend(noise * np.array([[1.0], [0.6], [0.3], [0.1]])).falling
    assert not trend(noise * np.array([[0.1], [0.3], [0.6], [1.0]])).falling
    assert trend(np.zeros((4, 30))).p_value == 1.0
    assert trend(noise[:2]).p_value is None


def walks(rng: np.random.Generator, count: int, middle: float) -> list[np.ndarray]:
    return [middle + rng.normal(size=(60, 3)) + 0.3 * rng.normal(size=3) for _ in range(count)]


def test_shift_is_near_half_for_the_same_places_and_near_one_for_others() -> None:
    rng = np.random.default_rng(2)
    data, resolution = walks(rng, 8, 0.0), np.full(3, 0.01)
    same = covariate_shift(data, walks(rng, 8, 0.0), resolution)
    other = covariate_shift(data, walks(rng, 8, 5.0), resolution)
    assert 0.35 < same.auc < 0.7
    assert other.auc > 0.98
    assert same.covered > 0.85
    assert other.covered < 0.1
    assert covariate_shift(data, walks(np.random.default_rng(3), 8, 0.0), resolution) == covariate_shift(
        data, walks(np.random.default_rng(3), 8, 0.0), resolution
    )


def test_shift_needs_two_episodes_with_finite_frames() -> None:
    rng = np.random.default_rng(2)
    with pytest.raises(DaggerError, match="at least two rollouts, got 1"):
        covariate_shift(walks(rng, 3, 0.0), [np.ones((5, 3)), np.full((5, 3), np.nan)], np.full(3, 0.01))


def result(policy: int, successes: int) -> PanelResult:
    rollouts = tuple(
        RolloutResult("plain", i, i < successes, "", float(i < successes), 10, 1.0, 0.0, 0.0, 0, 0) for i in range(30)
    )
    return PanelResult("p", "0", "1", f"pi_{policy:03d}", str(policy), "success", rollouts)


@pytest.mark.parametrize(
    ("successes", "stops"),
    [
        ([4, 15, 21], False),
        ([4, 20, 21], False),  # pi_001 was better
        ([4, 20, 21, 20], True),
        ([4, 20, 21, 29], False),
        ([28, 28, 28], True),
        ([28, 20, 28], True),
        ([28, 28], False),
    ],
)
def test_loop_stops_when_two_rounds_brought_nothing_credible(successes: list[int], stops: bool) -> None:
    results = [result(i, n) for i, n in enumerate(successes)]
    reason = plateau(results, patience=2, maximize=True)
    assert bool(reason) == stops
    if stops:
        assert reason.startswith("no credible improvement over pi_00")
    assert plateau(results, patience=0, maximize=True) == ""


def test_best_is_the_first_of_equals() -> None:
    assert best_of([result(0, 4), result(1, 9), result(2, 9)], maximize=True) == 1
    assert best_of([result(0, 4), result(1, 9), result(2, 9)], maximize=False) == 0
