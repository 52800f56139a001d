"""Subscribes to the observation topics of a contract and keeps their newest values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration

from dagger_ros.contract import NEVER_NS, CdrReader, Row, stamp_ns
from dagger_ros.control import NewestStreams
from dagger_ros.nodes.base import ContractNode, message_class

__all__ = ["ObservationInput"]


class ObservationInput:
    """The observations as one node receives them.

    In lockstep they count as received at the tick that closes their set, so that every process sees the same.

    Args:
        node: Subscribes.
        on_message: Called after each message.
        privileged: Whether streams that only the expert may see are read.
        streams: Where to keep the values; None: here.
    """

    def __init__(
        self,
        node: ContractNode,
        on_message: Callable[[], None],
        *,
        privileged: bool = True,
        streams: NewestStreams | None = None,
    ) -> None:
        self._node = node
        self._on_message = on_message
        self._newest = streams or NewestStreams(node.layout)
        self._waiting: list[tuple[int, Any, int]] = []
        self._fresh_topics: set[str] = set()
        contract = node.contract
        self._readers = [CdrReader(s) for s in contract.streams.values()]
        self._latest_ns = [NEVER_NS] * len(self._readers)
        self._wanted = [privileged or not s.privileged for s in contract.streams.values()]
        all_streams = zip(contract.streams.values(), self._wanted, strict=True)
        self._topics = tuple(dict.fromkeys(s.topic for s, wanted in all_streams if wanted))
        # A replay that begins again: what is held is from the future. The handle is kept, or rclpy crashes.
        jump = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda _jump: self._newest.clear(),
        )
        node.at_cleanup(jump.unregister)
        for topic in self._topics:
            indices = [i for i, s in enumerate(contract.streams.values()) if s.topic == topic]
            type_ = next(s.type for s in contract.streams.values() if s.topic == topic)
            node.create_subscription(
                message_class(type_), topic, partial(self._receive, topic, indices), node.qos.sensor, raw=True
            )

    def complete(self, tick: Any) -> bool:
        """Whether all that a SimTick says was published has come."""
        waiting = {index for index, _, _ in self._waiting}
        for index, (published_ns, wanted) in enumerate(zip(tick.stamp_ns, self._wanted, strict=True)):
            if not wanted or published_ns == NEVER_NS:
                continue
            if self._readers[index].has_header:
                if self._latest_ns[index] < published_ns:
                    return False
            # Without a stamp of its own a message is that of this tick if one has come since the last tick.
            elif index not in waiting and (tick.start or self._newest.stamp_ns(index) < published_ns):
                return False
        return True

    def all_fresh(self) -> bool:
        """Whether every topic brought something since the last `fill`."""
        return len(self._fresh_topics) == len(self._topics)

    def any_fresh(self) -> bool:
        """Whether any topic brought something since the last `fill`."""
        return bool(self._fresh_topics)

    def take_tick(self, tick: Any) -> None:
        """In lockstep: takes what came for a tick; at the start of an episode forgets what was there before."""
        if tick.start:
            self.clear()
        time_ns = stamp_ns(tick.header.stamp)
        for index, values, stamp in self._waiting:
            has_header = self._readers[index].has_header
            self._newest.put(index, values, stamp if has_header else tick.stamp_ns[index], time_ns)
        self._waiting.clear()

    def clear(self) -> None:
        """As if nothing had been received: the robot is somewhere else now."""
        self._newest.clear()
        self._fresh_topics.clear()

    def fill(self, row: Row) -> None:
        """Writes the newest values into a row, and what is to be said of how they came."""
        self._newest.fill(row)
        self._fresh_topics.clear()

    def _receive(self, topic: str, indices: list[int], message: bytes) -> None:
        """Takes a serialized message: a Python object of it would cost more than all that is done with it."""
        first = self._readers[indices[0]]
        stamp = first.stamp_ns(message, NEVER_NS if first.has_header else self._node.robot_ns())
        received_ns = NEVER_NS if self._node.lockstep else self._node.monotonic_ns()
        for index in indices:
            reader = self._readers[index]
            if self._node.lockstep:
                values = np.empty(reader.size)
                self._waiting.append((index, values if reader.read(message, values) else None, stamp))
            else:
                self._newest.take(index, reader, message, stamp, received_ns)
            self._latest_ns[index] = max(self._latest_ns[index], stamp)
        self._fresh_topics.add(topic)
        self._on_message()
