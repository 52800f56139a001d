"""The doctor beside a running graph: a person at a pad, everything that belongs to a robot, and what is planted."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import contract_path
from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.doctor import Code, Finding, Snapshot, examine

rclpy = pytest.importorskip("rclpy")
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from dagger_ros.nodes.aggregator import AggregatorNode
from dagger_ros.nodes.base import message_class
from dagger_ros.nodes.doctor import look_at_graph
from dagger_ros.nodes.expert_label import ExpertLabelNode
from dagger_ros.nodes.supervisor import SupervisorNode
from graph import PATIENCE_S, running_graph
from rest import Person, rest_of_the_graph

pytestmark = pytest.mark.ros

SECONDS = 1.0
# A note, which says nothing of the graph.
ALWAYS = {Code.DRIVER_UNTESTED}


class Scene:
    """A robot with a person at its pad, at which the doctor looks in a thread of its own."""

    def __init__(self, person: Person, contract: Contract, nodes: list[Any]) -> None:
        self.person, self.contract = person, contract
        self.supervisor, self.expert, self.aggregator = nodes

    def until(
        self, done: Callable[[Snapshot, list[Finding]], bool], contract: Contract | None = None
    ) -> tuple[Snapshot, list[Finding]]:
        """Looks until it is so: discovery and a busy machine take their time."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            seen = self.look()
            findings = [f for f in examine(seen, contract or self.contract) if f.code not in ALWAYS]
            if done(seen, findings):
                return seen, findings
            assert time.monotonic() < end_s, findings

    def until_found(self, *codes: Code) -> dict[Code, str]:
        """Looks until these are the findings."""
        _, found = self.until(lambda _, findings: {f.code for f in findings} == set(codes))
        return {finding.code: str(finding) for finding in found}

    def look(self, **options: Any) -> Snapshot:
        """While the graph goes on, in the thread of the test."""
        result: list[Any] = []

        def look() -> None:
            try:
                result.append(look_at_graph(self.contract, namespace="/", seconds=SECONDS, **options))
            except DaggerError as error:
                result.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            self.person.until(lambda: bool(result))
        finally:
            thread.join()
        if isinstance(result[0], DaggerError):
            raise result[0]
        return result[0]


@pytest.fixture
def scene(ros_domain: int, patient: Path, tmp_path: Path) -> Iterator[Scene]:
    contract = load_contract(patient)
    with rest_of_the_graph(ros_domain, lambda context: Person(context, contract)) as person:
        person.node.destroy_publisher(person.episode)
        person.node.destroy_publisher(person._expert)
        given = {"contract": str(patient)}
        nodes = [
            SupervisorNode(given, person.node.context),
            ExpertLabelNode(given | {"expert": "joystick", "operator_id": "ada"}, person.node.context),
            AggregatorNode(given | {"out": str(tmp_path / "round")}, person.node.context),
        ]
        for node in nodes:
            person.executor.add_node(node)
        yield Scene(person, contract, nodes)
        for node in nodes:
            node.destroy_node()


def test_healthy_graph_gives_none(scene: Scene) -> None:
    scene.until_found()
    # The clock of a node that answers late is not known, and not held against it.
    clocks = dict.fromkeys(("/supervisor", "/rest", "/expert_label", "/aggregator"), False)
    seen, _ = scene.until(lambda seen, _: {n.name: n.use_sim_time for n in seen.managed} == clocks)
    assert seen.settings is not None
    assert seen.settings.needs_expert
    assert seen.writers_of("command") == ("/supervisor",)
    assert seen.writers_of("joy") == ("/rest",)
    assert {n.name for n in seen.managed if n.contract_sha256 == scene.contract.sha256} == {
        "/supervisor",
        "/expert_label",
        "/aggregator",
    }
    # The doctor is gone without a trace: nobody takes it for a writer, a reader or a stranger.
    assert not any("doctor" in node.name for node in seen.nodes)


