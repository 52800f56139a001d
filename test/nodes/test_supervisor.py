"""The supervisor node beside a stand-in for the rest of the graph."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import by_joint_position
from dagger_ros.contract import DaggerError, Mode, load_contract

rclpy = pytest.importorskip("rclpy")
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import Bool

from dagger_ros.msg import EpisodeEvent, GateSettings
from dagger_ros.nodes.base import message_class
from dagger_ros.nodes.qos import EVENT_QOS
from dagger_ros.nodes.supervisor import SupervisorNode
from dagger_ros.supervisor import Reason
from graph import NOT_LET_GO
from rest import PATH, PEG, Rest, rest_of_the_graph

pytestmark = pytest.mark.ros


@pytest.fixture
def rest(ros_domain: int) -> Iterator[Rest]:
    with rest_of_the_graph(ros_domain, Rest) as result:
        yield result


@pytest.fixture
def supervisor(rest: Rest) -> Iterator[SupervisorNode]:
    node = SupervisorNode({"contract": PATH}, rest.node.context)
    rest.executor.add_node(node)
    yield node
    node.destroy_node()


def test_services_answer_what_they_did_and_why_not(rest: Rest, supervisor: SupervisorNode) -> None:
    rest.silent = {"tool_pose"}
    rest.until(lambda: bool(rest.decisions) and rest.decisions[-1].receive_ns[0] != -1)
    answer = rest.ask("arm")
    assert not answer.success
    assert "a stream of the contract was never received" in answer.message
    assert "tool_position: never received (limit 0.25 s)" in answer.message
    rest.silent = set()
    rest.drive()
    assert rest.ask("resume").message == "resume changes nothing in POLICY"
    assert rest.ask("hold").success
    rest.until_mode(Mode.HOLD)
    assert rest.ask("estop").success
    rest.until_mode(Mode.ESTOP)
    rest.until(lambda: (rest.commands[-1] == 0).all())
    rest.estop.publish(Bool(data=True))
    rest.until(lambda: bool(Reason(rest.decisions[-1].reasons) & Reason.ESTOP_PRESSED))
    answer = rest.ask("reset_estop")
    assert not answer.success
    assert answer.message == "not reset, the cause persists: the topic estop says stop"
    rest.estop.publish(Bool(data=False))
    rest.until(lambda: not Reason(rest.decisions[-1].reasons) & Reason.ESTOP_PRESSED)
    assert rest.ask("reset_estop").success
    rest.until_mode(Mode.HOLD)


def test_diagnostics_say_the_verdict_in_words(rest: Rest, supervisor: SupervisorNode) -> None:
    rest.until(lambda: any(v.message.startswith("LOCKED: ") for v in rest.verdicts))
    assert "waits for a person to arm" in rest.verdicts[-1].message
    rest.drive()
    rest.silent = {"policy"}
    rest.until_mode(Mode.HOLD)
    rest.until(lambda: "the proposal is older than `policy_max_age_s`" in rest.verdicts[-1].message)
    values = {v.key: v.value for v in rest.verdicts[-1].values}
    assert "POLICY_STALE" in values["reasons"]
    assert values["mode"] == "HOLD"
    assert values["age of joint_position"].endswith("(limit 0.25 s)")
    assert set(values) >= {"missed_ticks", "limited_ticks"}


def test_tick_without_a_command_took_no_time_for_it(ros_domain: int, tmp_path: Path) -> None:
    """Where nobody has measured a position there is none to hold."""
    content = yaml.safe_load(Path(PATH).read_text())
    content["simulation"]["actuation"] = {"kind": "actuators", "names": [f"a{i}" for i in range(1, 7)]}
    by_joint_position(content)
    path = tmp_path / "peg.yaml"
    path.write_text(yaml.safe_dump(content))
    contract = load_contract(path)
    with rest_of_the_graph(ros_domain, lambda context: Rest(context, contract)) as rest:
        node = SupervisorNode({"contract": str(path)}, rest.node.context)
        rest.executor.add_node(node)
        rest.until(lambda: bool(rest.decisions), quiet=True)
        node.destroy_node()
    decision = rest.decisions[0]
    assert np.isnan(decision.executed_action).all()
    assert math.isnan(decision.command_s)
    assert decision.gate_s > 0


def test_every_decision_says_what_took_how_long(rest: Rest, supervisor: SupervisorNode) -> None:
    rest.drive()
    for decision in rest.decisions:
        assert decision.gate_s > 0
        assert decision.command_s > 0
        assert math.isfinite(decision.late_s)
    assert rest.decisions[-1].inference_s == rest.policy_took_s


def test_second_writer_on_the_command_topic_stops_and_latches(rest: Rest, supervisor: SupervisorNode) -> None:
    rest.drive()
    other = rest.node.create_publisher(message_class(PEG.action.type), PEG.action.topic, 1)
    decision = rest.until_mode(Mode.ESTOP)
    assert Reason(decision.reasons) & Reason.SECOND_WRITER
    assert not rest.ask("reset_estop").success
    rest.node.destroy_publisher(other)
    rest.until(lambda: not Reason(rest.decisions[-1].reasons) & Reason.SECOND_WRITER)
    assert rest.decisions[-1].mode == Mode.ESTOP
    assert rest.ask("reset_estop").success
    rest.until_mode(Mode.HOLD)


def test_episode_whose_recorder_is_silent_is_held(rest: Rest, supervisor: SupervisorNode) -> None:
    rest.drive()
    rest.episode.publish(EpisodeEvent(event=EpisodeEvent.STARTED, episode=0, seed=4))
    decision = rest.until_mode(Mode.HOLD)
    assert Reason(decision.reasons) & Reason.RECORDER_STALE
    assert (decision.episode, decision.seed) == (0, 4)
    rest.episode.publish(EpisodeEvent(event=EpisodeEvent.FINISHED, episode=0, seed=4))
    rest.until(lambda: not Reason(rest.decisions[-1].reasons) & Reason.RECORDER_STALE)
    assert rest.decisions[-1].mode == Mode.HOLD


def test_what_it_decides_by_is_said_to_who_joins_late_and_with_each_sign_of_an_episode(
    rest: Rest, supervisor: SupervisorNode
) -> None:
    heard: list[GateSettings] = []
    rest.until(lambda: bool(rest.decisions))
    rest.node.create_subscription(GateSettings, "supervisor/settings", heard.append, EVENT_QOS)
    rest.until(lambda: len(heard) == 1)
    assert (heard[0].rule, heard[0].round, heard[0].contract_sha256) == ("hg", 1, PEG.sha256)
    assert not heard[0].auto_arm
    for count in (2, 3):  # the aggregator repeats it
        rest.episode.publish(EpisodeEvent(event=EpisodeEvent.STARTED, episode=0, seed=4))
        rest.until(lambda count=count: len(heard) == count)
    assert heard[0] == heard[1] == heard[2]


def test_parameter_cannot_be_changed_while_the_node_runs(rest: Rest, supervisor: SupervisorNode) -> None:
    client = rest.node.create_client(SetParameters, "supervisor/set_parameters")
    rest.until(client.service_is_ready)
    wishes = {"auto_arm": True, "doubt_limit": 9.0, "needs_expert": False, "policy_sha256": "", "contract": "b.yaml"}
    parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in wishes.items()]
    future = client.call_async(SetParameters.Request(parameters=parameters))
    rest.until(future.done)
    for name, result in zip(wishes, future.result().results, strict=True):
        assert not result.successful, name
        assert "read-only" in result.reason


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"doubt_limit": 0.0}, r"doubt_limit: expected a number > 0 \(inf: no limit\), got 0"),
        ({"doubt_limit": float("nan")}, "doubt_limit: expected 0 or more half bound ranges"),
        ({"policy_sha256": "abc"}, "policy_sha256: expected 64 hex digits or nothing, got 'abc'"),
        ({"rule": "none"}, "rule: expected one of"),
    ],
)
def test_wrong_parameter_is_refused(rest: Rest, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(DaggerError, match=message):
        SupervisorNode({"contract": PATH} | parameters, rest.node.context)


_FRAGILE = """
from dagger_ros.nodes.base import run_node
from dagger_ros.nodes.supervisor import SupervisorNode

