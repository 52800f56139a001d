from __future__ import annotations

import numpy as np
import pytest

from dagger_ros.contract import Contract, DaggerError, RowLayout
from dagger_ros.policy import MlpEnsemble

pytest.importorskip("torch")
from dagger_ros.learning import TrainingSettings, train

pytestmark = pytest.mark.torch
QUICK = TrainingSettings(members=2, hidden=(32,), steps=300, batch=32)


def data(contract: Contract, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are a linear law of the observations."""
    layout = RowLayout(contract)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(count, layout.observation_size))
    law = rng.normal(size=(layout.observation_size, layout.action_size)) * 0.02
    return observations, observations @ law


def test_network_learns_a_law_and_numpy_runs_it(peg: Contract) -> None:
    observations, labels = data(peg)
    tensors, loss = train(peg, observations, labels, QUICK, seed=0)
    network = MlpEnsemble(tensors)
    predicted = np.zeros_like(labels)
    for observation, out in zip(observations, predicted, strict=True):
        network.act(observation, out)
    assert loss < 0.05
    assert ((predicted - labels) ** 2).mean() < 0.1 * labels.var()


def test_same_seed_gives_the_same_weights_and_another_does_not(peg: Contract) -> None:
    results = [train(peg, *data(peg), QUICK, seed=seed)[0] for seed in (3, 3, 4)]
    assert all((results[0][k] == results[1][k]).all() for k in results[0])
    assert any((results[0][k] != results[2][k]).any() for k in results[0])


def test_value_that_never_moved_does_not_explode(peg: Contract) -> None:
    observations, labels = data(peg)
    observations[:, 4] = 1.0
    tensors, _ = train(peg, observations, labels, QUICK, seed=0)
    assert tensors["input_scale"][4] == pytest.approx(RowLayout(peg).resolution()[4])


def test_progress_is_told_every_step(peg: Contract) -> None:
    steps: list[int] = []
    train(peg, *data(peg), QUICK, seed=0, progress=steps.append)
    assert sum(steps) == QUICK.steps


def test_nothing_to_learn_from_is_refused(peg: Contract) -> None:
    observations, labels = data(peg)
    with pytest.raises(DaggerError, match="expected as many labels as frames, and at least one; got 0"):
        train(peg, observations[:0], labels[:0], QUICK, seed=0)
    labels[3, 1] = np.nan
    with pytest.raises(DaggerError, match="expected finite observations and labels"):
        train(peg, observations, labels, QUICK, seed=0)
