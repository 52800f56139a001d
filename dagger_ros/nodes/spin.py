"""Takes what has arrived for a node and runs its callbacks: by polling, or by a wait set of its own.

rclpy's executor makes everything anew for each callback: lists, a wait set, a task. What a node mostly does is to take
a message, so `Loop` waits for the node's messages and timers with one wait set that is kept, runs their callbacks
itself, and leaves the rest (services, events of the middleware) to the executor, which it asks when there is some.
`benchmarks/loop_latency.py` measures both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation

from dagger_ros.nodes.realtime import Ticker

__all__ = ["Loop", "poll"]

# How long a signal may wait for the end of a wait that nothing ends.
_LONGEST_WAIT_NS = 100_000_000
# How often events of the middleware are asked for, such as a publisher whose quality of service does not fit.
_EVENTS_NS = 1_000_000_000
# Waking up from a wait set takes longer than from a sleep, so the last part of the way to a deadline is slept. Measured
# on a busy machine: 75 against 45 us at p50. Messages that come meanwhile are taken at the deadline.
_SLEPT_NS = 150_000
_NS = 1e-9


def poll(subscriptions: Iterable[Any]) -> int:
    """Runs the callback of at most one message of each subscription, in their order.

    Publishing to a reader in the same process hands the message over before `publish` returns, so a graph in one
    process can be run by polling its nodes in turn: about 25 us a message, where an executor takes 370.

    Args:
        subscriptions: Of an rclpy node, as `list(node.subscriptions)` gives them.

    Returns:
        How many messages there were; 0: nothing waits.
    """
    return sum(_take(subscription) for subscription in subscriptions)


def _take(subscription: Any) -> bool:
    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    if taken is None:
        return False
    # As rclpy's executors do.
    informed = subscription._callback_type is subscription.CallbackType.WithMessageInfo
    subscription.callback(*(taken if informed else taken[:1]))
    return True


class Loop:
    """Runs one node. All callbacks run in this thread, one after the other.

    What it gets later is noticed within a second.

    Args:
        node: Its `ticker`, if it has one, gives the deadlines. It counts in `changes` what it has lost too.
    """

    def __init__(self, node: Any) -> None:
        self._node, self._context = node, node.context
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._events_ns = time.monotonic_ns()
        self._gather()

    def run(self, stop: Callable[[], bool]) -> None:
        """Runs until it is told to stop, which it looks at every 0.1 s at least, or the context is shut down."""
        while self._context.ok() and not stop():
            if self._changes != self._node.changes:
                self._gather()
            now_ns, ticker = time.monotonic_ns(), self._node.ticker
            left_ns = _LONGEST_WAIT_NS
            if ticker is not None:
                left_ns = ticker.left_ns(now_ns)
                if left_ns <= _SLEPT_NS:
                    self._tick(ticker, left_ns)
                    continue
                left_ns = min(left_ns - _SLEPT_NS, _LONGEST_WAIT_NS)
            if now_ns >= self._events_ns:
                self._events_ns = now_ns + _EVENTS_NS
                self._executor.spin_once(timeout_sec=0.0)
                self._gather()
                continue
            self._wait(left_ns)

    def close(self) -> None:
        """Ends the executor."""
        self._executor.shutdown()

    def _gather(self) -> None:
        """Takes what the node has now."""
        node = self._node
        self._changes = node.changes
        self._subscriptions, self._timers = list(node.subscriptions), list(node.timers)
        clients, services = list(node.clients), list(node.services)
        self._by_pointer = {subscription.handle.pointer: subscription for subscription in self._subscriptions}
        counts = len(self._subscriptions), 0, len(self._timers), len(clients), len(services), 0
        self._wait_set = wait_set = rclpy_implementation.WaitSet(*counts, self._context.handle)
        self._add: list[tuple[Callable[[Any], object], Any]] = [
            *((wait_set.add_subscription, subscription.handle) for subscription in self._subscriptions),
            *((wait_set.add_timer, timer.handle) for timer in self._timers),
            *((wait_set.add_client, client.handle) for client in clients),
            *((wait_set.add_service, service.handle) for service in services),
        ]

    def _tick(self, ticker: Ticker, left_ns: int) -> None:
        if left_ns > 0:
            time.sleep(left_ns * _NS)
        poll(self._subscriptions)  # the newest of what came meanwhile; there may be a tick for it
        if ticker.left_ns(time.monotonic_ns()) <= 0:
            ticker.tick()

    def _wait(self, longest_ns: int) -> None:
        wait_set = self._wait_set
        wait_set.clear_entities()
        for add, handle in self._add:
            add(handle)
        wait_set.wait(longest_ns)
        ready = wait_set.get_ready_entities("subscription")
        for pointer in ready:
            _take(self._by_pointer[pointer])
        for timer in self._timers:
            if timer.handle.is_timer_ready():
                timer.handle.call_timer()
                timer.callback()
        if ready:
            poll(self._subscriptions)  # what came close behind costs less so than by another wait
        if wait_set.get_ready_entities("service") or wait_set.get_ready_entities("client"):
            self._executor.spin_once(timeout_sec=0.0)