def test_second_writer_reader_that_asks_for_more_and_stranger_are_found(scene: Scene) -> None:
    action, node = scene.contract.action, rclpy.create_node("intruder", context=scene.person.node.context)
    node.create_publisher(message_class(action.type), action.topic, 1)
    kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(PoseStamped, "tool_pose", lambda _: None, kept)
    stranger = rclpy.create_node("stranger", context=scene.person.node.context)
    stranger.create_publisher(String, "chatter", 1)
    words = scene.until_found(Code.SECOND_WRITER, Code.SUPERVISOR_OBJECTS, Code.QOS_MISMATCH, Code.STRANGERS)
    assert "found 2: /intruder, /supervisor" in words[Code.SECOND_WRITER]
    assert "somebody else publishes on the command topic" in words[Code.SUPERVISOR_OBJECTS]
    assert (
        "/intruder never hears /rest: volatile publisher and transient local subscription" in words[Code.QOS_MISMATCH]
    )
    assert "/stranger" in words[Code.STRANGERS]
    stranger.destroy_node()
    node.destroy_node()


def test_silent_stream_and_unplugged_pad_are_found_and_nothing_when_they_are_back(scene: Scene) -> None:
    scene.person.silent |= {"tool_pose", "joy"}
    words = scene.until_found(Code.TOPIC_SILENT, Code.SUPERVISOR_OBJECTS, Code.PAD_NOT_BELIEVED)
    assert "nothing in 1 s from /rest" in words[Code.TOPIC_SILENT]
    assert "a stream" in words[Code.SUPERVISOR_OBJECTS]
    scene.person.silent -= {"tool_pose", "joy"}
    scene.until_found()


def test_contract_that_differs_is_found_at_each_node(scene: Scene) -> None:
    content = scene.contract.model_dump(mode="json", by_alias=True)
    content["task"]["description"] += " Now."
    other = Contract.model_validate(content)
    expected = [(Code.CONTRACT_DIFFERS, node) for node in ("/aggregator", "/expert_label", "/rest", "/supervisor")]
    _, found = scene.until(lambda _, findings: [(f.code, f.where) for f in findings] == expected, other)
    assert str(scene.expert.contract_path) in str(found[1])


def test_node_that_is_not_active_is_found(scene: Scene) -> None:
    scene.expert.trigger_deactivate()
    words = scene.until_found(Code.NOT_ACTIVE, Code.TOPIC_SILENT)
    assert "/expert_label: expected a node that is active; found inactive" in words[Code.NOT_ACTIVE]


def test_robot_is_not_left_without_commands_to_test_its_driver(scene: Scene) -> None:
    with pytest.raises(DaggerError, match=r"--test-driver-timeout: expected a simulation .* On a robot do it by hand"):
        scene.look(test_driver=True)


@pytest.mark.parametrize("options", [{"namespace": "a b"}, {"remap": ("a=b",)}])
def test_wrong_name_is_refused(ros_domain: int, peg: Contract, options: dict[str, Any]) -> None:
    with pytest.raises(DaggerError, match="expected a namespace as in /arm and remappings as in joint_states:="):
        look_at_graph(peg, **{"namespace": "/", "seconds": SECONDS, **options})


@pytest.mark.mujoco
def test_command_looks_at_processes_and_tests_the_simulated_driver(ros_domain: int, tmp_path: Path) -> None:
    common = {"contract": contract_path("peg"), "use_sim_time": True}
    with running_graph(ros_domain, tmp_path) as graph:
        graph.start("mujoco_bridge", contract=contract_path("peg"), seed=0, repeat=True)
        graph.start("supervisor", **common, round=0, auto_arm=True)
        graph.start("expert_label", **common)
        graph.wait_for(lambda: graph.has_publishers("sim/tick", "supervisor/decision", "expert/action"))
        end_s = time.monotonic() + PATIENCE_S
        # A warning is what a busy machine makes: a message that came late.
        while (result := doctor(tmp_path, "--strict", "--known", "/listener", "--test-driver-timeout")).returncode:
            assert time.monotonic() < end_s, result.stdout + result.stderr
        assert "healthy: 3 nodes around a simulation, whose driver stopped by itself after 0." in result.stdout
        said = json.loads((tmp_path / "found.json").read_text())
        assert {f["severity"] for f in said["findings"]} <= {"note"}
        result = doctor(tmp_path, "--namespace", "/elsewhere")
        assert result.returncode == 1
        assert "error no_supervisor: supervisor/decision: expected a supervisor" in result.stdout
        assert "note other_graph: domain" in result.stdout


def doctor(folder: Path, *arguments: str) -> Any:
    """The command itself."""
    command = [sys.executable, "-m", "dagger_ros.cli", "doctor", "--contract", str(contract_path("peg"))]
    return subprocess.run(
        [*command, "--json", str(folder / "found.json"), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
