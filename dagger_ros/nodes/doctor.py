"""Listens to a running graph and gives a snapshot of it; publishes nothing."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rosgraph_msgs.msg import Clock as ClockMessage

from dagger_ros.contract import Contract, DaggerError, stamp_ns
from dagger_ros.contract.types import MESSAGE_TYPES
from dagger_ros.doctor import (
    GRAPH_TOPICS,
    ROLES,
    Arrival,
    DriverTest,
    Endpoint,
    Mismatch,
    NodeSeen,
    Role,
    Settings,
    Snapshot,
    observed_topics,
    topic_types,
)
from dagger_ros.msg import ExpertAction, GateDecision, GateSettings, PolicyAction, SimTick
from dagger_ros.nodes.base import message_class
from dagger_ros.nodes.network import is_open, stay_on_this_machine
from dagger_ros.nodes.qos import EVENT_QOS
from dagger_ros.nodes.spin import poll

__all__ = ["look_at_graph"]

# Best effort and volatile, which hears every writer, and for which no writer waits.
_LISTENER = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
# How long nodes may take to find the doctor before messages are counted: at least, and at most.
_SETTLE_S, _SETTLE_LONGEST_S = 1.0, 4.0
# How long a node may take to answer.
_ANSWER_S = 5.0
# How long a driver that ought to have stopped is watched.
_DRIVER_S = 5.0
_STEP_S = 0.005
_ASKED = ("contract", "use_sim_time", "lockstep")
_NO_NODE = "_NODE_NAME_UNKNOWN_"
_STAMP = (struct.Struct(">iI"), struct.Struct("<iI"))


def look_at_graph(
    contract: Contract,
    *,
    namespace: str,
    seconds: float,
    remap: Sequence[str] = (),
    known: Sequence[str] = (),
    test_driver: bool = False,
) -> Snapshot:
    """Listens to the graph of the domain that the environment names.

    Args:
        contract: Whose topics are listened to.
        namespace: Of the graph.
        seconds: How long messages are counted, s.
        remap: As in `joint_states:=/arm/joint_states`.
        known: Patterns of names of nodes that belong here.
        test_driver: Also deactivate the supervisor for a moment, in simulation, and see whether the robot stops.

    Raises:
        DaggerError: If the namespace is no name, or the driver is no simulated one that can be tested now.
    """
    stay_on_this_machine()
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        doctor = _Doctor(contract, context, namespace, remap)
        try:
            return doctor.look(seconds, tuple(known), test_driver=test_driver)
        finally:
            doctor.close()
    finally:
        context.try_shutdown()


class _Doctor:
    """A node that only listens, for one look."""

    def __init__(self, contract: Contract, context: Any, namespace: str, remap: Sequence[str]) -> None:
        self._contract = contract
        arguments = ["--ros-args", *(item for rule in remap for item in ("-r", rule))]
        try:
            # Hidden, as the underscore says: no other doctor takes it for a part of the graph.
            self._node = Node(
                f"_dagger_ros_doctor_{os.getpid()}",
                context=context,
                namespace=namespace,
                cli_args=arguments,
                enable_rosout=False,
                start_parameter_services=False,
            )
        except (rclpy.exceptions.InvalidNamespaceException, RuntimeError) as error:
            raise DaggerError(
                f"expected a namespace as in /arm and remappings as in joint_states:=/arm/joint_states; {error}"
            ) from error
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._system = Clock(clock_type=ClockType.SYSTEM_TIME)
        self._clock_ns: int | None = None
        self._forget()
        self._statuses: dict[str, Any] = {}
        self._ahead_ns: dict[str, int] = {}
        self._settings: Settings | None = None
        self._tick: Any = None
        self._stopped_ns: int | None = None
        self._command_ns = 0
        self._types = topic_types(contract)
        self._has_stamp = {topic: _has_stamp(type_) for topic, type_ in observed_topics(contract).items()}
        self._has_stamp["joy"] = True
        self._listen()

    def _forget(self) -> None:
        """Begins to count anew."""
        self._arrivals: dict[str, list[Arrival]] = {}
        self._contracts: dict[str, set[str]] = {}
        self._reasons: list[int] = []

    def _listen(self) -> None:
        def subscribe(type_: Any, topic: str, callback: Callable[[Any], None], qos: Any, *, raw: bool = False) -> None:
            self._subscriptions.append(self._node.create_subscription(type_, topic, callback, qos, raw=raw))

        self._subscriptions: list[Any] = []
        # First, so that it is taken before what was published behind it.
        for topic in {self._resolved("clock"), self._resolved("/clock")}:
            subscribe(ClockMessage, topic, partial(self._on_clock, topic), _LISTENER)
        for topic, has_stamp in self._has_stamp.items():
            callback = partial(self._on_raw, topic, has_stamp=has_stamp)
            subscribe(message_class(self._types[topic]), topic, callback, _LISTENER, raw=True)
        command = self._contract.action
        subscribe(message_class(command.type), command.topic, self._on_command, _LISTENER, raw=True)
        subscribe(message_class(self._types["estop"]), "estop", lambda _: self._note("estop", None), _LISTENER)
        subscribe(GateDecision, ROLES[Role.SUPERVISOR], self._on_decision, _LISTENER)
        subscribe(PolicyAction, ROLES[Role.POLICY], partial(self._on_proposal, ROLES[Role.POLICY]), _LISTENER)
        subscribe(ExpertAction, ROLES[Role.EXPERT], partial(self._on_proposal, ROLES[Role.EXPERT]), _LISTENER)
        subscribe(GateSettings, "supervisor/settings", self._on_settings, EVENT_QOS)
        subscribe(SimTick, ROLES[Role.SIMULATION], self._on_tick, _LISTENER)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, _LISTENER)

    def look(self, seconds: float, known: tuple[str, ...], *, test_driver: bool) -> Snapshot:
        """Takes the snapshot."""
        self._spin(_SETTLE_S, lambda: False)
        self._spin(_SETTLE_LONGEST_S - _SETTLE_S, self._all_heard)
        answers = self._ask([name for role in ROLES for name in self._writers_of(ROLES[role])])
        self._forget()
        self._spin(seconds, lambda: False)
        self._spin(_ANSWER_S, lambda: all(future.done() for future in answers.values()))
        writers, readers, mismatches = self._endpoints()
        supervisors = self._writers_of(ROLES[Role.SUPERVISOR])
        seen = Snapshot(
            namespace=self._node.get_namespace(),
            domain_id=self._node.context.get_domain_id(),
            is_open=is_open(os.environ),
            seconds=seconds,
            nodes=self._nodes(answers),
            writers=writers,
            readers=readers,
            mismatches=mismatches,
            arrivals={topic: tuple(arrivals) for topic, arrivals in self._arrivals.items()},
            contracts={topic: frozenset(hashes) for topic, hashes in self._contracts.items()},
            reasons=tuple(self._reasons),
            settings=self._settings,
            other_graphs=self._other_graphs(),
            known=known,
            driver_test=self._test_driver(supervisors) if test_driver else None,
        )
        return seen

    def close(self) -> None:
        """Leaves the graph."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _spin(self, seconds: float, done: Callable[[], bool]) -> None:
        end_ns = self._now_ns() + round(seconds * 1e9)
        while self._now_ns() < end_ns and not done():
            while poll(self._subscriptions):
                pass
            self._executor.spin_once(timeout_sec=_STEP_S)

    def _now_ns(self) -> int:
        return int(self._steady.now().nanoseconds)

    def _all_heard(self) -> bool:
        """Whether every topic that somebody writes has brought something."""
        return all(self._arrivals.get(topic) or not self._writers_of(topic) for topic in self._has_stamp)

    def _note(self, topic: str, stamp: int | None) -> None:
        arrival = Arrival(int(self._system.now().nanoseconds), self._clock_ns, stamp)
        self._arrivals.setdefault(topic, []).append(arrival)

    def _clock_topic(self) -> str:
        """A simulation in a namespace keeps its clock there."""
        own = self._resolved("clock")
        return own if self._node.count_publishers(own) else self._resolved("/clock")

    def _on_clock(self, topic: str, message: Any) -> None:
        if topic == self._clock_topic():
            self._clock_ns = stamp_ns(message.clock)
            self._note("/clock", self._clock_ns)

    def _on_raw(self, topic: str, message: bytes, *, has_stamp: bool) -> None:
        self._note(topic, _stamp_of(message) if has_stamp else None)

    def _on_command(self, _message: bytes) -> None:
        self._command_ns = self._now_ns()

    def _on_decision(self, message: Any) -> None:
        self._on_proposal(ROLES[Role.SUPERVISOR], message)
        self._reasons.append(message.reasons)

    def _on_proposal(self, topic: str, message: Any) -> None:
        self._note(topic, stamp_ns(message.header.stamp))
        self._contracts.setdefault(topic, set()).add(message.contract_sha256)

    def _on_settings(self, message: Any) -> None:
        self._settings = Settings(round=message.round, needs_expert=message.needs_expert)

    def _on_tick(self, message: Any) -> None:
        self._tick = message
        if message.driver_stopped and self._stopped_ns is None:
            self._stopped_ns = self._now_ns()
        elif not message.driver_stopped:
            self._stopped_ns = None

    def _on_diagnostics(self, message: Any) -> None:
        ahead_ns = stamp_ns(message.header.stamp) - int(self._system.now().nanoseconds)
        for status in message.status:
            self._statuses[status.name] = status
            # The one that was the shortest time on its way tells best.
            self._ahead_ns[status.name] = max(ahead_ns, self._ahead_ns.get(status.name, ahead_ns))

    def _ask(self, names: Iterable[str]) -> dict[tuple[str, str], Any]:
        """Asks nodes for parameters and the state of their life cycle; gives what will be the answers."""
        futures: dict[tuple[str, str], Any] = {}
        for name in dict.fromkeys(names):
            client = self._node.create_client(GetParameters, f"{name}/get_parameters")
            if client.service_is_ready():
                # One by one: rclpy gives none of several of which a node lacks one.
                for asked in _ASKED:
                    futures[name, asked] = client.call_async(GetParameters.Request(names=[asked]))
            client = self._node.create_client(GetState, f"{name}/get_state")
            if client.service_is_ready():
                futures[name, "get_state"] = client.call_async(GetState.Request())
        return futures

    def _nodes(self, answers: Mapping[tuple[str, str], Any]) -> tuple[NodeSeen, ...]:
        here = self._machines()
        own = here.get(self._node.get_fully_qualified_name())
        names = {f"{namespace.rstrip('/')}/{name}" for name, namespace in self._node.get_node_names_and_namespaces()}
        nodes = []
        for name in sorted(names):
            if _is_hidden(name):
                continue
            status, parameters = self._statuses.get(name), _parameters(name, answers)
            values = {pair.key: pair.value for pair in status.values} if status else {}
            state = values.get("state", "")
            if (answer := answers.get((name, "get_state"))) is not None and answer.done():
                state = answer.result().current_state.label
            ahead_ns = self._ahead_ns.get(name)
            nodes.append(
                NodeSeen(
                    name=name,
                    elsewhere=here[name] != own if own and here.get(name) else None,
                    contract_sha256=values.get("contract_sha256", ""),
                    contract_file=str(parameters.get("contract") or ""),
                    use_sim_time=parameters.get("use_sim_time"),
                    lockstep=parameters.get("lockstep"),
                    state=state,
                    level=ord(status.level) if status else None,
                    words=status.message if status else "",
                    has_pad="pad" in values,
                    clock_ahead_s=ahead_ns * 1e-9 if ahead_ns is not None else None,
                )
            )
        return tuple(nodes)

    def _machines(self) -> dict[str, bytes]:
        """A mark of the machine of each node, where the middleware tells it: Fast DDS does, in GIDs."""
        infos = [
            *self._node.get_publishers_info_by_topic("/parameter_events"),
            *self._node.get_subscriptions_info_by_topic(self._resolved("/clock")),
        ]
        marks = {_full_name(info): bytes(info.endpoint_gid) for info in infos}
        return {name: mark[2:4] for name, mark in marks.items() if mark[:2] == b"\x01\x0f"}

    def _resolved(self, topic: str) -> str:
        return str(self._node.resolve_topic_name(topic))

    def _writers_of(self, topic: str) -> list[str]:
        return [_full_name(info) for info in self._node.get_publishers_info_by_topic(self._resolved(topic))]

    def _endpoints(
        self,
    ) -> tuple[dict[str, tuple[Endpoint, ...]], dict[str, tuple[Endpoint, ...]], tuple[Mismatch, ...]]:
        """Writers and readers of every topic of the graph, and the pairs that do not fit."""
        writers, readers, mismatches = {}, {}, []
        for topic in (*self._types, "/clock"):
            name = self._clock_topic() if topic == "/clock" else self._resolved(topic)
            outs = self._node.get_publishers_info_by_topic(name)
            ins = [i for i in self._node.get_subscriptions_info_by_topic(name) if not _is_hidden(_full_name(i))]
            if outs:
                writers[topic] = tuple(Endpoint(_full_name(i), i.topic_type) for i in outs)
            if ins:
                readers[topic] = tuple(Endpoint(_full_name(i), i.topic_type) for i in ins)
            for out in outs:
                for reader in ins:
                    fits, why = qos_check_compatible(out.qos_profile, reader.qos_profile)
                    if fits == QoSCompatibility.ERROR and out.topic_type == reader.topic_type:
                        mismatches.append(Mismatch(topic, _full_name(out), _full_name(reader), _plain(why)))
        return writers, readers, tuple(mismatches)

    def _other_graphs(self) -> dict[str, frozenset[str]]:
        decision, own = ROLES[Role.SUPERVISOR], self._resolved(ROLES[Role.SUPERVISOR])
        result = {}
        for topic, types in self._node.get_topic_names_and_types():
            if topic.endswith(f"/{decision}") and topic != own and GRAPH_TOPICS[decision] in types:
                infos = self._node.get_publishers_info_by_topic(topic)
                infos += self._node.get_subscriptions_info_by_topic(topic)
                nodes = frozenset(_full_name(info) for info in infos if not _is_hidden(_full_name(info)))
                if nodes:
                    result[topic.removesuffix(f"/{decision}") or "/"] = nodes
        return result

    def _test_driver(self, supervisors: Sequence[str]) -> DriverTest:
        """Deactivates the supervisor, waits for the simulated driver to stop by itself, and activates it again."""
        if not self._writers_of(ROLES[Role.SIMULATION]) or self._tick is None:
            raise DaggerError(
                "--test-driver-timeout: expected a simulation (mujoco_bridge, which says sim/tick), since commands "
                "cease for a moment; found none. On a robot do it by hand: docs/doctor.md"
            )
        if self._tick.done or len(supervisors) != 1:
            found = "an episode that is over" if self._tick.done else f"{len(supervisors)} supervisors"
            raise DaggerError(f"--test-driver-timeout: expected one supervisor and an episode under way; found {found}")
        client = self._node.create_client(ChangeState, f"{supervisors[0]}/change_state")
        self._change(client, supervisors[0], Transition.TRANSITION_DEACTIVATE, "deactivated")
        try:
            waited_s = self._contract.timing.driver_timeout_s + _DRIVER_S
            self._spin(waited_s, lambda: self._stopped_ns is not None)
            if self._stopped_ns is None:
                return DriverTest(None, waited_s)
            return DriverTest(max(0, self._stopped_ns - self._command_ns) * 1e-9, waited_s)
        finally:
            self._change(client, supervisors[0], Transition.TRANSITION_ACTIVATE, "activated again")

    def _change(self, client: Any, name: str, transition: int, words: str) -> None:
        future = None
        if client.wait_for_service(_ANSWER_S):
            future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            self._spin(_ANSWER_S, future.done)
        if future is None or not future.done() or not future.result().success:
            raise DaggerError(f"--test-driver-timeout: expected that {name} can be {words}; it did not do so")


