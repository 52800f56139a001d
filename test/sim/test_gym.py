"""The Gymnasium view: the same rollouts as a panel's, for learners from outside."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the simulator")
pytest.importorskip("gymnasium", reason="needs the optional package gymnasium")

from gymnasium.utils.env_checker import check_env

from conftest import contract_path, weak_policy
from dagger_ros.contract import DaggerError, RowLayout, load_contract
from dagger_ros.evaluation.panel import RolloutKey
from dagger_ros.evaluation.runner import run_rollout
from dagger_ros.policy import load_policy
from dagger_ros.sim import Perturbation, load_plant
from dagger_ros.sim.experts import make_labeller
from dagger_ros.sim.gym import ContractEnv

pytestmark = pytest.mark.mujoco


@pytest.fixture
def env(task: str) -> ContractEnv:
    return ContractEnv(contract_path(task))


@pytest.fixture
def peg_env() -> ContractEnv:
    return ContractEnv(contract_path("peg"))


def drive(env: ContractEnv, action: Any, seed: int) -> tuple[list[float], bool, bool, dict[str, Any]]:
    """One episode of a constant action, or of the expert's (None): rewards, terminated, truncated, info."""
    _, info = env.reset(seed=seed)
    rewards, terminated, truncated = [], False, False
    while not (terminated or truncated):
        _, reward, terminated, truncated, info = env.step(info["expert_action"] if action is None else action)
        rewards.append(reward)
    return rewards, terminated, truncated, info


@pytest.mark.filterwarnings("ignore::UserWarning")  # that bounds are infinite, and actions not from -1 to 1
def test_gymnasium_finds_nothing_wrong_with_it(env: ContractEnv) -> None:
    check_env(env)


def test_spaces_are_those_of_the_contract(env: ContractEnv) -> None:
    layout, dimensions = RowLayout(env.contract), env.contract.action.dimensions_
    assert env.observation_space.shape == (layout.observation_size,)
    assert env.action_space.low.tolist() == [np.float32(d.lower) for d in dimensions]
    assert env.action_space.high.tolist() == [np.float32(d.upper) for d in dimensions]
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_episode_is_the_rollout_of_a_panel_bit_for_bit(task: str, dtype: Any, tmp_path: Path) -> None:
    path, seed = contract_path(task), 1_000_000_003
    contract = load_contract(path)
    policy = load_policy(weak_policy(task, tmp_path / "policy"), contract)
    reference, rows, _ = run_rollout(
        contract, load_plant(contract, path), policy, RolloutKey("nominal", seed), ticks=contract.horizon_ticks
    )
    env = ContractEnv(path, dtype=dtype)
    labeller = make_labeller("scripted", contract)
    observation, info = env.reset(seed=seed)
    action = np.empty(env.action_space.shape)
    for i, row in enumerate(rows):
        assert observation.tobytes() == row["observation"].astype(dtype).tobytes()
        wanted = np.full_like(action, np.nan)
        labeller.label(row, None, wanted)
        assert info["expert_action"].tobytes() == wanted.tobytes()
        policy[1].act(observation.astype(float), action, i)
        observation, _, terminated, truncated, info = env.step(action)
        assert info["executed_action"].tobytes() == row["executed_action"].tobytes()
        assert (terminated or truncated) == (i == len(rows) - 1)
    assert (info["success"], info["failure"], info["metric"]) == (
        reference.success,
        reference.failure,
        reference.metric,
    )


def test_actions_of_float64_are_not_rounded(peg_env: ContractEnv) -> None:
    peg_env.reset(seed=0)
    action = np.array([0.01 + 1e-12, 0.0, 0.0])
    _, _, _, _, info = peg_env.step(action)
    assert info["executed_action"].tolist() == action.tolist()


def test_expert_succeeds_and_the_episode_terminates(env: ContractEnv) -> None:
    rewards, terminated, truncated, info = drive(env, None, seed=3)
    assert (terminated, truncated, info["success"], info["failure"]) == (True, False, True, "")
    assert sum(rewards) == (1.0 if env.contract.name == "peg" else 0.0)


def test_an_end_at_the_horizon_without_success_is_a_truncation(peg_env: ContractEnv) -> None:
    rewards, terminated, truncated, info = drive(peg_env, np.zeros(3), seed=3)
    assert (terminated, truncated) == (False, True)
    assert len(rewards) == peg_env.contract.horizon_ticks
    assert (info["success"], info["failure"], sum(rewards)) == (False, "not_found", 0.0)


def test_rewards_add_up_to_the_metric_with_its_sign_changed_where_less_is_better() -> None:
    rewards, _, _, info = drive(ContractEnv(contract_path("lane")), np.array([1.0, 0.5]), seed=1)
    assert info["metric"] > 1
    assert sum(rewards) == -info["metric"]
    assert set(rewards) == {0.0, -1.0}


def test_equal_seeds_give_equal_episodes_and_seeds_it_draws_itself_are_none_of_a_panel(peg_env: ContractEnv) -> None:
    first = [peg_env.reset(seed=7)[0], peg_env.reset()[0], peg_env.reset()[0]]
    again = [peg_env.reset(seed=7)[0], peg_env.reset()[0], peg_env.reset()[0]]
    assert [o.tobytes() for o in first] == [o.tobytes() for o in again]
    assert len({o.tobytes() for o in first}) == 3
    drawn = np.random.Generator(np.random.PCG64(np.random.SeedSequence(7))).integers(1_000_000_000)
    np.testing.assert_array_equal(first[1], peg_env.reset(seed=int(drawn))[0])


def test_an_action_that_is_not_finite_stops_the_robot(peg_env: ContractEnv) -> None:
    peg_env.reset(seed=0)
    peg_env.step(np.array([0.1, 0.1, 0.0]))
    for _ in range(5):
        _, _, _, _, info = peg_env.step(np.full(3, np.nan))
    assert info["executed_action"].tolist() == [0.0, 0.0, 0.0]


def test_nothing_was_received_yet_where_observations_come_late() -> None:
    env = ContractEnv(contract_path("peg"), perturbation=Perturbation(observation_delay_s=0.1))
    observation, _ = env.reset(seed=0)
    assert np.isnan(observation).all()
    for _ in range(2):
        observation, *_ = env.step(np.zeros(3))
    assert np.isfinite(observation).all()


def test_a_wrong_shape_and_a_step_without_an_episode_are_refused_in_words(peg_env: ContractEnv) -> None:
    with pytest.raises(DaggerError, match=r"call reset\(\) first"):
        peg_env.step(np.zeros(3))
    peg_env.reset(seed=0)
    with pytest.raises(DaggerError, match=r"expected an action of shape \(3,\), got \(4,\)"):
        peg_env.step(np.zeros(4))
    drive(peg_env, None, seed=3)
    with pytest.raises(DaggerError, match=r"call reset\(\) first"):
        peg_env.step(np.zeros(3))


def test_without_gymnasium_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "dagger_ros.sim.gym")
    with pytest.raises(DaggerError, match=r"expected the package gymnasium.*pip install gymnasium"):
        importlib.import_module("dagger_ros.sim.gym")
