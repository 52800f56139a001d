"""The life cycle of the managed nodes: what they do in each state, what they refuse, and what they leave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import contract_path, weak_policy
from dagger_ros.contract import Act, DaggerError, Mode
from dagger_ros.dataset import load_round, read_episode

rclpy = pytest.importorskip("rclpy")
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn

from dagger_ros.nodes.aggregator import AggregatorNode
from dagger_ros.nodes.base import LEVEL_ERROR, LEVEL_WARN, ManagedNode
from dagger_ros.nodes.expert_label import ExpertLabelNode
from dagger_ros.nodes.policy import PolicyNode
from dagger_ros.nodes.supervisor import SupervisorNode
from dagger_ros.srv import StartEpisode
from rest import EAST, PATH, PEG, START, Person, Rest, rest_of_the_graph

pytestmark = [pytest.mark.ros, pytest.mark.mujoco]

DONE, REFUSED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
KINDS = {
    "supervisor": SupervisorNode,
    "policy": PolicyNode,
    "expert_label": ExpertLabelNode,
    "aggregator": AggregatorNode,
}
Make = Callable[..., Any]


@pytest.fixture
def rest(ros_domain: int) -> Iterator[Rest]:
    with rest_of_the_graph(ros_domain, Rest) as result:
        yield result


@pytest.fixture
def make(rest: Rest, tmp_path: Path) -> Iterator[Make]:
    """Makes nodes that nobody brings up, and ends them."""
    nodes: list[Any] = []
    needed = {"policy": {"policy": str(tmp_path / "pi_000")}, "aggregator": {"out": str(tmp_path / "round")}}

    def made(name: str, **parameters: Any) -> Any:
        given = {"contract": PATH, "autostart": False} | needed.get(name, {}) | parameters
        node = KINDS[name](given, rest.node.context)
        rest.executor.add_node(node)
        nodes.append(node)
        return node

    yield made
    for node in nodes:
        rest.executor.remove_node(node)
        node.destroy_node()


def entities(node: Any) -> set[Any]:
    return {*node.publishers, *node.subscriptions, *node.services, *node.clients, *node.timers}


def a_while(rest: Rest, node: ManagedNode) -> Any:
    """Until a node has said again how it is, and fifty messages went to it: what it would do, it has done by then."""
    before, spoken = len(rest.verdicts_of(node.NODE)), rest.spoken
    rest.until(lambda: len(rest.verdicts_of(node.NODE)) > before and rest.spoken >= spoken + 50)
    return rest.verdicts_of(node.NODE)[-1]


@pytest.mark.parametrize("name", KINDS)
def test_configured_it_is_ready_and_silent_and_cleaned_up_nothing_is_left(
    name: str, rest: Rest, make: Make, tmp_path: Path
) -> None:
    weak_policy("peg", tmp_path / "pi_000")
    node = make(name)
    before = entities(node)
    assert node.trigger_configure() is DONE
    assert entities(node) > before
    sent = _sent_by(node)
    verdict = a_while(rest, node)
    assert (verdict.level, verdict.message, node.active) == (LEVEL_WARN, "inactive", False)
    assert sent == []
    assert node.trigger_cleanup() is DONE
    assert entities(node) == before
    assert node.trigger_configure() is DONE
    assert node.trigger_activate() is DONE
    assert (node.state, node.active) == ("active", True)


def _sent_by(node: ManagedNode) -> list[Any]:
    """Fills with what a node publishes from now on, but for its diagnostics."""
    sent: list[Any] = []
    for publisher in node.publishers:
        if publisher.topic_name not in ("/diagnostics", "/rosout", "/parameter_events"):
            publisher.publish = sent.append
    return sent


@pytest.mark.parametrize("name", KINDS)
def test_refused_configuration_leaves_nothing_says_why_and_may_be_tried_again(
    name: str, rest: Rest, make: Make, tmp_path: Path
) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_text("contract: 1\n")
    if name == "policy":
        node, words = make(name), "expected a policy here"
    elif name == "aggregator":
        node, words = make(name), "a folder for the parameter 'out', got the file"
        (tmp_path / "round").write_text("a file")
    else:
        node, words = make(name, contract=str(contract)), "contract.yaml: "
    before = entities(node)
    assert node.trigger_configure() is REFUSED
    assert (node.state, node.active) == ("unconfigured", False)
    assert entities(node) == before
    verdict = a_while(rest, node)
    assert verdict.level == LEVEL_ERROR
    assert words in verdict.message
    weak_policy("peg", tmp_path / "pi_000")
    contract.write_bytes(contract_path("peg").read_bytes())
    (tmp_path / "round").unlink(missing_ok=True)
    assert node.trigger_configure() is DONE
    assert node.state == "inactive"


def test_activated_supervisor_is_locked_until_a_person_arms(rest: Rest, make: Make) -> None:
    supervisor = make("supervisor", auto_arm=False)
    assert supervisor.trigger_configure() is DONE
    a_while(rest, supervisor)
    assert (rest.decisions, rest.commands) == ([], [])
    answer = rest.ask("arm")
    assert (answer.success, answer.message) == (False, "no arm: the supervisor is inactive")
    assert supervisor.trigger_activate() is DONE
    a_while(rest, supervisor)
    assert {decision.mode for decision in rest.decisions} == {Mode.LOCKED}
    rest.drive()


def test_supervisor_that_is_deactivated_stops_the_robot_and_comes_back_locked(rest: Rest, make: Make) -> None:
    supervisor = make("supervisor")
    assert supervisor.trigger_configure() is DONE
    for _ in range(2):
        assert supervisor.trigger_activate() is DONE
        rest.drive()
        assert supervisor.trigger_deactivate() is DONE
        rest.until(lambda: bool((rest.commands[-1] == 0).all()))
        limit = PEG.action.dimensions_[0].deceleration_limit * PEG.timing.period_ns * 1e-9
        assert np.abs(np.diff(rest.commands, axis=0)).max() <= 1.5 * limit + 1e-9
        a_while(rest, supervisor)  # what was still on its way has come
        rest.commands.clear()
        rest.decisions.clear()
        a_while(rest, supervisor)
        assert (rest.decisions, rest.commands) == ([], [])
    assert supervisor.trigger_activate() is DONE
    a_while(rest, supervisor)
    assert {decision.mode for decision in rest.decisions} == {Mode.LOCKED}


@pytest.mark.parametrize("steps", [[], ["configure"], ["configure", "activate"]])
def test_node_may_be_shut_down_in_every_state(steps: list[str], make: Make) -> None:
    supervisor = make("supervisor")
    for step in (*steps, "shutdown"):
        assert getattr(supervisor, f"trigger_{step}")() is DONE
    assert (supervisor.state, supervisor.active) == ("finalized", False)


def test_fault_of_ours_in_a_transition_leaves_it_unconfigured(
    rest: Rest, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Any) -> None:
        raise RuntimeError("a bug")

    supervisor = make("supervisor")
    before = entities(supervisor)
    with monkeypatch.context() as patched:
        patched.setattr(SupervisorNode, "activate", fail)
        assert supervisor.trigger_configure() is DONE
        assert supervisor.trigger_activate() is not DONE
    assert (supervisor.state, supervisor.active) == ("unconfigured", False)
    assert entities(supervisor) == before
    verdict = a_while(rest, supervisor)
    assert (verdict.level, verdict.message) == (LEVEL_ERROR, "unconfigured: a bug")
    assert rest.decisions == []
    assert supervisor.trigger_configure() is DONE
    assert supervisor.trigger_activate() is DONE
    rest.drive()


def test_emergency_stop_of_the_pad_counts_while_nobody_is_active(ros_domain: int) -> None:
    with rest_of_the_graph(ros_domain, Person) as person:
        given = {"contract": PATH, "autostart": False, "expert": "joystick", "operator_id": "ada"}
        node = ExpertLabelNode(given, person.node.context)
        person.executor.add_node(node)
        assert node.trigger_configure() is DONE
        a_while(person, node)
        person.press(START)
        a_while(person, node)
        assert person.kinds() == []
        person.press(EAST)
        person.until(lambda: bool(person.acts))
        assert set(person.kinds()) == {Act.ESTOP}
        person.executor.remove_node(node)
        node.destroy_node()


def test_aggregator_that_is_deactivated_finishes_what_it_records(rest: Rest, make: Make, tmp_path: Path) -> None:
    supervisor, aggregator = make("supervisor"), make("aggregator")
    assert aggregator.trigger_configure() is DONE
    assert supervisor.trigger_configure() is DONE
    assert supervisor.trigger_activate() is DONE
    rest.drive()
    client = rest.node.create_client(StartEpisode, "aggregator/start_episode")

    def start() -> Any:
        future = client.call_async(StartEpisode.Request(seed=-1))
        rest.until(future.done)
        return future.result()

    rest.until(client.service_is_ready)
    rest.until(lambda: "activate it first" in start().message)
    assert not (tmp_path / "round").exists()
    assert aggregator.trigger_activate() is DONE
    rest.until(lambda: start().success)
    heard = len(rest.decisions)
    rest.until(lambda: len(rest.decisions) > heard + 5)
    assert aggregator.trigger_deactivate() is DONE
    info = read_episode(tmp_path / "round/episodes/000000")
    assert (info.success, info.failure) == (False, "")
    assert load_round(tmp_path / "round", PEG).episodes[0].ticks >= 5
    assert "activate it first" in start().message


# As a process, by the services that `ros2 lifecycle` calls


class Manager:
    """Who changes the state of a node of another process."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._change = rest.node.create_client(ChangeState, "supervisor/change_state")
        self._get = rest.node.create_client(GetState, "supervisor/get_state")

    def change(self, name: str) -> bool:
        transition = Transition(id=getattr(Transition, f"TRANSITION_{name.upper()}"))
        return bool(self._ask(self._change, ChangeState.Request(transition=transition)).success)

    def state(self) -> str:
        return str(self._ask(self._get, GetState.Request()).current_state.label)

    def _ask(self, client: Any, request: Any) -> Any:
        self._rest.until(client.service_is_ready, quiet=True)
        future = client.call_async(request)
        self._rest.until(future.done, quiet=True)
        return future.result()


