"""How sure a policy says that it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dagger_ros.contract import NEVER_NS, Contract, RowLayout
from dagger_ros.policy import MlpEnsemble
from policies import plain, random_tensors


def scores_of(tensors: dict[str, Any], observation: Any) -> Any:
    return MlpEnsemble(tensors).act(observation, np.zeros(len(tensors["output_mean"])), NEVER_NS)


def head(name: str, inputs: int, members: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        f"{name}.layer0.weight": rng.normal(size=(members, inputs, 8)).astype(np.float32) / 4,
        f"{name}.layer0.bias": rng.normal(size=(members, 1, 8)).astype(np.float32),
        f"{name}.layer1.weight": rng.normal(size=(members, 8, 1)).astype(np.float32),
        f"{name}.layer1.bias": rng.normal(size=(members, 1, 1)).astype(np.float32),
    }


def logits(tensors: dict[str, Any], name: str, values: Any) -> Any:
    """(M,) of a head, written out in float64."""
    hidden = np.maximum(
        values[None, None] @ tensors[f"{name}.layer0.weight"].astype(float) + tensors[f"{name}.layer0.bias"], 0
    )
    return (hidden @ tensors[f"{name}.layer1.weight"] + tensors[f"{name}.layer1.bias"])[:, 0, 0]


def test_what_was_not_fitted_is_not_known(peg: Contract) -> None:
    scores = scores_of(random_tensors(peg), np.ones(24))
    assert list(scores.given()) == ["doubt"]


def test_doubt_is_the_root_of_the_mean_variance_in_half_bound_ranges(peg: Contract) -> None:
    tensors = random_tensors(peg)
    for seed in range(20):
        observation = np.random.default_rng(seed).normal(size=24)
        variance = (plain(tensors, observation) / tensors["output_scale"]).var(axis=0)
        assert scores_of(tensors, observation).doubt == pytest.approx(np.sqrt(variance.mean()), abs=1e-5)
    assert scores_of(random_tensors(peg, members=1), np.ones(24)).doubt == 0.0


def test_novelty_is_the_distance_to_the_nearest_observation_in_units_of_the_data(peg: Contract) -> None:
    tensors = random_tensors(peg)
    reference = np.random.default_rng(1).normal(size=(50, 24)).astype(np.float32)
    tensors |= {"novelty.reference": reference, "novelty.unit": np.array([2.0], np.float32)}
    for seed in range(20):
        observation = np.random.default_rng(seed).normal(size=24) * 3
        place = (observation - tensors["input_mean"]) / tensors["input_scale"]
        nearest = np.linalg.norm(reference - place, axis=1).min()
        assert scores_of(tensors, observation).novelty == pytest.approx(nearest / 2.0, rel=1e-4)
    known = reference[7] * tensors["input_scale"] + tensors["input_mean"]
    assert scores_of(tensors, known).novelty == pytest.approx(0.0, abs=1e-2)


def test_deviation_is_the_probability_of_its_network(peg: Contract) -> None:
    tensors = random_tensors(peg) | head("deviation", 24, 1, seed=2)
    for seed in range(20):
        observation = np.random.default_rng(seed).normal(size=24)
        place = (observation - tensors["input_mean"]) / tensors["input_scale"]
        expected = 1 / (1 + np.exp(-logits(tensors, "deviation", place)[0]))
        assert scores_of(tensors, observation).deviation == pytest.approx(expected, abs=1e-5)


def test_risk_is_that_of_the_network_that_sees_more_of_it_for_the_action_within_its_bounds(peg: Contract) -> None:
    tensors = random_tensors(peg) | head("risk", 24 + 3, 2, seed=3)
    for seed in range(20):
        observation = np.random.default_rng(seed).normal(size=24)
        place = (observation - tensors["input_mean"]) / tensors["input_scale"]
        action = (plain(tensors, observation).mean(axis=0) - tensors["output_mean"]) / tensors["output_scale"]
        both = np.concatenate([place, np.clip(action, -1, 1)])
        expected = 1 - 1 / (1 + np.exp(-logits(tensors, "risk", both).min()))
        assert scores_of(tensors, observation).risk == pytest.approx(expected, abs=1e-4)


def test_observation_that_is_not_finite_gives_no_score_that_is(peg: Contract) -> None:
    tensors = random_tensors(peg) | head("deviation", 24, 1, seed=2) | head("risk", 27, 2, seed=3)
    tensors |= {"novelty.reference": np.zeros((2, 24), np.float32), "novelty.unit": np.ones(1, np.float32)}
    observation = np.ones(RowLayout(peg).observation_size)
    observation[3] = np.nan
    assert not scores_of(tensors, observation).given()