def _has_stamp(type_: str) -> bool:
    """Whether messages of a stream or camera begin with a header."""
    return type_ not in MESSAGE_TYPES or MESSAGE_TYPES[type_].has_header


def _stamp_of(message: bytes) -> int:
    """The header stamp of a serialized message, ns; its second byte says in which order bytes are."""
    seconds, nanoseconds = _STAMP[message[1] & 1].unpack_from(message, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _full_name(info: Any) -> str:
    if info.node_name == _NO_NODE:
        return "(no ROS node)"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _is_hidden(name: str) -> bool:
    """Daemons of tools, launch, and doctors."""
    return name.rpartition("/")[2].startswith(("_", "launch_ros_"))


def _plain(why: str) -> str:
    """What rclpy says of two profiles, without its signs."""
    parts = (part.strip().removeprefix("ERROR: ") for part in why.split(";"))
    return ", ".join(part[0].lower() + part[1:] for part in parts if part)


def _parameters(node: str, answers: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """What a node said of those that were asked for; nothing of those that it lacks."""
    found = {}
    for name in _ASKED:
        future = answers.get((node, name))
        for value in future.result().values if future is not None and future.done() else ():
            if value.type == ParameterType.PARAMETER_BOOL:
                found[name] = value.bool_value
            elif value.type == ParameterType.PARAMETER_STRING:
                found[name] = value.string_value
    return found
