from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import contract_path, limits_for, weak_policy
from dagger_ros.contract import (
    NEVER_NS,
    Contract,
    DaggerError,
    InterventionReason,
    Label,
    Mode,
    RowLayout,
    load_contract,
)
from dagger_ros.control import ControlTick, Replayed, label_again, propose_again, replay
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


def rows_of(contract: Contract, policy: Any, *, rule: str = "hg", seed: int = 5) -> Any:
    """An episode of the peg, driven by a policy and corrected."""
    labeller = make_labeller(labeller_of_rule(rule, 1), contract)
    control = ControlTick(RowLayout(contract), gate_of(contract, rule), labeller, policy)
    plant = load_plant(contract, contract_path("peg"), Perturbation(observation_delay_s=0.1, observation_drop=0.3))
    return rollout(plant, control, RowLayout(contract), seed=seed, ticks=contract.horizon_ticks)[0]


def test_same_policy_proposes_the_same_bytes_again_and_another_one_other_actions(peg: Contract, tmp_path: Any) -> None:
    layout = RowLayout(peg)
    same, other = (load_checkpoint(weak_policy("peg", tmp_path / str(i), seed=i), peg) for i in range(2))
    rows = rows_of(peg, same)
    assert propose_again(rows, layout, same).tobytes() == rows.tobytes()
    again = propose_again(rows, layout, other)
    proposed = rows["policy_stamp_ns"] != NEVER_NS
    assert proposed.any()
    assert not proposed.all()  # the first observation comes late
    assert (again[proposed]["policy"] == b"pi_001").all()
    assert (again[proposed]["policy_action"] != rows[proposed]["policy_action"]).any(1).all()
    assert again[~proposed].tobytes() == rows[~proposed].tobytes()
    for name in ("policy_stamp_ns", "policy_receive_ns", "observation", "expert_action", "mode", "executed_action"):
        assert again[name].tobytes() == rows[name].tobytes(), name


def test_late_proposal_is_of_the_newest_observation_that_it_could_have_seen(peg: Contract, tmp_path: Any) -> None:
    """As in real time, where the proposal of one tick is used at the next."""
    policy = load_checkpoint(weak_policy("peg", tmp_path / "pi"), peg)
    rows = rows_of(peg, policy)[4:]
    late = rows[1:].copy()
    for name in ("policy_action", "policy_stamp_ns", "doubt", "novelty", "deviation", "risk"):
        late[name] = rows[:-1][name]
    moved = np.flatnonzero(np.diff(late["stamp_ns"].max(1)) > 0) + 1
    again = propose_again(late, RowLayout(peg), policy)
    assert len(moved) > 10
    assert again[moved]["policy_action"].tobytes() == late[moved]["policy_action"].tobytes()


def test_recorder_that_was_ahead_of_the_supervisor_changes_nothing(peg: Contract, tmp_path: Any) -> None:
    """Coins are tossed and takeovers counted from where the supervisor heard of the episode."""
    policy = load_checkpoint(weak_policy("peg", tmp_path / "pi"), peg)
    labeller = make_labeller("scripted", peg)
    gate = gate_of(peg, "dagger")
    control = ControlTick(RowLayout(peg), gate, labeller, policy)
    plant = load_plant(peg, contract_path("peg"))
    before = rollout(plant, control, RowLayout(peg), seed=1, ticks=9)[0]
    rows = rollout(plant, control, RowLayout(peg), seed=2, ticks=60, episode=0)[0]
    joined = np.concatenate([before, rows])
    again = replay(joined, gate_of(peg, "dagger"))
    assert again.tobytes() == joined.tobytes()
    assert rows["intervention"].max() > 1


def test_difference_is_told_by_field_and_tick_and_nan_is_nan(peg: Contract) -> None:
    rows = RowLayout(peg).new(5)
    same = rows.copy()
    same["doubt"] = -np.nan
    assert Replayed(rows, same).differing == {}
    assert not Replayed(rows, same).differs.any()
    again = rows.copy()
    again["mode"][3] = 2
    again["expert_action"][1, 2] = 0.5
    again["policy"][4] = b"pi"
    rows["missed_ticks"][1] = 7
    rows["executed_action"], again["executed_action"] = 0.0, 0.0
    again["executed_action"][2, 0] = -0.0
    found = Replayed(rows, again)
    assert {name: np.flatnonzero(ticks).tolist() for name, ticks in found.differing.items()} == {
        "mode": [3],
        "expert_action": [1],
        "executed_action": [2],
        "missed_ticks": [1],
        "policy": [4],
    }
    assert found.differs.tolist() == [False, True, True, True, True]
    assert not Replayed(rows[:0], again[:0]).differs.any()


def test_gap_is_known_where_both_actions_are(peg: Contract) -> None:
    rows = RowLayout(peg).new(3)
    again = rows.copy()
    rows["policy_action"][1:], again["policy_action"][:2] = 0.25, -0.5
    again["policy_action"][2] = np.inf
    gaps = Replayed(rows, again).gaps("policy_action")
    assert np.isnan(gaps[[0, 2]]).all()
    assert gaps[1].tolist() == [0.75, 0.75, 0.75]


def test_expert_labels_every_whole_frame_anew(peg: Contract, tmp_path: Any) -> None:
    layout = RowLayout(peg)
    rows = rows_of(peg, load_checkpoint(weak_policy("peg", tmp_path / "pi"), peg))
    rows["observation"][7, 0] = np.nan
    rows["privileged"][9] = np.nan
    again = label_again(rows, layout, make_labeller("scripted", peg))
    whole = (rows["receive_ns"] != NEVER_NS).all(1)
    assert not whole.all()
    whole[[7, 9]] = False
    assert ((again["label_source"] == Label.EXPERT) == whole).all()
    assert (again["label_source"][~whole] == Label.NONE).all()
    assert (again["expert_reason"] == InterventionReason.DEMONSTRATION).all()
    assert (again["operator_id"] == b"scripted peg expert").all()
    assert np.isnan(again["discrepancy"]).all()
    for name in ("observation", "policy_action", "executed_action", "mode", "intervention", "time_ns"):
        assert again[name].tobytes() == rows[name].tobytes(), name
    # The recorded command did not follow from what this expert saw.
    timed = rows.copy()
    timed["gate_s"], timed["command_s"], timed["mode"][:2] = 1e-3, 1e-3, (Mode.EXPERT, Mode.POLICY)
    command_s = label_again(timed, layout, make_labeller("scripted", peg))["command_s"]
    assert np.isnan(command_s[:2]).tolist() == [True, False]
    # What a scripted expert labelled it labels again.
    demonstrated = rows_of(peg, None, rule="bc")
    again = label_again(demonstrated, layout, make_labeller("scripted", peg))
    seen = (demonstrated["receive_ns"] != NEVER_NS).all(1)
    for name in ("expert_action", "expert_stamp_ns", "expert_receive_ns", "expert_intent", "expert_reason"):
        assert again[seen][name].tobytes() == demonstrated[seen][name].tobytes(), name


@pytest.mark.parametrize("count", [0, 4])
def test_expert_that_sees_nothing_is_an_error(peg: Contract, count: int) -> None:
    with pytest.raises(
        DaggerError, match=r"expected ticks with everything that scripted peg expert sees \(true_peg_in_ho"
    ):
        label_again(RowLayout(peg).new(count), RowLayout(peg), make_labeller("scripted", peg))
