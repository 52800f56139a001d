"""The loop that runs a node: messages, timers, services, deadlines, the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Int64
from std_srvs.srv import Trigger

from dagger_ros.nodes import spin
from dagger_ros.nodes.realtime import Ticker
from dagger_ros.nodes.spin import Loop
from graph import PATIENCE_S

pytestmark = pytest.mark.ros
PERIOD_NS = 2_000_000


class World:
    """A node that a loop runs, and a second one beside it."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node, self.other = (rclpy.create_node(name, context=self.context) for name in ("node", "other"))
        self.node.ticker, self.node.changes = None, 0

    def run(self, done: Callable[[], bool]) -> None:
        """Runs the loop until something is true."""
        end_s = time.monotonic() + PATIENCE_S
        loop = Loop(self.node)
        try:
            loop.run(lambda: done() or time.monotonic() > end_s)
        finally:
            loop.close()
        assert done()

    def end(self) -> None:
        for node in (self.node, self.other):
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def world(ros_domain: int) -> Iterator[World]:
    world = World(ros_domain)
    yield world
    world.end()


def counter(world: World, raw: bool = False) -> list[Any]:
    """What the node receives on the topic `number`."""
    received: list[Any] = []
    world.node.create_subscription(Int64, "number", received.append, 10, raw=raw)
    return received


def test_messages_come_in_order_and_as_bytes_where_that_is_wanted(world: World) -> None:
    received, raw = counter(world), counter(world, raw=True)
    publisher = world.other.create_publisher(Int64, "number", 10)
    for i in range(5):
        publisher.publish(Int64(data=i))
    world.run(lambda: len(received) == len(raw) == 5)
    assert [message.data for message in received] == [0, 1, 2, 3, 4]
    assert all(isinstance(message, bytes) for message in raw)


def test_callback_that_wants_to_know_gets_what_is_known_of_its_message(world: World) -> None:
    known: list[Any] = []

    def receive(message: Int64, info: Any) -> None:
        known.append((message.data, info["source_timestamp"]))

    world.node.create_subscription(Int64, "number", receive, 10)
    world.other.create_publisher(Int64, "number", 10).publish(Int64(data=7))
    world.run(lambda: bool(known))
    assert known[0][0] == 7
    assert known[0][1] > 0


def test_timers_run_again_and_again(world: World) -> None:
    count: list[int] = []
    world.node.create_timer(0.001, lambda: count.append(1))
    world.run(lambda: len(count) >= 5)


def test_service_answers_while_messages_come(world: World) -> None:
    received = counter(world)
    publisher = world.other.create_publisher(Int64, "number", 10)

    def answer(_request: Any, response: Any) -> Any:
        response.success = True
        return response

    world.node.create_service(Trigger, "ask", answer)
    client = world.other.create_client(Trigger, "ask")
    executor = SingleThreadedExecutor(context=world.context)
    executor.add_node(world.other)
    futures: list[Any] = []

    def asked() -> bool:
        if not futures and client.service_is_ready():
            futures.append(client.call_async(Trigger.Request()))
        publisher.publish(Int64(data=1))
        executor.spin_once(timeout_sec=0.0)
        return bool(futures) and futures[0].done() and len(received) > 10

    world.run(asked)
    executor.shutdown()
    assert futures[0].result().success


def test_subscription_that_is_made_later_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spin, "_EVENTS_NS", 1_000_000)
    received: list[Any] = []
    publisher = world.other.create_publisher(Int64, "number", 10)
    made: list[Any] = []

    def heard() -> bool:
        if not made:
            made.append(world.node.create_subscription(Int64, "number", received.append, 10))
        publisher.publish(Int64(data=1))
        return bool(received)

    world.run(heard)


def test_events_of_the_middleware_are_heard(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from rclpy.event_handler import SubscriptionEventCallbacks

    monkeypatch.setattr(spin, "_EVENTS_NS", 1_000_000)
    events: list[Any] = []
    callbacks = SubscriptionEventCallbacks(incompatible_qos=events.append)
    world.node.create_subscription(Int64, "number", print, 10, event_callbacks=callbacks)
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    world.other.create_publisher(Int64, "number", best_effort)
    world.run(lambda: bool(events))


def test_no_tick_comes_before_its_deadline_and_every_period_has_one_or_is_counted(world: World) -> None:
    ticks: list[tuple[int, int]] = []
    world.node.ticker = Ticker(PERIOD_NS, lambda now_ns, missed: ticks.append((now_ns, missed)))
    world.run(lambda: len(ticks) >= 50)
    periods = 0
    for now_ns, missed in ticks[1:]:
        periods += 1 + missed
        assert now_ns >= ticks[0][0] + periods * PERIOD_NS


def test_message_that_comes_on_the_way_to_a_deadline_gets_one_tick(world: World) -> None:
    """Also where it is taken at the deadline itself."""
    ticks: list[tuple[int, int]] = []
    ticker = world.node.ticker = Ticker(PERIOD_NS, lambda now_ns, missed: ticks.append((now_ns, missed)))
    ticker.kept = True
    received: list[int] = []

    def receive(message: Int64) -> None:
        received.append(message.data)
        ticker.arrive(time.monotonic_ns())

    world.node.create_subscription(Int64, "number", receive, 10)
    publisher = world.other.create_publisher(Int64, "number", 10)
    sent: list[int] = []

    def spoken() -> bool:
        if len(sent) < len(ticks):  # one for each tick, at whatever moment
            sent.append(len(sent))
            publisher.publish(Int64(data=sent[-1]))
        return len(ticks) >= 200

    world.run(spoken)
    total = sum(1 + missed for _, missed in ticks[1:])
    # The deadlines move by a tenth of a period where that is of use, and by less where a message was in time.
    assert (ticks[-1][0] - ticks[0][0]) / PERIOD_NS == pytest.approx(total, rel=0.15)
    assert received


def test_loop_ends_when_it_is_told_or_its_context_is_shut_down(world: World) -> None:
    world.run(lambda: True)
    count: list[int] = []
    world.node.create_timer(0.001, lambda: (count.append(1), world.context.try_shutdown()))
    loop = Loop(world.node)
    loop.run(lambda: False)
    loop.close()
    assert count == [1]


def test_error_of_a_callback_reaches_whoever_runs_the_loop(world: World) -> None:
    def fail() -> None:
        raise RuntimeError("told to")

    world.node.create_timer(0.001, fail)
    with pytest.raises(RuntimeError, match="told to"):
        world.run(lambda: False)
