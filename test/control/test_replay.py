from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import contract_path, limits_for, weak_policy
from dagger_ros.contract import Contract, RowLayout, load_contract
from dagger_ros.control import ControlTick, replay
from dagger_ros.policy import load_checkpoint
from dagger_ros.supervisor import ABOUT, Gate, Limits, Reason, Response, RuleOptions, make_rule, response_bits

pytest.importorskip("mujoco")
from dagger_ros.sim import Perturbation, load_plant, rollout
from dagger_ros.sim.experts import labeller_of_rule, make_labeller

pytestmark = pytest.mark.mujoco

REFUSED = response_bits(*(r for r in Response if r > Response.LIMIT))


def gate_of(contract: Contract, rule: str) -> Gate:
    options = RuleOptions(beta="exponential", budget=0.2, expert_noise=0.1)
    limits = Limits.fitted(rule, limits_for(rule))
    return Gate(contract, make_rule(rule, round_index=1, options=options, limits=limits), auto_arm=True)


@pytest.mark.parametrize("rule", ["hg", "dagger", "lazy", "thrifty"])
@pytest.mark.parametrize("settings", [{}, {"observation_delay_s": 0.1, "observation_drop": 0.3}])
def test_recorded_run_is_decided_again_to_the_same_bytes(
    task: str, rule: str, settings: dict[str, float], tmp_path: Any
) -> None:
    contract, path = load_contract(contract_path(task)), contract_path(task)
    layout = RowLayout(contract)
    policy = load_checkpoint(weak_policy(task, tmp_path / "pi"), contract)
    labeller = make_labeller(labeller_of_rule(rule, 1), contract)
    control = ControlTick(layout, gate_of(contract, rule), labeller, policy)
    plant = load_plant(contract, path, Perturbation(**settings))
    for seed in (3, 4, 5):
        rows, _ = rollout(plant, control, layout, seed=seed, ticks=contract.horizon_ticks)
        assert replay(rows, gate_of(contract, rule)).tobytes() == rows.tobytes()
    # The limits of thrifty follow from what was in the episodes before, and in the row.
    assert rule != "thrifty" or len(np.unique(rows["ask_limits"], axis=0)) > 1


@pytest.mark.parametrize("start", [1, 7, 20])
def test_run_is_joined_in_the_middle(peg: Contract, start: int, tmp_path: Any) -> None:
    layout = RowLayout(peg)
    policy = load_checkpoint(weak_policy("peg", tmp_path / "pi"), peg)
    control = ControlTick(layout, gate_of(peg, "hg"), make_labeller(labeller_of_rule("hg", 1), peg), policy)
    plant = load_plant(peg, contract_path("peg"))
    rows, _ = rollout(plant, control, layout, seed=5, ticks=peg.horizon_ticks)
    again = replay(rows[start:], gate_of(peg, "hg"))
    for name in ("mode", "reasons", "executed_action", "label_source", "intervention"):
        assert again[name].tobytes() == rows[start:][name].tobytes(), name


def test_nothing_is_decided_to_nothing(peg: Contract) -> None:
    assert len(replay(RowLayout(peg).new(0), gate_of(peg, "hg"))) == 0


def test_good_run_is_neither_refused_nor_clamped_beyond_what_was_recorded(task: str) -> None:
    """An expert's demonstrations are what a gate must let through."""
    contract, path = load_contract(contract_path(task)), contract_path(task)
    layout = RowLayout(contract)
    gate = Gate(contract, make_rule("bc", round_index=0), auto_arm=True)
    control = ControlTick(layout, gate, make_labeller("scripted", contract), None)
    plant = load_plant(contract, path)
    for seed in range(5):
        rows, status = rollout(plant, control, layout, seed=seed, ticks=contract.horizon_ticks)
        assert status.success
        again = replay(rows, Gate(contract, make_rule("bc", round_index=0), auto_arm=True))
        no_policy = int(Reason.POLICY_NEVER)  # there is none in a demonstration
        assert not (again["reasons"] & np.uint64(REFUSED & ~no_policy)).any()
        limited = np.uint64(response_bits(Response.LIMIT))
        assert not (again["reasons"] & limited & ~rows["reasons"]).any()
        assert np.array_equal(again["executed_action"], rows["executed_action"])


def test_tighter_contract_clamps_more_in_the_same_run(peg: Contract) -> None:
    """What replay is for: to see what new limits would have done to a recorded run."""
    layout = RowLayout(peg)
    gate = Gate(peg, make_rule("bc", round_index=0), auto_arm=True)
    control = ControlTick(layout, gate, make_labeller("scripted", peg), None)
    plant = load_plant(peg, contract_path("peg"))
    rows, _ = rollout(plant, control, layout, seed=1, ticks=peg.horizon_ticks)
    content = peg.model_dump(mode="json", by_alias=True)
    for dimension in content["action"]["dimensions"]:
        dimension["upper"], dimension["lower"] = 0.1, -0.1
    tight = Contract.model_validate(content)
    again = replay(rows, Gate(tight, make_rule("bc", round_index=0), auto_arm=True))
    assert np.abs(again["executed_action"]).max() <= 0.1
    clamped = np.uint64(Reason.CLAMPED_BOUND)
    assert (again["reasons"] & clamped).astype(bool).sum() > (rows["reasons"] & clamped).astype(bool).sum()
    assert ABOUT[Reason.CLAMPED_BOUND].response is Response.LIMIT
