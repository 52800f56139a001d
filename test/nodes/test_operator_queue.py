"""One operator for two robots: who has the pad, what the other one hears, and what never reaches the wrong one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import weak_policy
from dagger_ros.contract import DaggerError, Mode, load_contract, stamp_from_ns
from dagger_ros.policy import load_checkpoint

rclpy = pytest.importorskip("rclpy")
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Joy, JoyFeedback
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dagger_ros.msg import GateDecision, GateSettings, HelpRequest
from dagger_ros.nodes.expert_label import ExpertLabelNode
from dagger_ros.nodes.operator_queue import OperatorQueueNode
from dagger_ros.nodes.qos import ACT_QOS, EVENT_QOS, GraphQos
from dagger_ros.nodes.supervisor import SupervisorNode
from rest import DEADMAN, EAST, LEFT_STICK_Y, PATIENCE_S, SOUTH, Rest

pytestmark = pytest.mark.ros

NAMES = ("left", "right")
GUIDE = 8
QOS = GraphQos(lockstep=False)
REST = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]


@pytest.fixture
def contracts(patient: Path, tmp_path: Path) -> list[Path]:
    """One for each robot, with a body of its own; its policy may wait long for help."""
    paths = []
    for name in NAMES:
        content = yaml.safe_load(patient.read_text())
        content["robot"]["body"] = name
        content["timing"]["help_answer_s"] = 120.0
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(content, sort_keys=False))
    return paths


class Desk:
    """The pad, a queue node, and ears on both robots' sides."""

    def __init__(self, context: Any, contracts: list[Path], names: tuple[str, ...] = NAMES) -> None:
        self.node = rclpy.create_node("desk", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.queue = OperatorQueueNode({"robots": list(names), "contracts": [str(path) for path in contracts]}, context)
        for node in (self.node, self.queue):
            self.executor.add_node(node)
        self.joy = Joy(axes=list(REST), buttons=[0] * 11)
        self.pad = self.node.create_publisher(Joy, "joy", ACT_QOS)
        self.assigned: list[str] = []
        self.node.create_subscription(
            String, "operator_queue/assigned", lambda message: self.assigned.append(message.data), EVENT_QOS
        )
        self.heard: dict[str, list[Any]] = {name: [] for name in names}
        for name in names:
            self.node.create_subscription(Joy, f"{name}/joy", self.heard[name].append, ACT_QOS)
        self.speakers: list[Callable[[], None]] = [self.say_joy]

    def say_joy(self) -> None:
        stamp_from_ns(self.joy.header.stamp, self.node.get_clock().now().nanoseconds)
        self.pad.publish(self.joy)

    def until(self, done: Callable[[], bool]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not done():
            for speak in self.speakers:
                speak()
            spoken_s = time.monotonic()
            while time.monotonic() - spoken_s < 0.01:
                self.executor.spin_once(timeout_sec=0.01)
            assert time.monotonic() < end_s, (self.assigned, self.queue.verdict())

    def go_on(self, messages: int = 10) -> None:
        """Until the queue has passed on so many more messages of the pad to who has it."""
        heard = self.heard[self.assigned[-1]]
        enough = len(heard) + messages
        self.until(lambda: len(heard) >= enough)

    def until_assigned(self, name: str) -> None:
        self.until(lambda: bool(self.assigned) and self.assigned[-1] == name)

    def ask(self, name: str) -> Any:
        client = self.node.create_client(Trigger, f"operator_queue/{name}")
        self.until(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def close(self) -> None:
        self.executor.shutdown()
        for node in (self.node, self.queue):
            node.destroy_node()


class Said:
    """What the supervisor of one robot says."""

    def __init__(self, desk: Desk, name: str, rule: str) -> None:
        self.decision = GateDecision(mode=int(Mode.POLICY))
        self.help = desk.node.create_publisher(HelpRequest, f"{name}/supervisor/help", EVENT_QOS)
        settings = desk.node.create_publisher(GateSettings, f"{name}/supervisor/settings", EVENT_QOS)
        settings.publish(GateSettings(rule=rule, round=1))
        decisions = desk.node.create_publisher(GateDecision, f"{name}/supervisor/decision", QOS.record)
        self.silent = False
        desk.speakers.append(lambda: None if self.silent else decisions.publish(self.decision))

    def ask(self, why: str) -> None:
        self.decision.help = True
        self.help.publish(HelpRequest(asked=True, reason=why))

    def is_content(self) -> None:
        self.decision.help, self.decision.mode = False, int(Mode.POLICY)


@pytest.fixture
def context(ros_domain: int) -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    yield context
    context.try_shutdown()


@pytest.fixture
def desk(context: Any, contracts: list[Path]) -> Iterator[Desk]:
    desk = Desk(context, contracts)
    yield desk
    desk.close()


def is_at_rest(message: Any) -> bool:
    return list(message.axes) == REST and not any(message.buttons)


def test_operator_goes_to_who_asks_first_and_on_when_that_robot_drives_again(desk: Desk) -> None:
    left, right = (Said(desk, name, "safe") for name in NAMES)
    desk.until(lambda: all(desk.heard.values()))  # nobody has the operator, and both hear a pad at rest
    assert desk.assigned == [""]
    right.ask("doubt 2 above 1")
    desk.until_assigned("right")
    left.ask("risk 1 above 0.5")
    desk.joy.buttons[DEADMAN], desk.joy.axes[LEFT_STICK_Y] = 1, 1.0
    right.decision.mode, right.decision.help = int(Mode.EXPERT), False
    desk.until(lambda: desk.heard["right"][-1].buttons[DEADMAN] == 1)
    assert desk.heard["right"][-1].axes[LEFT_STICK_Y] == 1.0
    right.is_content()  # its rule took control back, and the deadman is held on
    desk.until(lambda: desk.queue.verdict()[2]["right"] == "POLICY")
    desk.go_on()
    assert desk.assigned[-1] == "right"
    right.decision.mode = int(Mode.HOLD)  # let go of, it is held, and waits for this operator
    desk.until(lambda: desk.queue.verdict()[2]["right"] == "HOLD")
    desk.joy.buttons[DEADMAN], desk.joy.axes[LEFT_STICK_Y] = 0, 0.0
    desk.go_on()
    assert desk.assigned[-1] == "right"
    _, words, values = desk.queue.verdict()
    assert words == "right has the operator; waits: left"
    assert values["left"] == "POLICY, asks for help: risk 1 above 0.5"
    desk.joy.buttons[SOUTH] = 1  # resume
    desk.until(lambda: desk.heard["right"][-1].buttons[SOUTH] == 1)
    right.is_content()
    desk.until(lambda: desk.queue.verdict()[2]["right"] == "POLICY")
    desk.go_on()
    assert desk.assigned[-1] == "right"  # the button would resume the other one
    desk.joy.buttons[SOUTH] = 0
    desk.until_assigned("left")
    assert desk.assigned == ["", "right", "left"]
    assert all(map(is_at_rest, desk.heard["left"]))
    left.silent = True  # its supervisor is gone: whoever else asks need not wait
    right.ask("doubt 3 above 1")
    desk.until_assigned("right")
    assert desk.queue.verdict()[2]["left"] == "not heard"


def test_robot_that_a_person_has_to_watch_hears_nothing_while_the_person_is_elsewhere(desk: Desk) -> None:
    _, right = Said(desk, "left", "hg"), Said(desk, "right", "safe")
    right.ask("doubt 2 above 1")
    desk.until_assigned("right")
    desk.go_on()
    assert desk.heard["left"] == []
    assert desk.ask("pick/left").success
    desk.until_assigned("left")
    desk.go_on()
    assert desk.heard["left"]
    assert desk.queue.verdict()[2]["picked"]


def test_emergency_stop_reaches_every_robot_whatever_else_is_pressed(desk: Desk) -> None:
    Said(desk, "left", "hg")
    right = Said(desk, "right", "safe")
    right.ask("doubt 2 above 1")
    desk.until_assigned("right")
    desk.joy.buttons[DEADMAN], desk.joy.axes[LEFT_STICK_Y] = 1, 1.0
    desk.joy.buttons[EAST] = 1
    desk.until(lambda: bool(desk.heard["left"]) and desk.heard["right"][-1].buttons[EAST] == 1)
    assert {tuple(m.buttons) for m in desk.heard["left"]} == {tuple(int(i == EAST) for i in range(11))}
    assert {tuple(m.axes) for m in desk.heard["left"]} == {tuple(REST)}
    desk.joy.buttons[EAST] = 0
    desk.go_on()
    count = len(desk.heard["left"])
    desk.go_on()
    assert len(desk.heard["left"]) == count


def test_button_picks_the_next_robot_and_then_whoever_asks(desk: Desk) -> None:
    _, right = (Said(desk, name, "safe") for name in NAMES)

    def press_next() -> None:
        desk.joy.buttons[GUIDE] = 1
        desk.until(lambda: desk.queue._next_is_pressed)
        desk.joy.buttons[GUIDE] = 0
        desk.until(lambda: not desk.queue._next_is_pressed)

    desk.until(lambda: desk.queue.verdict()[0] == b"\x00" and bool(desk.heard["left"]))
    press_next()
    desk.until_assigned("left")
    right.ask("doubt 2 above 1")
    desk.until(lambda: desk.queue.verdict()[2]["waits"] == "right")
    desk.go_on()
    assert desk.assigned[-1] == "left"  # picked by hand: nobody is taken away from there
    desk.joy.buttons[DEADMAN] = 1
    desk.until(lambda: desk.heard["left"][-1].buttons[DEADMAN] == 1)
    press_next()
    assert desk.assigned[-1] == "left"  # not while the deadman is held
    desk.joy.buttons[DEADMAN] = 0
    desk.go_on()
    press_next()
    desk.until_assigned("right")
    press_next()
    assert desk.queue.verdict()[2]["picked"] is False
    assert desk.ask("pick/left").message == "left gets the operator when the pad is at rest"
    desk.until_assigned("left")
    assert desk.ask("queue").success
    desk.until_assigned("right")


def test_pad_that_is_silent_or_is_not_the_only_one_is_passed_on_to_nobody(desk: Desk) -> None:
    Said(desk, "left", "safe")
    right = Said(desk, "right", "safe")
    right.ask("doubt 2 above 1")
    desk.until_assigned("right")
    other = desk.node.create_publisher(Joy, "joy", ACT_QOS)
    desk.until(lambda: "2 nodes published joy" in desk.queue.verdict()[1])
    counts = [len(heard) for heard in desk.heard.values()]
    spoken: list[int] = []
    desk.speakers.append(lambda: spoken.append(0))
    desk.until(lambda: len(spoken) > 10)
    assert [len(heard) for heard in desk.heard.values()] == counts
    desk.joy.buttons[EAST] = 1  # what stops counts all the same
    desk.until(lambda: all(heard[-1].buttons[EAST] == 1 for heard in desk.heard.values()))
    desk.joy.buttons[EAST] = 0
    desk.node.destroy_publisher(other)
    desk.go_on()
    desk.speakers.remove(desk.say_joy)
    desk.until(lambda: "no message of the pad for" in desk.queue.verdict()[1])


def test_pad_trembles_whoever_asks(desk: Desk) -> None:
    trembles: list[float] = []
    desk.node.create_subscription(JoyFeedback, "joy/set_feedback", lambda m: trembles.append(m.intensity), ACT_QOS)
    feedback = desk.node.create_publisher(JoyFeedback, "right/joy/set_feedback", ACT_QOS)
    desk.speakers.append(lambda: feedback.publish(JoyFeedback(type=JoyFeedback.TYPE_RUMBLE, intensity=1.0)))
    desk.until(lambda: bool(trembles))
    assert trembles[0] == 1.0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "robots: expected the namespace of each robot, each once; got none"),
        ({"robots": ["left", "left/"]}, "each once; got left, left"),
        ({"robots": ["left", "right"], "contracts": ["a.yaml"]}, "contracts: expected one for each of left, right"),
        ({"robots": ["left"], "contracts": ["a.yaml"], "lockstep": True}, "a person lives in real time"),
        ({"robots": ["left"], "contracts": ["a.yaml"]}, "a.yaml: expected a task contract"),
        ({"robots": ["left"], "contracts": ["left"], "pad": "stick"}, "pad: expected a YAML file, or one of"),
        ({"robots": ["left"], "contracts": ["left"], "next_button": "east"}, r"that no contract uses \(guide\), got"),
        ({"robots": ["left", "right"], "contracts": ["left", "other"]}, "estop: expected east as in .*; found none"),
    ],
)
def test_wrong_parameter_is_refused(
    parameters: dict[str, Any], message: str, context: Any, contracts: list[Path]
) -> None:
    content = yaml.safe_load(contracts[1].read_text())
    content["expert"]["joystick"]["estop"] = None
    other = contracts[1].with_name("other.yaml")
    other.write_text(yaml.safe_dump(content))
    paths = {"left": str(contracts[0]), "other": str(other)}
    given = dict(parameters)
    if "contracts" in given:
        given["contracts"] = [paths.get(path, path) for path in given["contracts"]]
    with pytest.raises(DaggerError, match=message):
        OperatorQueueNode(given, context)