class Fragile(SupervisorNode):
    def _on_estop(self, message):
        raise RuntimeError("a bug")

run_node(Fragile)
"""


@pytest.fixture
def script() -> str:
    return _FRAGILE


@pytest.fixture
def process(rest: Rest, script: str) -> Iterator[Any]:
    command = [sys.executable, "-c", script, "--ros-args", "-p", f"contract:={PATH}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as result:
        try:
            rest.drive()
            yield result
        finally:
            result.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_goes_out_last_when_the_node_is_told_to_end(rest: Rest, process: Any, number: signal.Signals) -> None:
    process.send_signal(number)
    rest.until(lambda: process.poll() is not None)
    rest.until(lambda: (rest.commands[-1] == 0).all(), quiet=True)
    assert process.returncode == 0
    assert np.abs(np.diff(rest.commands, axis=0)).max() <= 4.0 * 1.5 * 0.05 + 1e-9


def test_stop_goes_out_last_when_a_callback_fails(rest: Rest, process: Any) -> None:
    rest.estop.publish(Bool(data=False))
    rest.until(lambda: process.poll() is not None)
    rest.until(lambda: (rest.commands[-1] == 0).all(), quiet=True)
    assert process.returncode == 1
    assert b"RuntimeError: a bug" in process.stderr.read()


_NEVER_LETS_GO = """
import ctypes
from functools import partial
from types import SimpleNamespace
from dagger_ros.nodes import base
from dagger_ros.nodes.supervisor import SupervisorNode

class Stuck(SupervisorNode):
    def destroy_node(self):
        for_ever = partial(ctypes.PyDLL(None).sleep, 1000)  # in C, and keeps the interpreter, as the middleware does
        self._Node__node = SimpleNamespace(destroy_when_not_in_use=for_ever)
        super().destroy_node()

base._LONGEST_LEAVE_S = 0.1
base.run_node(Stuck)
"""


@pytest.mark.parametrize("script", [_NEVER_LETS_GO])
def test_node_that_the_middleware_does_not_let_go_ends_and_says_where(rest: Rest, process: Any) -> None:
    process.send_signal(signal.SIGINT)
    rest.until(lambda: process.poll() is not None)
    assert process.returncode == 1
    assert NOT_LET_GO.search(process.stderr.read().decode())
    rest.until(lambda: (rest.commands[-1] == 0).all(), quiet=True)
