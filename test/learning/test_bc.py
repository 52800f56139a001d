from __future__ import annotations

import numpy as np
import pytest

from dagger_ros.contract import NEVER_NS, Contract, DaggerError, RowLayout
from dagger_ros.policy import MlpEnsemble

pytest.importorskip("torch")
from dagger_ros.learning import TrainingSettings, train

pytestmark = pytest.mark.torch
QUICK = TrainingSettings(members=2, hidden=(32,), steps=300, batch=32, bootstrap=False)


def data(contract: Contract, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are a linear law of the observations."""
    layout = RowLayout(contract)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(count, layout.observation_size))
    law = rng.normal(size=(layout.observation_size, layout.action_size)) * 0.02
    return observations, observations @ law


def test_network_learns_a_law_and_numpy_runs_it(peg: Contract) -> None:
    observations, labels = data(peg)
    trained = train(peg, observations, labels, QUICK, seed=0)
    network = MlpEnsemble(trained.tensors)
    predicted = np.zeros_like(labels)
    for observation, out in zip(observations, predicted, strict=True):
        network.act(observation, out, NEVER_NS)
    assert trained.loss < 0.05
    assert ((predicted - labels) ** 2).mean() < 0.1 * labels.var()


def test_same_seed_gives_the_same_weights_and_another_does_not(peg: Contract) -> None:
    results = [train(peg, *data(peg), QUICK, seed=seed).tensors for seed in (3, 3, 4)]
    assert all((results[0][k] == results[1][k]).all() for k in results[0])
    assert any((results[0][k] != results[2][k]).any() for k in results[0])


def test_value_that_never_moved_does_not_explode(peg: Contract) -> None:
    observations, labels = data(peg)
    observations[:, 4] = 1.0
    tensors = train(peg, observations, labels, QUICK, seed=0).tensors
    assert tensors["input_scale"][4] == pytest.approx(RowLayout(peg).resolution()[4])


def test_progress_is_told_every_step(peg: Contract) -> None:
    steps: list[int] = []
    train(peg, *data(peg), QUICK, seed=0, progress=steps.append)
    assert sum(steps) == QUICK.steps


def test_held_out_actions_are_those_of_the_members_that_have_not_seen_a_frame(peg: Contract) -> None:
    """Noise that was learned by heart does not show in them."""
    observations, labels = data(peg)
    labels = labels + np.random.default_rng(1).normal(0.0, 0.05, labels.shape)
    by_heart = TrainingSettings(members=5, hidden=(64,), steps=1500, batch=32, input_noise=0.0, bootstrap=True)
    trained = train(peg, observations, labels, by_heart, seed=0)
    network, own = MlpEnsemble(trained.tensors), np.zeros_like(labels)
    for observation, out in zip(observations, own, strict=True):
        network.act(observation, out, NEVER_NS)
    errors = [np.linalg.norm(actions - labels, axis=1).mean() for actions in (own, trained.held_out)]
    assert errors[1] > 1.5 * errors[0]
    # Without it every member has seen everything.
    trained = train(peg, observations, labels, QUICK, seed=0)
    network = MlpEnsemble(trained.tensors)
    for observation, out in zip(observations, own, strict=True):
        network.act(observation, out, NEVER_NS)
    np.testing.assert_allclose(trained.held_out, own, atol=1e-5)


def test_policy_tells_what_is_far_from_what_it_was_trained_on(peg: Contract) -> None:
    observations, labels = data(peg)
    network, out = MlpEnsemble(train(peg, observations, labels, QUICK, seed=0).tensors), np.zeros(3)
    assert network.act(observations[3], out, NEVER_NS).novelty == pytest.approx(0.0, abs=1e-2)
    rng = np.random.default_rng(5)
    beside = [network.act(rng.normal(size=observations.shape[1]), out, NEVER_NS).novelty for _ in range(100)]
    assert 0.5 < np.mean(beside) < 1.5
    assert network.act(observations[3] + 10.0, out, NEVER_NS).novelty > 5.0


def test_robot_that_stood_still_calls_everything_else_new(peg: Contract) -> None:
    observations, labels = data(peg)
    observations[:] = observations[0]
    network, out = MlpEnsemble(train(peg, observations, labels, QUICK, seed=0).tensors), np.zeros(3)
    assert network.act(observations[0], out, NEVER_NS).novelty < 1e4
    assert network.act(observations[0] + 0.1, out, NEVER_NS).novelty > 1e5
    train(peg, observations[:1], labels[:1], QUICK, seed=0)  # a single frame has no neighbour


def test_nothing_to_learn_from_is_refused(peg: Contract) -> None:
    observations, labels = data(peg)
    with pytest.raises(DaggerError, match="expected as many labels as frames, and at least one; got 0"):
        train(peg, observations[:0], labels[:0], QUICK, seed=0)
    labels[3, 1] = np.nan
    with pytest.raises(DaggerError, match="expected finite observations and labels"):
        train(peg, observations, labels, QUICK, seed=0)