def test_one_operator_helps_two_running_robots_one_after_the_other(
    context: Any, contracts: list[Path], tmp_path: Path
) -> None:
    """With their supervisors and label nodes: the deadman drives the robot that asked, and the other drives itself."""
    desk = Desk(context, contracts)
    rests, nodes = {}, []
    for name, path in zip(NAMES, contracts, strict=True):
        contract = load_contract(path)
        # Of left everything that its policy says of itself is above this, of right nothing.
        ask = {"doubt": -1.0 if name == "left" else 100.0}
        limits = {"rule": "safe", "ask": ask, "back": {"discrepancy": -1.0}, "back_ticks": 1}
        policy = weak_policy("peg", tmp_path / f"pi_{name}", contract=contract, limits=limits)
        given = {"contract": str(path)}
        nodes += [
            SupervisorNode(given | {"rule": "safe", "policy": str(policy)}, context, name),
            ExpertLabelNode(given | {"expert": "joystick", "operator_id": "ada"}, context, name),
        ]
        rests[name] = rest = Rest(context, contract, name)
        rest.policy_sha256 = load_checkpoint(policy, contract)[0].weights_sha256
        rest.silent |= {"expert"}
        desk.executor.add_node(rest.node)
        desk.speakers.append(rest.speak)
    for node in nodes:
        desk.executor.add_node(node)
    left, right = rests["left"], rests["right"]

    def request(name: str, what: str) -> bool:
        client = desk.node.create_client(Trigger, f"{name}/supervisor/{what}")
        desk.until(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        desk.until(future.done)
        desk.node.destroy_client(client)
        return bool(future.result().success)

    def mode(rest: Rest) -> int:
        return int(rest.decisions[-1].mode) if rest.decisions else -1

    try:
        for name, rest in rests.items():
            desk.until(lambda name=name: request(name, "arm"))  # type: ignore[misc]
            desk.until(lambda rest=rest: mode(rest) == Mode.HOLD)  # type: ignore[misc]
            desk.until(lambda name=name: request(name, "resume"))  # type: ignore[misc]
            # On a busy machine it may be held again, for a proposal that came too late.
            desk.until(lambda rest=rest: any(d.mode == Mode.POLICY for d in rest.decisions))  # type: ignore[misc]
        desk.until_assigned("left")
        desk.go_on()
        before = len(right.decisions)
        desk.joy.buttons[DEADMAN], desk.joy.axes[LEFT_STICK_Y] = 1, 1.0
        desk.until(lambda: mode(left) == Mode.EXPERT and abs(left.commands[-1][0] - 0.24) < 1e-9)
        desk.until(lambda: len(right.decisions) > before + 5)
        assert left.decisions[-1].contract_sha256 == load_contract(contracts[0]).sha256
        assert left.decisions[-1].operator_id == "ada"
        assert {d.mode for d in right.decisions[before:]} <= {Mode.POLICY, Mode.HOLD}
        assert {d.intervention for d in right.decisions[before:]} == {0}
        assert max(command[0] for command in right.commands) <= 0.1  # what its policy says; the stick says 0.24
        desk.joy.buttons[EAST] = 1
        desk.until(lambda: mode(left) == mode(right) == Mode.ESTOP)
    finally:
        desk.close()
        for node in (*nodes, *(rest.node for rest in rests.values())):
            node.destroy_node()
        for rest in rests.values():
            rest.executor.shutdown()
