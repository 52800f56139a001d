"""Another policy is taken while the robot is held, and at no other time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import weak_policy
from dagger_ros.contract import Mode, load_contract

rclpy = pytest.importorskip("rclpy")
from dagger_ros.nodes.policy import PolicyNode
from dagger_ros.nodes.supervisor import SupervisorNode
from dagger_ros.srv import LoadPolicy
from rest import Rest, rest_of_the_graph

pytestmark = pytest.mark.ros


class Team(Rest):
    """The rest of the graph without the policy, and somebody who loads another one."""

    def load(self, folder: Path) -> Any:
        client = self.node.create_client(LoadPolicy, "policy/load_policy")
        self.until(client.service_is_ready)
        future = client.call_async(LoadPolicy.Request(folder=str(folder)))
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def resume(self) -> None:
        self.until(lambda: self.ask("resume").success)
        self.until_mode(Mode.POLICY)


@pytest.fixture
def team(ros_domain: int, patient: Path, tmp_path: Path) -> Iterator[Team]:
    contract = load_contract(patient)
    first = weak_policy("peg", tmp_path / "pi_000", contract=contract)
    weak_policy("peg", tmp_path / "pi_001", contract=contract, seed=1)
    with rest_of_the_graph(ros_domain, lambda context: Team(context, contract)) as team:
        team.silent = {"policy"}
        nodes = [
            SupervisorNode({"contract": str(patient)}, team.node.context),
            PolicyNode({"contract": str(patient), "policy": str(first)}, team.node.context),
        ]
        for node in nodes:
            team.executor.add_node(node)
        yield team
        for node in nodes:
            node.destroy_node()


def test_policy_is_changed_while_the_robot_is_held_and_not_while_it_drives(team: Team, tmp_path: Path) -> None:
    team.until(lambda: bool(team.decisions) and team.decisions[-1].policy == "pi_000")
    assert team.decisions[-1].inference_s > 0
    team.until(lambda: team.ask("arm").success)
    team.resume()
    answer = team.load(tmp_path / "pi_001")
    assert not answer.success
    assert answer.message == "not loaded: POLICY drives; hold the robot first (supervisor/hold)"
    assert team.decisions[-1].policy == "pi_000"
    assert team.ask("hold").success
    team.until_mode(Mode.HOLD)
    answer = team.load(tmp_path / "pi_001")
    assert answer.success, answer.message
    assert answer.message.startswith("pi_001 (")
    team.until(lambda: team.decisions[-1].policy == "pi_001")
    assert team.decisions[-1].mode == Mode.HOLD
    team.resume()
    assert team.decisions[-1].policy == "pi_001"


def test_policy_that_cannot_be_loaded_changes_nothing(team: Team, tmp_path: Path) -> None:
    team.until(lambda: bool(team.decisions) and team.decisions[-1].policy == "pi_000")
    other = weak_policy("peg", tmp_path / "other")  # under the contract that ships
    for folder, words in ((tmp_path / "nowhere", "expected a policy here"), (other, "trained under another contract")):
        answer = team.load(folder)
        assert not answer.success
        assert "not loaded, pi_000 stays: " in answer.message
        assert words in answer.message
    before = len(team.decisions)
    team.until(lambda: len(team.decisions) > before + 3)
    assert team.decisions[-1].policy == "pi_000"


def test_policy_is_not_changed_where_nobody_can_say_that_the_robot_is_held(
    ros_domain: int, patient: Path, tmp_path: Path
) -> None:
    contract = load_contract(patient)
    folder = weak_policy("peg", tmp_path / "pi_000", contract=contract)
    with rest_of_the_graph(ros_domain, lambda context: Team(context, contract)) as team:
        node = PolicyNode({"contract": str(patient), "policy": str(folder)}, team.node.context)
        team.executor.add_node(node)
        answer = team.load(folder)
        node.destroy_node()
    assert not answer.success
    assert "the supervisor is not heard" in answer.message
