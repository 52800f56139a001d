"""Every shipped contract against its MuJoCo model: demonstrated, recorded, learned from and judged."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import ROOT, contract_path, small_panel
from dagger_ros.cli import main
from dagger_ros.contract import DaggerError, load_contract, parse_contract

pytest.importorskip("rclpy")
pytest.importorskip("torch")
from dagger_ros.dagger import RunConfig, run
from dagger_ros.dataset import load_round, read_episode
from dagger_ros.learning import TrainingSettings
from dagger_ros.nodes.lockstep import collect_round
from dagger_ros.sim import load_plant
from dagger_ros.sim.cameras import PlantCameras

pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.torch, pytest.mark.usefixtures("ros_domain")]

CONTRACTS = sorted(p.stem for p in (ROOT / "config" / "contracts").glob("*.yaml"))
ARMS = ("arm_forward_command", "arm_joint_trajectory", "wrist_camera")
QUICK = TrainingSettings(members=1, hidden=(32,), steps=150)


class Quiet:
    """Progress that nobody watches."""

    @contextmanager
    def stage(self, name: str, total: int) -> Any:
        yield lambda done: None

    def round_done(self, result: Any) -> None:
        pass


def skip_if_nothing_draws(name: str) -> None:
    """A contract with cameras needs a way to draw what they see."""
    contract = load_contract(contract_path(name))
    if contract.cameras:
        try:
            PlantCameras(load_plant(contract, contract_path(name)), contract_path(name)).close()
        except DaggerError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize("name", CONTRACTS)
def test_shipped_contract_is_demonstrated_recorded_learned_and_judged(name: str, tmp_path: Path) -> None:
    skip_if_nothing_draws(name)
    contract, out = load_contract(contract_path(name)), tmp_path / "run"
    result = run(
        RunConfig(rule="hg", rounds=1, seed=0, demonstrations=2, episodes=1, patience=0, training=QUICK),
        contract_path(name),
        out,
        [small_panel(count=2)],
        None,
        collect=collect_round,
        progress=Quiet(),
        resume=False,
        workers=1,
        pictures=False,
    )
    demonstrations, visited = (load_round(out / f"rounds/{k:03d}", contract) for k in range(2))
    assert all(e.success for e in demonstrations.episodes)
    assert demonstrations.labels == sum(e.ticks for e in demonstrations.episodes)
    assert [e.ticks > 0 for e in visited.episodes] == [True]
    assert [r["panel"]["n"] for r in result["rounds"]] == [2, 2]
    recorded = read_episode(out / "rounds/000/episodes/000000").messages
    topics = {*contract.topics, contract.action.topic, *(c.topic for c in contract.cameras.values())}
    assert all(recorded[topic] > 0 for topic in topics)
    if contract.cameras:
        main(["export", str(out), "--out", str(tmp_path / "dataset")])
        videos = {p.parts[-3] for p in (tmp_path / "dataset/videos").rglob("*.mp4")}
        assert videos == {f"observation.images.{camera}" for camera in contract.cameras}


@pytest.mark.parametrize("name", CONTRACTS)
def test_name_of_a_shipped_contract_is_that_of_its_file(name: str) -> None:
    """Or `report` and `diagnose` do not find the model of a run."""
    assert load_contract(contract_path(name)).name == name


@pytest.mark.parametrize("name", ARMS)
def test_arm_that_is_held_reaches_nothing(name: str) -> None:
    contract = load_contract(contract_path(name))
    plant = load_plant(contract, contract_path(name))
    plant.reset(0)
    statuses = [plant.step(None) for _ in range(contract.horizon_ticks)]
    assert (statuses[-1].done, statuses[-1].success, statuses[-1].failure) == (True, False, "not_reached")
    assert not any(s.done for s in statuses[:-1])


def test_arm_that_passes_its_target_does_not_hold_it() -> None:
    name = "arm_forward_command"
    plant = load_plant(load_contract(contract_path(name)), contract_path(name))
    status, action = plant.reset(0), np.zeros(6)
    while status.progress < -0.015:
        plant.task.expert.act(plant.truth(), action)
        status = plant.step(action)
    while not status.done:
        status = plant.step(action + 0.2)
    assert (status.success, status.failure) == (False, "not_held")


def test_reach_expert_knows_the_model_of_its_arm() -> None:
    name = "arm_forward_command"
    plant = load_plant(load_contract(contract_path(name)), contract_path(name))
    action = np.zeros(6)
    for seed in range(20):
        status = plant.reset(seed)
        while not status.done:
            plant.task.expert.act(plant.truth(), action)
            status = plant.step(action)
        assert status.success
        assert status.progress > -0.002  # m; what gravity and the servos leave


def test_reach_by_velocities_is_refused() -> None:
    content = yaml.safe_load(contract_path("arm_forward_command").read_text())
    content["action"] |= {"interface": "velocity", "stop": "ramp_to_zero"}
    del content["action"]["measured"], content["expert"]
    for dimension in content["action"]["dimensions"]:
        limits = {k: v for k, v in dimension.items() if k in ("name", "select", "jump_limit")}
        dimension.clear()
        dimension |= limits | {"unit": "rad/s", "lower": -1.0, "upper": 1.0}
        dimension |= {"acceleration_limit": 5.0, "deceleration_limit": 5.0}
    contract = parse_contract(yaml.safe_dump(content), source="c.yaml")
    with pytest.raises(DaggerError, match=r"task 'reach' needs action.interface position, .*; found velocity"):
        load_plant(contract, contract_path("arm_forward_command"))
