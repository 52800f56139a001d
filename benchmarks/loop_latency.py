"""From observations to the command that answers them, through three processes, against the least that rclpy takes.

    .venv/bin/python benchmarks/loop_latency.py [--seconds 10] [--rate 200] [--policy SOURCE] [--json FILE]

This process is the robot: it publishes 24 numbers on three topics at a rate, and waits for commands with a bare wait
set. The policy node (5 networks with 2 layers of 256) and the supervisor node (every check, 12 joints) are processes of
their own. The floor are two processes that do nothing: each waits with a bare wait set, takes the same messages and
publishes the same one in answer. Floor and graph run in turn, twice each. Nobody is pinned to a core.

Latency is from before the first of the three messages is published until the command is there whose decision was made
for them (`policy_stamp_ns`). Prints percentiles, and the ratio to the floor.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "test"), str(ROOT / "benchmarks")]

import numpy as np
import rclpy
import yaml
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from tick import messages, network, task, with_stamp

from conftest import next_domain
from dagger_ros.contract import Contract, Mode, RowLayout, load_contract
from dagger_ros.msg import GateDecision, PolicyAction
from dagger_ros.nodes.base import message_class
from dagger_ros.nodes.network import stay_on_this_machine
from dagger_ros.nodes.qos import GraphQos
from dagger_ros.policy import Checkpoint, save_checkpoint
from graph import running_graph

QOS = GraphQos(lockstep=False)
JOINTS = [f"j{i}" for i in range(12)]
_NS = 1_000_000_000
_WARM_S = 1.0
_ASK = 50  # observations
_SLOWER = 10  # so often each is sent: the messages are those of 20 Hz
_HOPS = ("floor_policy", "floor_supervisor")


def contract_at(rate_hz: float, folder: Path) -> Path:
    """The contract of `tick.py` at a rate, with a command that carries the stamp of its decision."""
    content = task().model_dump(mode="json", by_alias=True)
    content["timing"] |= {"control_rate_hz": rate_hz, "latency_budget_s": 1.0 / rate_hz}
    for stream in content["streams"].values():
        stream["rate_hz"] = rate_hz
    content["expert"] = None
    content["action"]["type"] = "sensor_msgs/msg/JointState"
    for joint, dimension in zip(JOINTS, content["action"]["dimensions"], strict=True):
        # Limits that do not stand in the way at this rate, as they do not on a robot that follows its policy.
        dimension |= {"velocity_limit": 20.0, "acceleration_limit": 500.0, "jerk_limit": 5e5}
        dimension["select"] = f"position.{joint}"
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def checkpoint(contract: Contract, folder: Path) -> Path:
    """Random weights."""
    layout = RowLayout(contract)
    tensors = network(layout.observation_size, layout.action_size)
    names = layout.columns(), contract.action.dimensions
    save_checkpoint(folder, Checkpoint("pi_000", 0, contract.sha256, 0, *names, (), {}), tensors)
    return folder


def nothing(_message: object) -> None:
    """Messages are taken from the wait set."""


class Waiter:
    """A bare wait set of subscriptions whose messages stay bytes, or become messages."""

    def __init__(self, node: Any, subscriptions: list[Any]) -> None:
        self._subscriptions = subscriptions
        self._wait_set = rclpy_implementation.WaitSet(len(subscriptions), 0, 0, 0, 0, 0, node.context.handle)

    def wait(self, longest_ns: int) -> list[tuple[int, Any]]:
        """What came, each with the index of its subscription."""
        self._wait_set.clear_entities()
        for subscription in self._subscriptions:
            self._wait_set.add_subscription(subscription.handle)
        self._wait_set.wait(max(0, longest_ns))
        came = []
        for index, subscription in enumerate(self._subscriptions):
            if self._wait_set.is_ready("subscription", index):
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if taken is not None:
                    came.append((index, taken[0]))
        return came


class Robot:
    """Publishes observations at a rate and notes when commands come."""

    def __init__(self, node: Any, contract: Contract) -> None:
        self.node, self._made, self._count = node, messages(), 0
        self._publishers = [
            node.create_publisher(message_class(s.type), s.topic, QOS.sensor_writer) for s in contract.streams.values()
        ]
        command = node.create_subscription(JointState, contract.action.topic, nothing, QOS.command, raw=True)
        decision = node.create_subscription(GateDecision, "supervisor/decision", nothing, QOS.record, raw=True)
        self._waiter = Waiter(node, [command, decision])
        self._resume = node.create_client(Trigger, "supervisor/resume")

    def run(
        self, seconds: float, rate_hz: float, before: Callable[[int], object] = lambda _count: None
    ) -> tuple[list[tuple[int, int]], list[tuple[int, bytes]], list[bytes]]:
        """Stamps of the observations and when they went out; when commands came, and they; decisions.

        `before` is called before each observation, with its number.
        """
        period_ns = round(_NS / rate_hz)
        sent: list[tuple[int, int]] = []
        commands: list[tuple[int, bytes]] = []
        decisions: list[bytes] = []
        due_ns = time.monotonic_ns()
        end_ns = due_ns + round(seconds * _NS)
        while due_ns < end_ns:
            while (left_ns := due_ns - time.monotonic_ns()) > 0:
                for index, data in self._waiter.wait(left_ns):
                    if index == 0:
                        commands.append((time.monotonic_ns(), data))
                    else:
                        decisions.append(data)
            before(len(sent))
            stamp_ns, now_ns = time.time_ns(), time.monotonic_ns()
            made = self._made[self._count // _SLOWER % len(self._made)]
            for publisher, data in zip(self._publishers, made, strict=True):
                publisher.publish(with_stamp(data, stamp_ns))
            sent.append((stamp_ns, now_ns))
            if self._count % _ASK == 0:  # a busy machine makes the policy late, which holds it
                self._resume.call_async(Trigger.Request())
            self._count += 1
            due_ns += period_ns
        return sent, commands, decisions


def latencies(
    sent: list[tuple[int, int]], commands: list[tuple[int, bytes]], decisions: list[bytes]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N,) us of each observation; NaN: no command answered it before the next one was out."""
    answers = {}
    for data in decisions:
        decision = deserialize_message(data, GateDecision)
        if decision.mode == Mode.POLICY:
            stamp = decision.header.stamp
            answers[stamp.sec, stamp.nanosec] = decision.policy_stamp_ns
    came: dict[int, int] = {}
    for received_ns, data in commands:
        stamp = deserialize_message(data, JointState).header.stamp
        policy_ns = answers.get((stamp.sec, stamp.nanosec))
        if policy_ns is not None:
            came.setdefault(policy_ns, received_ns)
    return np.array([(came[s] - t) * 1e-3 if s in came else np.nan for s, t in sent])


