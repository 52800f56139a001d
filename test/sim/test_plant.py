"""What every plant must do, for both tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import contract_path
from dagger_ros.contract import Contract, DaggerError, Label, Mode, RowLayout, load_contract, parse_contract
from dagger_ros.control import ControlTick
from dagger_ros.expert import ScriptedLabeller
from dagger_ros.sim import MujocoPlant, Perturbation, load_plant, rollout
from dagger_ros.sim.experts import make_labeller
from dagger_ros.supervisor import Gate, make_rule

pytestmark = pytest.mark.mujoco


@pytest.fixture
def plant(task: str, contract: Contract) -> MujocoPlant:
    return load_plant(contract, contract_path(task))


def expert_rollout(task: str, seed: int, **perturbation: float) -> tuple[Any, Any]:
    contract = load_contract(contract_path(task))
    plant = load_plant(contract, contract_path(task), Perturbation(**perturbation))
    gate = Gate(contract, make_rule("bc", round_index=0), auto_arm=True)
    layout = RowLayout(contract)
    control = ControlTick(layout, gate, ScriptedLabeller(plant.task.expert), None)
    return rollout(plant, control, layout, seed=seed, ticks=contract.horizon_ticks)


def observe_all(plant: MujocoPlant) -> dict[int, Any]:
    return {i: v for sample in plant.observe() for i, v in sample.values}


def test_every_stream_is_published_with_its_size_and_the_time_of_the_tick(plant: MujocoPlant) -> None:
    plant.reset(3)
    plant.step(None)
    samples = plant.observe()
    assert {s.stamp_ns for s in samples} == {plant.contract.timing.period_ns}
    sizes = {i: len(v) for s in samples for i, v in s.values}
    assert sizes == {i: len(s.dimensions) for i, s in enumerate(plant.contract.streams.values())}
    assert all(np.isfinite(v).all() for s in samples for _, v in s.values)


def test_same_seed_gives_the_same_rollout_bit_for_bit(task: str) -> None:
    first, status = expert_rollout(task, 11)
    second, again = expert_rollout(task, 11)
    assert first.tobytes() == second.tobytes()
    assert status == again


def test_other_seed_gives_another_start(plant: MujocoPlant) -> None:
    plant.reset(1)
    first = observe_all(plant)
    plant.reset(2)
    second = observe_all(plant)
    assert any((first[i] != second[i]).any() for i in first)


def test_time_goes_on_over_a_reset(plant: MujocoPlant) -> None:
    plant.reset(1)
    plant.step(None)
    before = plant.time_ns
    plant.reset(1)
    assert plant.time_ns == before == plant.contract.timing.period_ns


def test_expert_succeeds_from_every_start(task: str) -> None:
    for seed in range(100, 110):
        rows, status = expert_rollout(task, seed)
        assert status.success, f"seed {seed}: {status}"
        assert (rows["mode"] == Mode.EXPERT).all()
        assert (rows["label_source"] == Label.EXPERT).all()


def test_expert_is_smooth(task: str, contract: Contract) -> None:
    """Labels of neighbouring states lie close together, or they cannot be learned."""
    half = np.array([(d.upper - d.lower) / 2 for d in contract.action.dimensions_])
    plant = load_plant(contract, contract_path(task))
    rows, _ = expert_rollout(task, 5)
    out, nudged = np.zeros(len(half)), np.zeros(len(half))
    for row in rows:
        plant.task.expert.act(row["privileged"], out)
        plant.task.expert.act(row["privileged"] + 1e-6, nudged)
        assert (np.abs(nudged - out) / half < 0.02).all()


def test_expert_without_a_state_labels_nothing(contract: Contract) -> None:
    labeller = make_labeller("scripted", contract)
    row = RowLayout(contract).new(1)[0]
    out = np.zeros(len(contract.action.dimensions))
    labeller.label(row, None, out)
    assert np.isnan(out).any()


def test_plant_left_alone_stops(plant: MujocoPlant) -> None:
    """As a real driver does when commands cease."""
    plant.reset(4)
    largest = np.array([d.upper for d in plant.contract.action.dimensions_])
    for _ in range(3):
        plant.step(largest * 0.5)
    for _ in range(10):
        plant.step(None)
    assert np.abs(plant.data.qvel).max() < 0.1  # the actuators of the lane have noise


def test_delay_brings_observations_later_and_spares_the_expert(task: str, contract: Contract) -> None:
    period_s = contract.timing.period_ns * 1e-9
    plant = load_plant(contract, contract_path(task), Perturbation(observation_delay_s=2 * period_s))
    plant.reset(1)
    privileged = {i for i, s in enumerate(contract.streams.values()) if s.privileged}
    assert set(observe_all(plant)) == privileged
    plant.step(None)
    assert set(observe_all(plant)) == privileged
    plant.step(None)
    samples = plant.observe()
    stamps = {s.stamp_ns for s in samples if not privileged & {i for i, _ in s.values}}
    assert stamps == {0}
    assert plant.time_ns == 2 * contract.timing.period_ns


@pytest.mark.parametrize("setting", ["observation_noise", "observation_bias"])
def test_noise_and_bias_change_what_the_policy_sees_and_spare_the_expert(task: str, setting: str) -> None:
    contract = load_contract(contract_path(task))
    observed = []
    for settings in ({}, {setting: 2.0}):
        plant = load_plant(contract, contract_path(task), Perturbation(**settings))
        plant.reset(1)
        observed.append(observe_all(plant))
    for i, stream in enumerate(contract.streams.values()):
        assert (observed[0][i] == observed[1][i]).all() == stream.privileged


def test_dropped_messages_do_not_come(task: str, contract: Contract) -> None:
    plant = load_plant(contract, contract_path(task), Perturbation(observation_drop=1.0))
    plant.reset(1)
    assert all(contract.streams[list(contract.streams)[i]].privileged for i in observe_all(plant))


@pytest.mark.parametrize("settings", [{"actuator_gain": 0.5}, {"actuator_lag_s": 0.2}, {"action_delay_s": 0.2}])
def test_actuator_perturbations_change_the_way(settings: dict[str, float]) -> None:
    plain, _ = expert_rollout("lane", 2)
    rows, _ = expert_rollout("lane", 2, **settings)
    n = min(len(plain), len(rows), 30)
    assert (plain["privileged"][:n] != rows["privileged"][:n]).any()


@pytest.mark.parametrize("settings", [{"payload_kg": 2.0}, {"actuator_limit": 0.4}, {"start_spread": 2.0}])
def test_arm_perturbations_change_the_way(settings: dict[str, float]) -> None:
    plain, _ = expert_rollout("peg", 2)
    rows, _ = expert_rollout("peg", 2, **settings)
    n = min(len(plain), len(rows))
    assert (plain["privileged"][:n] != rows["privileged"][:n]).any()


def test_saturated_actuator_stays_within_its_share_of_the_bounds() -> None:
    contract = load_contract(contract_path("peg"))
    plants = [load_plant(contract, contract_path("peg"), Perturbation(actuator_limit=s)) for s in (0.5, 1.0)]
    upper = np.array([d.upper for d in contract.action.dimensions_])
    for plant, command in zip(plants, (upper, 0.5 * upper), strict=True):
        plant.reset(1)
        for _ in range(5):
            plant.step(command)
    assert (plants[0].data.qpos == plants[1].data.qpos).all()


def test_camera_shift_moves_what_is_seen_of_the_world_alone_by_its_distance(task: str, contract: Contract) -> None:
    seen = []
    for settings in ({}, {"camera_shift": 4.0}):
        plant = load_plant(contract, contract_path(task), Perturbation(**settings))
        plant.reset(1)
        seen.append(observe_all(plant))
    for i, (name, stream) in enumerate(contract.streams.items()):
        assert (seen[0][i] != seen[1][i]).any() == (name in contract.perception)
        if name == "peg_in_hole":
            assert np.linalg.norm(seen[1][i] - seen[0][i]) == pytest.approx(4 * stream.resolution)


def test_noise_can_be_confined_to_streams_that_the_policy_sees() -> None:
    contract = load_contract(contract_path("peg"))
    seen = []
    for settings in ({}, {"observation_noise": 2.0, "observation_streams": ["joint_velocity"]}):
        plant = load_plant(contract, contract_path("peg"), Perturbation(**settings))
        plant.reset(1)
        seen.append(observe_all(plant))
    changed = [name for i, name in enumerate(contract.streams) if (seen[0][i] != seen[1][i]).any()]
    assert changed == ["joint_velocity"]
    with pytest.raises(DaggerError, match=r"observation_streams: expected streams that a policy sees .*, got true_peg"):
        load_plant(contract, contract_path("peg"), Perturbation(observation_streams=("true_peg_in_hole",)))


def test_scene_is_shown_as_it_was(plant: MujocoPlant) -> None:
    plant.reset(3)
    scene = plant.scene()
    places = plant.data.xpos.copy()
    for _ in range(5):
        plant.step(np.array([d.upper for d in plant.contract.action.dimensions_]))
    assert (plant.data.xpos != places).any()
    plant.show(scene)
    assert np.allclose(plant.data.xpos, places, atol=1e-12)


def test_friction_changes_contact() -> None:
    plain, _ = expert_rollout("peg", 2)
    rows, _ = expert_rollout("peg", 2, friction=3.0)
    n = min(len(plain), len(rows))
    assert (plain["privileged"][:n] != rows["privileged"][:n]).any()


@pytest.mark.parametrize("settings", [{"observation_drop": 1.5}, {"actuator_gain": -1.0}, {"friction": float("nan")}])
def test_impossible_perturbation_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(DaggerError, match=f"perturbation {next(iter(settings))}: expected"):
        Perturbation(**settings)


def changed(path: Path, **simulation: Any) -> Contract:
    content = yaml.safe_load(contract_path("peg").read_text())
    content["simulation"] |= simulation
    path.write_text(yaml.safe_dump(content))
    return parse_contract(path.read_text(), source=str(path))


def test_missing_model_is_named(tmp_path: Path) -> None:
    contract = changed(tmp_path / "c.yaml", model="nowhere.xml")
    with pytest.raises(DaggerError, match=r"simulation.model: expected an MJCF file at .*nowhere.xml; there is none"):
        load_plant(contract, tmp_path / "c.yaml")


def test_model_that_does_not_compile_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.xml").write_text("<mujoco><worldbody><body></mujoco>")
    contract = changed(tmp_path / "c.yaml", model="bad.xml")
    with pytest.raises(DaggerError, match=r"bad.xml: expected an MJCF model that compiles"):
        load_plant(contract, tmp_path / "c.yaml")


def test_model_without_a_named_joint_says_which_it_has(tmp_path: Path) -> None:
    model = (contract_path("peg").parent.parent / "models" / "peg.xml").read_text()
    (tmp_path / "peg.xml").write_text(
        model.replace('name="j4"', 'name="wrist4"').replace('joint="j4"', 'joint="wrist4"')
    )
    contract = changed(tmp_path / "c.yaml", model="peg.xml")
    with pytest.raises(DaggerError, match=r"peg.xml: expected a joint named 'j4' .*; the model has j1, j2, j3, wrist4"):
        load_plant(contract, tmp_path / "c.yaml")


def test_actuation_of_another_size_is_refused(tmp_path: Path) -> None:
    model = str((contract_path("peg").parent.parent / "models" / "peg.xml").resolve())
    contract = changed(tmp_path / "c.yaml", model=model, actuation={"kind": "actuators", "names": ["a1", "a2"]})
    with pytest.raises(DaggerError, match="kind 'actuators' takes 2 numbers, the action has 3"):
        load_plant(contract, tmp_path / "c.yaml")


def test_contract_without_simulation_cannot_be_simulated(tmp_path: Path) -> None:
    content = yaml.safe_load(contract_path("peg").read_text())
    del content["simulation"]
    contract = parse_contract(yaml.safe_dump(content), source="c.yaml")
    with pytest.raises(DaggerError, match="expected a section 'simulation'"):
        load_plant(contract, tmp_path / "c.yaml")


def test_lane_that_stands_still_falls_too() -> None:
    """Or a policy that never moves would have the best metric."""
    contract = load_contract(contract_path("lane"))
    plant = load_plant(contract, contract_path("lane"))
    plant.reset(0)
    statuses = [plant.step(np.zeros(2)) for _ in range(contract.horizon_ticks)]
    assert statuses[-1].failure == "too_slow"
    assert statuses[-1].metric == pytest.approx(contract.task.horizon_s / 3, abs=1)


def test_peg_that_never_moves_is_not_found() -> None:
    contract = load_contract(contract_path("peg"))
    plant = load_plant(contract, contract_path("peg"))
    plant.reset(0)
    statuses = [plant.step(np.zeros(3)) for _ in range(contract.horizon_ticks)]
    assert (statuses[-1].done, statuses[-1].success, statuses[-1].failure) == (True, False, "not_found")
    assert all(not s.done for s in statuses[:-1])


def test_contract_with_another_metric_or_label_than_the_task_gives_is_refused(tmp_path: Path) -> None:
    content = yaml.safe_load(contract_path("peg").read_text())
    content["simulation"]["model"] = str((contract_path("peg").parent.parent / "models" / "peg.xml").resolve())
    content["expert"] = None
    content["task"]["failure_labels"] = {"not_found": "x"}
    with pytest.raises(DaggerError, match=r"task.failure_labels: expected .*; missing jammed"):
        load_plant(parse_contract(yaml.safe_dump(content), source=""), tmp_path / "c.yaml")
    content["task"]["metric"]["name"] = "score"
    with pytest.raises(DaggerError, match=r"task.metric.name: expected success, .*; found score"):
        load_plant(parse_contract(yaml.safe_dump(content), source=""), tmp_path / "c.yaml")
