"""What every node has: the contract, its parameters, diagnostics once a second, and one way to run and to end."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message

from dagger_ros.contract import (
    Action,
    CdrWriter,
    Contract,
    DaggerError,
    RowLayout,
    Stream,
    load_contract,
    shape_message,
)
from dagger_ros.nodes.network import stay_on_this_machine
from dagger_ros.nodes.parameters import NodeParameter, declare
from dagger_ros.nodes.qos import GraphQos
from dagger_ros.nodes.realtime import Collector, Ticker, apply_settings, cores_of, one_thread
from dagger_ros.nodes.spin import Loop

__all__ = [
    "LAUNCHER",
    "LEVEL_ERROR",
    "LEVEL_OK",
    "LEVEL_WARN",
    "ContractNode",
    "ManagedNode",
    "message_class",
    "message_writer",
    "new_message",
    "run_node",
]

LEVEL_OK, LEVEL_WARN, LEVEL_ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Process id of the launch that a node ends with, in the environment of the nodes that it starts.
LAUNCHER = "DAGGER_ROS_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Longer than the supervisor takes to stop the robot; launch waits 5 s before it kills.
_LONGEST_OUTLIVING_S = 3.0
# Fast DDS lets go within 0.1 s; that of the PyPI wheels may never do so, nor let Python run: docs/troubleshooting.md.
_LONGEST_LEAVE_S = 5.0


def message_class(type_name: str) -> Any:
    """The Python class of a message type such as `sensor_msgs/msg/Imu`."""
    package, kind, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), name)


def new_message(type_name: str, *, period_ns: int) -> Any:
    """An empty message; a trajectory has its one point, due in one period."""
    message = message_class(type_name)()
    if type_name == "trajectory_msgs/msg/JointTrajectory":
        point = message_class("trajectory_msgs/msg/JointTrajectoryPoint")()
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(period_ns, 1_000_000_000)
        message.points = [point]
    return message


def message_writer(parts: Sequence[Stream | Action], message: Any) -> CdrWriter:
    """Writes the streams that share a topic, or the action, as messages that are else like the given new one."""
    return CdrWriter(parts, serialize_message(shape_message(message, parts)))


CONTRACT = NodeParameter("contract", "", "task contract, a YAML file; needed")
LOCKSTEP = NodeParameter(
    "lockstep", False, "run by the ticks of the simulation, as fast as they come, instead of by the clock"
)
AUTOSTART = NodeParameter(
    "autostart", True, "configure and activate when the process starts; false: wait for who manages the life cycle"
)


class ContractNode(Node):
    """A node of one contract. A subclass names itself and its parameters, and makes what it has in `configure`.

    Args:
        parameters: Override what was given on the command line; for graphs in one process.
        context: Of rclpy; None: the default one.
        namespace: Of the node, unless the command line says otherwise.

    Attributes:
        NODE: Name of the node.
        PARAMETERS: Besides those that every node has.
        OUTLIVES: A topic; told to end, the node goes on until nobody writes it any more, for some seconds at most.
        given: Values of the parameters.
        state: Of the life cycle: unconfigured, inactive, active or finalized.
        active: It does its work; true while it is activated too.
        changes: How often subscriptions, timers or services came or went.
        idle: Nothing moves, as far as the node knows: there is time to tidy up.

    Raises:
        DaggerError: If a parameter is missing or the contract is not valid.
    """

    NODE: ClassVar[str]
    PARAMETERS: ClassVar[tuple[NodeParameter, ...]] = ()
    OUTLIVES: ClassVar[str] = ""

    contract: Contract
    layout: RowLayout
    period_ns: int

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        context: rclpy.context.Context | None = None,
        namespace: str = "",
    ) -> None:
        overrides = [Parameter(key, value=value) for key, value in (parameters or {}).items()]
        super().__init__(self.NODE, context=context, namespace=namespace, parameter_overrides=overrides)
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.state, self.active, self.changes, self.idle = "unconfigured", False, 0, True
        self.ticker: Ticker | None = None
        self._tick_timer: Any = None
        self._settled = False
        self._collector: Collector | None = None
        self._refusal = ""
        self._undo: list[Callable[[], object]] = []
        self._body, self._contract_sha256 = "", ""
        try:
            self.given = declare(self, self.parameters())
            self.lockstep: bool = self.given["lockstep"]
            self.qos = GraphQos(self.lockstep)
            self._realtime = self._realtime_settings()
            self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
            self.create_timer(1.0, self._publish_diagnostics, clock=self.steady)
            self._lasting = self._entities()
            self._begin()
        except Exception:
            self.destroy_node()
            raise

    @classmethod
    def parameters(cls) -> tuple[NodeParameter, ...]:
        """Everything that the node declares."""
        return (CONTRACT, LOCKSTEP, *cls.PARAMETERS)

    def configure(self) -> None:
        """Loads and checks everything, and makes what the node subscribes to, publishes and serves.

        Raises:
            DaggerError: If it cannot work with what it was given.
        """
        path = self.given["contract"]
        if not path:
            raise DaggerError(
                f"{self.NODE}: expected the parameter 'contract' (a YAML file), got nothing; "
                "give it with --ros-args -p contract:=FILE"
            )
        self.contract_path = path
        self.contract = load_contract(path)
        self.layout = RowLayout(self.contract)
        self.period_ns = self.contract.timing.period_ns
        self._body, self._contract_sha256 = self.contract.robot.body, self.contract.sha256

    def activate(self) -> None:
        """Begins to do its work."""

    def deactivate(self) -> None:
        """Stops safely; called once before the node goes too, while it can still publish."""

    def at_cleanup(self, undo: Callable[[], object]) -> None:
        """Has something that `configure` made, and that the node does not know of, undone."""
        self._undo.append(undo)

    def monotonic_ns(self) -> int:
        """Time on the clock that never jumps, ns."""
        return time.monotonic_ns()

    def robot_ns(self) -> int:
        """Time on the robot's clock (simulated where `use_sim_time` is set), ns."""
        clock = self.get_clock()
        # Without a simulated clock it is the system's, which rclpy takes four times as long to read.
        return int(clock.now().nanoseconds) if clock.ros_time_is_active else time.time_ns()

    def create_steady_timer(self, period_s: float, callback: Callable[[], None]) -> Any:
        """A timer that follows no simulated clock."""
        return self.create_timer(period_s, callback, clock=self.steady)

    def tick_at_control_rate(self, callback: Callable[[int, int], None]) -> None:
        """Calls back at each deadline of the contract's rate, with the time (monotonic, ns) and missed periods.

        `run_node` keeps the deadlines; in a graph that an executor runs, a timer comes near them.
        """
        self.ticker = Ticker(self.period_ns, callback)
        self.ticker.kept = self._settled
        if not self._settled:
            self._tick_timer = self.create_steady_timer(self.period_ns * 1e-9, self.ticker.tick)

    def stop_ticking(self) -> None:
        """The end of `tick_at_control_rate`."""
        self.ticker = None
        if self._tick_timer is not None:
            self.destroy_timer(self._tick_timer)
            self._tick_timer = None

    def settle(self) -> None:
        """Prepares the process to run this node, and nothing else: threads, memory, scheduling, garbage."""
        self._settled = True
        if self.ticker is not None:
            self.destroy_timer(self._tick_timer)
            self._tick_timer = None
            self.ticker.kept = True
        if self._realtime is not None:
            one_thread()
            for refused in apply_settings(**self._realtime):
                self.get_logger().warning(refused)
            self._collector = Collector()

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """How the active node is: level, one line in words, values. Overridden by each node."""
        return LEVEL_OK, "running", {}

    def shut_down(self) -> None:
        """Called once before the node goes, while it can still publish."""
        if self.active:
            self.deactivate()

    def destroy_node(self) -> None:
        """Leaves nothing, in shared memory either."""
        self._undo_all()
        super().destroy_node()

    def _undo_all(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _begin(self) -> None:
        """Brings the node up; one whose life cycle is managed may wait."""
        self.configure()
        self.active = True
        self.activate()
        self.state = "active"

    def _entities(self) -> set[Any]:
        return {*self.publishers, *self.subscriptions, *self.services, *self.clients, *self.timers}

    def _forget(self) -> None:
        """Destroys all that `configure` made."""
        self.changes += 1
        self.stop_ticking()
        self._undo_all()
        made = self._entities() - self._lasting
        for entities, destroy in (
            (self.subscriptions, self.destroy_subscription),
            (self.services, self.destroy_service),
            (self.clients, self.destroy_client),
            (self.timers, self.destroy_timer),
            (self.publishers, self.destroy_publisher),
        ):
            for entity in made.intersection(entities):
                destroy(entity)

    def _realtime_settings(self) -> dict[str, Any] | None:
        if "realtime_priority" not in self.given:
            return None
        return {
            "priority": self.given["realtime_priority"],
            "cores": cores_of(self.given["cpu_affinity"]),
            "lock_memory": self.given["lock_memory"],
        }

    def _publish_diagnostics(self) -> None:
        if self._collector is not None:
            self._collector.collect(idle=self.idle)
        level, message = LEVEL_WARN, self.state
        values: dict[str, object] = {"state": self.state, "contract_sha256": self._contract_sha256}
        if self.state == "active":
            level, message, own = self.verdict()
            values |= own
        elif self._refusal:
            level, message = LEVEL_ERROR, f"{self.state}: {self._refusal}"
        status = DiagnosticStatus(
            level=level,
            name=f"{self.get_fully_qualified_name()}",
            hardware_id=self._body,
            message=message,
            values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


class ManagedNode(LifecycleNodeMixin, ContractNode):
    """A node with the ROS 2 life cycle: configured it is ready and silent, active it does its work.

    With the parameter `autostart` it brings itself up, and refuses to be made where it cannot.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        context: rclpy.context.Context | None = None,
        namespace: str = "",
    ) -> None:
        ContractNode.__init__(self, parameters, context, namespace)

    @classmethod
    def parameters(cls) -> tuple[NodeParameter, ...]:
        """Everything that the node declares."""
        return (*super().parameters(), AUTOSTART)

    def on_configure(self, _state: Any) -> TransitionCallbackReturn:
        """See `configure`; refused, it leaves nothing."""
        return self._attempt("inactive", self.configure)

    def on_activate(self, _state: Any) -> TransitionCallbackReturn:
        """See `activate`."""
        self.active = True
        result = self._attempt("active", self.activate)
        self.active = self.state == "active"
        return result

    def on_deactivate(self, _state: Any) -> TransitionCallbackReturn:
        """See `deactivate`."""
        result = self._attempt("inactive", self.deactivate)
        self.active = self.state == "active"
        return result

    def on_cleanup(self, _state: Any) -> TransitionCallbackReturn:
        """Leaves nothing of what `configure` made."""
        return self._attempt("unconfigured", self._forget)

    def on_shutdown(self, _state: Any) -> TransitionCallbackReturn:
        """Stops safely; the process ends."""
        result = self._attempt("finalized", self.shut_down)
        self.active = self.state == "active"
        return result

    def on_error(self, _state: Any) -> TransitionCallbackReturn:
        """After a fault of ours: as if it had never been configured."""
        self._forget()
        self.state, self.active = "unconfigured", False
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Leaves nothing: the topic of its life cycle neither, which rclpy leaves until garbage is collected."""
        super().destroy_node()
        if machine := getattr(self, "_state_machine", None):  # none if it could not be made
            self._leave(machine)

    @staticmethod
    def _leave(machine: Any) -> None:
        """It is often the last to hold the node's participant, which Fast DDS then lets go of here."""
        machine.destroy_when_not_in_use()

    def _begin(self) -> None:
        autostart = self.given["autostart"]
        # In lockstep a graph in one process is made anew for each round, and nobody manages it.
        LifecycleNodeMixin.__init__(self, enable_communication_interface=not (autostart and self.lockstep))
        self._lasting = self._entities()
        self._failure: Exception | None = None
        if not autostart:
            return
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() is not TransitionCallbackReturn.SUCCESS and self._failure is not None:
                raise self._failure

    def _attempt(self, state: str, step: Callable[[], object]) -> TransitionCallbackReturn:
        self.changes += 1
        self._refusal, self._failure = "", None
        try:
            step()
        except Exception as error:
            self._refusal, self._failure = str(error), error
            expected = isinstance(error, DaggerError)
            if not self.given["autostart"]:
                self.get_logger().error(str(error) if expected else traceback.format_exc())
            if self.state == "unconfigured":
                self._forget()
            return TransitionCallbackReturn.FAILURE if expected else TransitionCallbackReturn.ERROR
        self.state = state
        return TransitionCallbackReturn.SUCCESS


def run_node(make: Callable[[], ContractNode], args: Sequence[str] | None = None) -> None:
    """Runs a node until it is told to end: by SIGINT, SIGTERM or SIGHUP, or the end of its context or its life cycle.

    It ends with the launch that started it, too.

    Messages stay on this machine, and go over UDP, unless the environment says otherwise.

    Exits with 2 after one sentence on stderr if the node cannot start because of the user's input, and with 1 after a
    traceback if the middleware does not let go of a node that has ended in order.
    """
    stay_on_this_machine()
    rclpy.init(args=args, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    told = _stop_on_signals()
    _end_with_launcher()
    try:
        node = make()
    except (DaggerError, ParameterException, InvalidParameterTypeException) as error:
        print(error, file=sys.stderr)
        rclpy.try_shutdown()
        raise SystemExit(2) from None
    node.settle()
    loop = Loop(node)
    try:
        loop.run(lambda: told() or node.state == "finalized")
        if node.OUTLIVES and told():
            patient_ns = node.monotonic_ns() + round(_LONGEST_OUTLIVING_S * 1e9)
            loop.run(lambda: not node.count_publishers(node.OUTLIVES) or node.monotonic_ns() > patient_ns)
    except ExternalShutdownException:
        pass
    finally:
        try:
            if rclpy.ok():
                node.shut_down()
        finally:
            faulthandler.dump_traceback_later(_LONGEST_LEAVE_S, exit=True)
            loop.close()
            node.destroy_node()
            rclpy.try_shutdown()
            faulthandler.cancel_dump_traceback_later()
            # Told again, as launch does after Ctrl-C: Python would die of it in its own end.
            for number in _ENDS:
                signal.signal(number, signal.SIG_IGN)


def _stop_on_signals() -> Callable[[], bool]:
    """Lets a signal end the loop instead of the context, so that a last command can still go out."""
    received: list[int] = []
    for number in _ENDS:
        signal.signal(number, lambda signum, _frame: received.append(signum))
    return lambda: bool(received)


def _end_with_launcher() -> None:
    """Has Linux send SIGTERM when the launch is gone: it starts nobody again then, and nobody reads the log."""
    if sys.platform == "linux" and os.environ.get(LAUNCHER) == str(os.getppid()):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