def hop(name: str, contract: Contract) -> None:
    """One process of the floor: waits, takes, publishes, until it is told to end."""
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = rclpy.create_node(name)
    if name == _HOPS[0]:
        topics = {s.topic: message_class(s.type) for s in contract.streams.values()}
        subscriptions = [node.create_subscription(type_, topic, nothing, QOS.sensor) for topic, type_ in topics.items()]
        publisher = node.create_publisher(PolicyAction, "policy/action", QOS.command)
        message = PolicyAction(contract_sha256=contract.sha256, policy="pi_000", policy_sha256="a" * 64)
        message.action = [0.0] * len(JOINTS)
    else:
        subscriptions = [node.create_subscription(PolicyAction, "policy/action", nothing, QOS.command)]
        publisher = node.create_publisher(JointState, contract.action.topic, QOS.command)
        command = serialize_message(JointState(name=JOINTS, position=[0.0] * len(JOINTS)))
        decisions = node.create_publisher(GateDecision, "supervisor/decision", QOS.record)
        decision = GateDecision(mode=Mode.POLICY, observation=[0.0] * 24, contract_sha256=contract.sha256)
    waiter, newest = Waiter(node, subscriptions), {}
    while True:
        for index, received in waiter.wait(_NS):
            newest[index] = received.header.stamp
        stamps = {(stamp.sec, stamp.nanosec) for stamp in newest.values()}
        if len(newest) < len(subscriptions) or len(stamps) > 1:
            continue
        stamp = next(iter(newest.values()))
        newest.clear()
        if name == _HOPS[0]:
            message.header.stamp = stamp
            publisher.publish(message)
        else:
            decision.header.stamp, decision.policy_stamp_ns = stamp, stamp.sec * _NS + stamp.nanosec
            publisher.publish(with_stamp(command, decision.policy_stamp_ns))  # bytes, as the supervisor's are
            decisions.publish(decision)


def measure(start: Callable[[Any], None], contract: Contract, seconds: float, rate_hz: float) -> Any:
    """Latencies of a graph that `start` starts."""
    os.environ["ROS_DOMAIN_ID"] = str(domain := next_domain())
    with tempfile.TemporaryDirectory() as log, running_graph(domain, Path(log)) as graph:
        start(graph)
        robot = Robot(graph.node, contract)
        graph.wait_for(lambda: graph.has_publishers("policy/action", "supervisor/decision"))
        for _ in range(20):
            if np.isfinite(latencies(*robot.run(_WARM_S, rate_hz))).any():
                break
        return latencies(*robot.run(seconds, rate_hz))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the two, in all")
    parser.add_argument("--rate", type=float, default=200.0, help="Hz")
    parser.add_argument("--policy", help="instead of random weights: a source of 24 inputs and 12 outputs")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--hop", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    stay_on_this_machine()
    if options.hop:
        with suppress(KeyboardInterrupt):  # how it is told to end
            hop(options.hop[0], load_contract(options.hop[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = contract_at(options.rate, Path(folder))
        contract = load_contract(path)
        policy = options.policy or checkpoint(contract, Path(folder) / "pi_000")

        def start_floor(graph: Any) -> None:
            for name in _HOPS:
                graph.start_command(name, [sys.executable, __file__, "--hop", name, str(path)])

        def start_ours(graph: Any) -> None:
            graph.start("policy", contract=path, policy=policy)
            graph.start("supervisor", contract=path, rule="hg", auto_arm=True, needs_expert=False)

        took_us: dict[str, list[Any]] = {"floor": [], "ours": []}
        for _ in range(2):
            for name, start in (("floor", start_floor), ("ours", start_ours)):
                took_us[name].append(measure(start, contract, options.seconds / 2, options.rate))
    report({name: np.concatenate(parts) for name, parts in took_us.items()}, options)


def report(took_us: dict[str, Any], options: argparse.Namespace) -> None:
    shares = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
    figures: dict[str, Any] = {"seconds": options.seconds, "rate_hz": options.rate, "us": {}}
    print(f"{'us':8}" + "".join(f"{name:>10}" for name in shares) + "    not answered in time")
    for name, values in took_us.items():
        row = dict(zip(shares, np.nanpercentile(values, [*shares.values()]).tolist(), strict=True))
        row["unanswered"] = float(np.isnan(values).mean())
        figures["us"][name] = row
        print(f"{name:8}" + "".join(f"{row[s]:10.0f}" for s in shares) + f"{100 * row['unanswered']:15.2f} %")
    for share in ("p50", "p99"):
        figures[f"ratio_{share}"] = figures["us"]["ours"][share] / figures["us"]["floor"][share]
    print(f"ours / floor: p50 {figures['ratio_p50']:.2f}   p99 {figures['ratio_p99']:.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
