"""Two robots in one ROS domain: graphs in two namespaces that hear nothing of each other, and one aggregate of both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import contract_path, weak_policy
from dagger_ros.cli import main
from dagger_ros.contract import Mode, RowLayout, load_contract
from dagger_ros.dataset import (
    episode_folder,
    finish_round,
    merge_rounds,
    read_episode,
    read_rows,
    round_folder,
    round_folders,
    training_episodes,
    verify_round,
)
from dagger_ros.dataset.about import read_about
from dagger_ros.policy import load_checkpoint

rclpy = pytest.importorskip("rclpy")
from dagger_ros.nodes.aggregator import AggregatorNode
from dagger_ros.nodes.expert_label import ExpertLabelNode
from dagger_ros.nodes.mujoco_bridge import MujocoBridgeNode
from dagger_ros.nodes.policy import PolicyNode
from dagger_ros.nodes.spin import poll
from dagger_ros.nodes.supervisor import SupervisorNode
from dagger_ros.sim.experts import labeller_of_rule
from rest import PATIENCE_S

pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.usefixtures("ros_domain")]

NAMES = ("left", "right")
SEEDS = (3, 4)
# What belongs to everybody and not to a robot.
SHARED = {"/diagnostics", "/parameter_events", "/rosout"}
# As sim.launch.py has it: each simulation has a time of its own.
OWN_CLOCK = ["--ros-args", "-r", "/clock:=clock"]


def contract_of(path: Path, name: str) -> Path:
    """The peg's contract for one of two arms; that at the right calls its joints something else."""
    content = yaml.safe_load(contract_path("peg").read_text())
    content["robot"] = {"body": f"arm_{name}", "description": f"the arm at the {name}"}
    content["simulation"]["model"] = str((contract_path("peg").parent / content["simulation"]["model"]).resolve())
    for stream in content["streams"].values():
        if name == "right" and stream["topic"] == "joint_states":
            stream["topic"] = "arm/joint_states"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


class Robot:
    """The graph of one robot in a namespace, run by the ticks of its simulation."""

    def __init__(self, context: Any, name: str, run: Path, round_index: int, policy: Path | None) -> None:
        common = {"contract": str(run / "contract.yaml"), "lockstep": True, "use_sim_time": True}
        about = {"rule": "hg", "round": round_index}
        driven = {"needs_policy": policy is not None, "policy": str(policy or "")}
        self.out = round_folder(run, round_index)
        self.bridge = MujocoBridgeNode(common | {"use_sim_time": False}, context, name)
        self.aggregator = AggregatorNode(common | about | {"out": str(self.out)}, context, name)
        self.nodes: list[Any] = [
            self.bridge,
            ExpertLabelNode(common | {"expert": labeller_of_rule("hg", round_index)}, context, name),
            SupervisorNode(common | about | driven | {"auto_arm": True}, context, name),
            self.aggregator,
        ]
        if policy is not None:
            self.nodes.append(PolicyNode(common | {"policy": str(policy)}, context, name))
        self.subscriptions = [list(node.subscriptions) for node in self.nodes]

    def poll(self) -> int:
        return sum([poll(subscriptions) for subscriptions in self.subscriptions])

    def finish(self) -> None:
        status = self.bridge.status
        self.aggregator.stop(success=status.success, failure=status.failure, metric=status.metric)


def run_episode(robots: list[Robot], seed: int) -> None:
    """One episode of every robot, message by message in turn."""

    def settle() -> None:
        while sum([robot.poll() for robot in robots]):
            pass

    for robot in robots:
        robot.aggregator.start(seed)
    settle()
    for robot in robots:
        robot.bridge.reset(seed)
    settle()
    for robot in robots:
        assert robot.bridge.status.done, f"stands still at tick {robot.bridge.plant.tick}"
        robot.finish()


def collect(context: Any, runs: dict[str, Path], round_index: int, policies: dict[str, Path]) -> None:
    """One round of every robot, at the same time."""
    robots = [Robot(context, name, run, round_index, policies.get(name)) for name, run in runs.items()]
    try:
        if len(robots) > 1:
            check_that_no_topic_is_shared(context, sum(len(robot.nodes) for robot in robots))
        for seed in SEEDS:
            run_episode(robots, seed)
    finally:
        for robot in robots:
            for node in robot.nodes:
                node.destroy_node()
    for run in runs.values():
        finish_round(round_folder(run, round_index), load_contract(run / "contract.yaml"))


