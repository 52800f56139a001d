"""A stand-in for the rest of the graph around a node under test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from conftest import contract_path
from dagger_ros.contract import Act, Contract, Mode, StreamReader, load_contract, stamp_from_ns
from dagger_ros.msg import EpisodeEvent, ExpertAction, GateDecision, OperatorAct, PolicyAction
from dagger_ros.nodes.base import message_class, message_writer, new_message
from dagger_ros.nodes.qos import ACT_QOS, EVENT_QOS, GraphQos
from dagger_ros.supervisor import Reason

PATH = str(contract_path("peg"))
PEG = load_contract(PATH)
QOS = GraphQos(lockstep=False)
# Not a measure of speed: how long what does not come is waited for.
PATIENCE_S = 60.0


# Of an Xbox pad, as config/joysticks/xbox.yaml names them.
SOUTH, EAST, WEST, BACK, START, LEFT_PRESS, DEADMAN = 0, 1, 2, 6, 7, 9, 5
LEFT_STICK_Y, DPAD_Y = 1, 7


_NOT_READY = Reason.OBSERVATION_NEVER | Reason.EXPERT_NEVER | Reason.EXPERT_NOT_FINITE


class Rest:
    """Observations, proposals, a person, and ears for what the supervisor says."""

    def __init__(self, context: Any, contract: Contract = PEG, namespace: str = "") -> None:
        self.contract = contract
        self.node = rclpy.create_node("rest", context=context, namespace=namespace)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.commands: list[Any] = []
        self.decisions: list[Any] = []
        self.statuses: list[Any] = []
        self.silent: set[str] = set()
        self.policy_says = [0.1, 0.0, -0.1]
        self.policy_sha256 = "a" * 64
        self.policy_took_s = 0.002
        self.takeover = False
        self.spoken = 0
        self._reader = StreamReader(self.contract.action)
        self._parts, self._publishers = {}, {}
        for topic in self.contract.topics:
            parts = [s for s in self.contract.streams.values() if s.topic == topic]
            message = new_message(parts[0].type, period_ns=self.contract.timing.period_ns)
            self._parts[topic] = (message_writer(parts, message), [np.full(len(p.dimensions), 0.3) for p in parts])
            self._publishers[topic] = self.node.create_publisher(type(message), topic, QOS.sensor_writer)
        self._policy = self.node.create_publisher(PolicyAction, "policy/action", QOS.command)
        self._expert = self.node.create_publisher(ExpertAction, "expert/action", QOS.command)
        self.estop = self.node.create_publisher(Bool, "estop", QOS.command)
        self.episode = self.node.create_publisher(EpisodeEvent, "episode", EVENT_QOS)
        command = message_class(self.contract.action.type)
        self.node.create_subscription(command, self.contract.action.topic, self._on_command, 1000)
        self.node.create_subscription(GateDecision, "supervisor/decision", self.decisions.append, QOS.record)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def speak(self) -> None:
        """One message on every topic that is not silent."""
        now_ns = self.node.get_clock().now().nanoseconds
        for topic, (writer, values) in self._parts.items():
            if topic not in self.silent:
                self._publishers[topic].publish(writer.fill(values, now_ns))
        common = {"contract_sha256": self.contract.sha256, "sequence": self.spoken, "tick": -1}
        policy = PolicyAction(**common, policy="pi", policy_sha256=self.policy_sha256, action=self.policy_says)
        policy.inference_s = self.policy_took_s
        expert = ExpertAction(**common, operator_id="Ada", takeover=self.takeover, action=[0.0] * 3)
        for message, publisher, name in ((policy, self._policy, "policy"), (expert, self._expert, "expert")):
            stamp_from_ns(message.header.stamp, now_ns)
            if name not in self.silent:
                publisher.publish(message)
        self.spoken += 1

    def until(self, done: Callable[[], bool], *, quiet: bool = False) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not done():
            if not quiet:
                self.speak()
            spoken_s = time.monotonic()
            while time.monotonic() - spoken_s < 0.01:
                self.executor.spin_once(timeout_sec=0.01)
            assert time.monotonic() < end_s, self.decisions[-1:]

    def until_mode(self, mode: Mode) -> Any:
        self.until(lambda: bool(self.decisions) and self.decisions[-1].mode == mode)
        return self.decisions[-1]

    def ask(self, name: str) -> Any:
        client = self.node.create_client(Trigger, f"supervisor/{name}")
        self.until(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def drive(self) -> None:
        self.until(lambda: bool(self.decisions) and not Reason(self.decisions[-1].reasons) & Reason.OBSERVATION_NEVER)
        self.until(lambda: self.ask("arm").success)
        self.until_mode(Mode.HOLD)
        assert self.ask("resume").success
        self.until_mode(Mode.POLICY)
        self.until(lambda: bool(self.commands) and self.commands[-1][0] == 0.1)

    def _on_command(self, message: Any) -> None:
        values = np.empty(3)
        assert self._reader.read(message, values)
        self.commands.append(values)

    def _on_diagnostics(self, array: Any) -> None:
        self.statuses += array.status

    def verdicts_of(self, node: str) -> list[Any]:
        """What a node said of itself so far."""
        return [s for s in self.statuses if s.name.endswith(node)]

    @property
    def verdicts(self) -> list[Any]:
        return self.verdicts_of("supervisor")


class Person(Rest):
    """The rest of the graph with a person at an Xbox pad in place of the expert's messages."""

    def __init__(self, context: Any, contract: Contract = PEG) -> None:
        super().__init__(context, contract)
        self.silent = {"expert"}
        self.acts: list[Any] = []
        self.joy = Joy(axes=[0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0], buttons=[0] * 11)
        self._joy = self.node.create_publisher(Joy, "joy", ACT_QOS)
        self.node.create_subscription(OperatorAct, "expert/act", self.acts.append, ACT_QOS)

    def speak(self) -> None:
        super().speak()
        self.send_joy()

    def send_joy(self) -> None:
        """What the pad reads now."""
        if "joy" not in self.silent:
            stamp_from_ns(self.joy.header.stamp, self.node.get_clock().now().nanoseconds)
            self._joy.publish(self.joy)

    def press(self, *buttons: int) -> None:
        for button in buttons:
            self.joy.buttons[button] = 1

    def let_go(self, *buttons: int) -> None:
        for button in buttons:
            self.joy.buttons[button] = 0

    def push(self, value: float) -> None:
        self.joy.axes[LEFT_STICK_Y] = value

    @property
    def reasons(self) -> Reason:
        return Reason(self.decisions[-1].reasons)

    def arm(self) -> None:
        self.until(lambda: bool(self.decisions) and not self.reasons & _NOT_READY)
        self.press(START)
        self.until_mode(Mode.HOLD)
        self.let_go(START)

    def take_over(self) -> None:
        self.press(DEADMAN)
        self.push(1.0)
        self.until_mode(Mode.EXPERT)
        self.until(lambda: bool(abs(self.commands[-1][0] - 0.24) < 1e-9))

    def kinds(self) -> list[Act]:
        return [Act(act.act) for act in self.acts]


_Rest = TypeVar("_Rest", bound=Rest)


@contextmanager
def rest_of_the_graph(domain: int, make: Callable[[Any], _Rest]) -> Iterator[_Rest]:
    """A stand-in with a context of its own."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    result = make(context)
    try:
        yield result
    finally:
        result.executor.shutdown()
        result.node.destroy_node()
        context.try_shutdown()
