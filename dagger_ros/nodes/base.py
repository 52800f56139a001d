"""What every node has: the contract, its parameters, diagnostics once a second, and one way to run and to end."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter

from dagger_ros.contract import DaggerError, RowLayout, load_contract
from dagger_ros.nodes.qos import GraphQos
from dagger_ros.nodes.realtime import Collector, Ticker, apply_settings, cores_of, one_thread
from dagger_ros.nodes.spin import Loop

__all__ = [
    "LEVEL_ERROR",
    "LEVEL_OK",
    "LEVEL_WARN",
    "TRANSPORT",
    "ContractNode",
    "message_class",
    "new_message",
    "run_node",
]

LEVEL_OK, LEVEL_WARN, LEVEL_ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

# Left to itself Fast DDS passes messages within a machine through shared memory, and its locks outlive their owner:
# after a kill -9 or a crash whoever sends to the dead node may wait for 1 s or more, in the middle of `publish`. Nobody
# waits for a dead UDP port. What Linux lets a port hold by default (208 KB) is less than three pictures of 80 KB at
# once; of 4 MB it gives what net.core.rmem_max allows. Other middleware ignores the variable.
TRANSPORT = ("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4?sockets_size=4MB")


def message_class(type_name: str) -> Any:
    """The Python class of a message type such as `sensor_msgs/msg/Imu`."""
    package, kind, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), name)


def new_message(type_name: str, *, period_ns: int) -> Any:
    """An empty message that a `TopicWriter` can fill; a trajectory gets its one point, due in one period."""
    message = message_class(type_name)()
    if type_name == "trajectory_msgs/msg/JointTrajectory":
        point = message_class("trajectory_msgs/msg/JointTrajectoryPoint")()
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(period_ns, 1_000_000_000)
        message.points = [point]
    return message


class ContractNode(Node):
    """A node of one contract.

    Args:
        name: Of the node.
        parameters: Override what was given on the command line; for graphs in one process.
        context: Of rclpy; None: the default one.
        namespace: Of the node, unless the command line says otherwise.
        realtime: It has the parameters that make its process steadier.

    Attributes:
        idle: Nothing moves, as far as the node knows: there is time to tidy up.

    Raises:
        DaggerError: If a parameter is missing or the contract is not valid.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        context: rclpy.context.Context | None = None,
        namespace: str = "",
        *,
        realtime: bool = False,
    ) -> None:
        overrides = [Parameter(key, value=value) for key, value in (parameters or {}).items()]
        super().__init__(name, context=context, namespace=namespace, parameter_overrides=overrides)
        path = self.parameter("contract", "", "task contract, a YAML file; needed")
        if not path:
            self.destroy_node()
            raise DaggerError(
                f"{name}: expected the parameter 'contract' (a YAML file), got nothing; "
                "give it with --ros-args -p contract:=FILE"
            )
        self.contract_path = path
        self.contract = load_contract(path)
        self.layout = RowLayout(self.contract)
        self.period_ns = self.contract.timing.period_ns
        self.lockstep = self.parameter(
            "lockstep", False, "run by the ticks of the simulation, as fast as they come, instead of by the clock"
        )
        self.qos = GraphQos(self.lockstep)
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.idle = True
        self.ticker: Ticker | None = None
        self._realtime = self._realtime_parameters() if realtime else None
        self._collector: Collector | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._publish_diagnostics, clock=self.steady)

    def parameter(self, name: str, default: Any, description: str) -> Any:
        """Declares a read-only parameter and gives its value; a whole number will do for a float."""
        number = isinstance(default, float)
        descriptor = ParameterDescriptor(description=description, read_only=True, dynamic_typing=number)
        value = self.declare_parameter(name, default, descriptor).value
        if number and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise DaggerError(f"parameter {name}: expected a number, got {value!r}")
        return float(value) if number else value

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
        self._tick_timer = self.create_steady_timer(self.period_ns * 1e-9, self.ticker.tick)

    def settle(self) -> None:
        """Prepares the process to run this node, and nothing else: threads, memory, scheduling, garbage."""
        if self.ticker is not None:
            self.destroy_timer(self._tick_timer)
            self.ticker.kept = True
        if self._realtime is not None:
            one_thread()
            for refused in apply_settings(**self._realtime):
                self.get_logger().warning(refused)
            self._collector = Collector()

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """How the node is: level, one line in words, values. Overridden by each node."""
        return LEVEL_OK, "running", {}

    def shut_down(self) -> None:
        """Called once before the node goes, while it can still publish."""

    def _realtime_parameters(self) -> dict[str, Any]:
        priority = self.parameter("realtime_priority", 0, "SCHED_FIFO priority of the process, 1 to 99; 0: none")
        cores = self.parameter("cpu_affinity", "", "cores on which the process runs, as in 2 or 0,2-3; empty: any")
        lock = self.parameter("lock_memory", False, "never swap out any memory of the process")
        if not 0 <= priority <= 99:
            raise DaggerError(f"realtime_priority: expected 0 (none) to 99, got {priority}")
        return {"priority": priority, "cores": cores_of(cores), "lock_memory": lock}

    def _publish_diagnostics(self) -> None:
        if self._collector is not None:
            self._collector.collect(idle=self.idle)
        level, message, values = self.verdict()
        status = DiagnosticStatus(
            level=level,
            name=f"{self.get_fully_qualified_name()}",
            hardware_id=self.contract.robot.body,
            message=message,
            values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def run_node(make: Callable[[], ContractNode], args: Sequence[str] | None = None) -> None:
    """Runs a node until it is told to end: SIGINT, SIGTERM or shutdown of the context.

    Messages go over UDP, unless the environment says otherwise.

    Exits with 2 after one sentence on stderr if the node cannot start because of the user's input.
    """
    os.environ.setdefault(*TRANSPORT)
    rclpy.init(args=args, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    stop = _stop_on_signals()
    try:
        node = make()
    except (DaggerError, ParameterException, InvalidParameterTypeException) as error:
        print(error, file=sys.stderr)
        rclpy.try_shutdown()
        raise SystemExit(2) from None
    node.settle()
    loop = Loop(node)
    try:
        loop.run(stop)
    except ExternalShutdownException:
        pass
    finally:
        try:
            if rclpy.ok():
                node.shut_down()
        finally:
            loop.close()
            node.destroy_node()
            rclpy.try_shutdown()


def _stop_on_signals() -> Callable[[], bool]:
    """Lets a signal end the loop instead of the context, so that a last command can still go out."""
    import signal

    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda signum, _frame: received.append(signum))
    return lambda: bool(received)