def check_that_no_topic_is_shared(context: Any, count: int) -> None:
    """Whoever writes or reads a topic lies in its namespace."""
    ear = rclpy.create_node("ear", context=context)
    end_s = time.monotonic() + PATIENCE_S
    while sum(namespace.strip("/") in NAMES for _, namespace in ear.get_node_names_and_namespaces()) < count:
        assert time.monotonic() < end_s, ear.get_node_names_and_namespaces()
        time.sleep(0.01)

    def shared() -> dict[str, set[str]]:
        found = {}
        for topic, _ in ear.get_topic_names_and_types():
            ends = [*ear.get_publishers_info_by_topic(topic), *ear.get_subscriptions_info_by_topic(topic)]
            namespaces = {end.node_namespace for end in ends} - {"/"}
            if topic not in SHARED and namespaces != {f"/{topic.split('/')[1]}"}:
                found[topic] = namespaces
        return found

    # An end whose node has not been heard of yet has no namespace.
    while found := shared():
        assert time.monotonic() < end_s, found
        time.sleep(0.01)
    assert {f"/{name}/clock" for name in NAMES} <= {topic for topic, _ in ear.get_topic_names_and_types()}
    assert not ear.get_subscriptions_info_by_topic("/diagnostics")
    ear.destroy_node()


@pytest.fixture
def context() -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(args=OWN_CLOCK, context=context)
    yield context
    context.try_shutdown()


def test_two_robots_in_one_domain_hear_nothing_of_each_other_and_become_one_aggregate(
    context: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {name: contract_of(tmp_path / f"runs/{name}/contract.yaml", name).parent for name in NAMES}
    policies = {
        name: weak_policy("peg", tmp_path / f"pi_{name}", contract=load_contract(run / "contract.yaml"), seed=i)
        for i, (name, run) in enumerate(runs.items())
    }
    collect(context, runs, 0, {})
    collect(context, runs, 1, policies)

    for name, run in runs.items():
        contract = load_contract(run / "contract.yaml")
        own = load_checkpoint(policies[name], contract)[0].weights_sha256
        for k in (0, 1):
            assert verify_round(round_folder(run, k), contract).robot_body == f"arm_{name}"
            for i, seed in enumerate(SEEDS):
                episode = episode_folder(round_folder(run, k), i)
                assert read_about(episode / "bag").contract.sha256 == contract.sha256
                rows = read_rows(episode / "bag", RowLayout(contract))  # refuses decisions under any other contract
                assert set(rows["seed"]) == {seed}
                assert set(rows["policy_sha256"]) == {own.encode() if k else b""}
                assert (np.diff(rows["tick"]) == 1).all()
                # One message of each stream, proposal and decision a tick: nobody else's.
                counts = read_episode(episode).messages
                topics = {*contract.topics, contract.action.topic, "expert/action", "supervisor/decision"}
                topics |= {"policy/action"} if k else set()
                assert {counts[topic] for topic in topics} == {len(rows)}

    # Alone a robot does the same, to the byte.
    alone = contract_of(tmp_path / "alone/contract.yaml", "left").parent
    collect(context, {"left": alone}, 0, {})
    collect(context, {"left": alone}, 1, policies)
    for k in (0, 1):
        for i in range(len(SEEDS)):
            bags = [episode_folder(round_folder(run, k), i) / "bag/bag.mcap" for run in (alone, runs["left"])]
            assert bags[0].read_bytes() == bags[1].read_bytes()

    out = tmp_path / "runs/both"
    rounds = merge_rounds(list(runs.values()), out)
    contract = load_contract(out / "contract.yaml")
    assert [[e.source.robot for e in r.episodes if e.source] for r in rounds] == [
        ["arm_left", "arm_left", "arm_right", "arm_right"]
    ] * 2
    episodes = training_episodes(round_folders(out), contract)
    assert len(episodes) == 8
    assert {Mode.POLICY, Mode.EXPERT} <= {Mode(m) for e in episodes for m in np.unique(e.rows["mode"])}
    main(["verify", str(out)])
    main(["inspect", str(out)])
    assert "arm" not in capsys.readouterr().err

    pytest.importorskip("torch")
    main(["train", str(out), "--members", "1", "--hidden", "16", "--steps", "20", "--batch", "16"])
    assert f"learned from {sum(r.labels for r in rounds)} labels" in capsys.readouterr().out