def supervisor_process(path: Path | str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dagger_ros.nodes.supervisor", "--ros-args", "-p", f"contract:={path}"]
    return subprocess.Popen(
        [*command, *(word for a in arguments for word in ("-p", a))],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_process_is_managed_by_services_and_ends_when_it_is_shut_down(rest: Rest, tmp_path: Path) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_text("contract: 1\n")
    process = supervisor_process(contract, "autostart:=false")
    try:
        manager = Manager(rest)
        assert manager.state() == "unconfigured"
        assert not manager.change("configure")
        assert (manager.state(), process.poll()) == ("unconfigured", None)
        contract.write_bytes(contract_path("peg").read_bytes())
        for step, state in (
            ("configure", "inactive"),
            ("activate", "active"),
            ("deactivate", "inactive"),
            ("cleanup", "unconfigured"),
        ):
            assert manager.change(step)
            assert manager.state() == state
        assert manager.change("unconfigured_shutdown")
        rest.until(lambda: process.poll() is not None, quiet=True)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_process_that_brings_itself_up_ends_with_one_sentence_where_it_cannot(tmp_path: Path, ros_domain: int) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_bytes(contract_path("peg").read_bytes() + b"robots: 2\n")
    process = supervisor_process(contract)
    _, said = process.communicate()
    assert process.returncode == 2
    assert "robots: expected no such key here" in said
    assert "Traceback" not in said


def test_made_with_autostart_a_node_refuses_to_be_made(ros_domain: int) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    try:
        with pytest.raises(DaggerError, match="expected the parameter 'contract'"):
            SupervisorNode({}, context)
    finally:
        context.try_shutdown()
