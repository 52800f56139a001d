"""What comes in of each topic: when last, how often, and how many messages were lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dagger_ros.contract import NEVER_NS

__all__ = ["Traffic"]

# Less of a stream than this share of its rate is slow.
_LEAST_RATE = 0.8


class Traffic:
    """Counts the messages of a node's subscriptions. Times are on the clock that never jumps, ns.

    Args:
        topics: That are listened to.
        needed: Those of them that must come: expected rate in Hz, and largest age in s.

    Attributes:
        lost: Messages that were published and never came, by topic, since `begin`. The middleware numbers the messages
            of each writer, so it counts what was lost on the wire and what was overwritten in a full queue alike, at
            the next message of that writer. Its own event for lost messages leaves out the latter. Before ROS 2 Iron
            there are no numbers, and nothing is counted.
    """

    def __init__(self, topics: Iterable[str], needed: Mapping[str, tuple[float, float]]) -> None:
        self._needed = needed
        self._counts = dict.fromkeys(topics, 0)
        self._heard_ns = dict.fromkeys(needed, NEVER_NS)
        self._numbers: dict[tuple[str, bytes], int] = {}
        self._measured: tuple[int, dict[str, int]] | None = None
        self.lost = dict.fromkeys(self._counts, 0)

    def take(self, topic: str, now_ns: int, info: Mapping[str, Any]) -> None:
        """Takes that a message came, and what rclpy says of it."""
        self._counts[topic] += 1
        if topic in self._heard_ns:
            self._heard_ns[topic] = now_ns
        number = info.get("publication_sequence_number")
        if number is None:
            return
        writer = (topic, info["publisher_gid"]["data"])
        last = self._numbers.get(writer, number - 1)
        self.lost[topic] += max(0, number - last - 1)
        self._numbers[writer] = max(number, last)

    def begin(self) -> None:
        """Begins to count what is lost, and to measure rates, anew."""
        self.lost = dict.fromkeys(self.lost, 0)
        self._measured = None

    def missing(self, now_ns: int) -> list[str]:
        """In words: what must come and did not, or is too old."""
        words = []
        for topic, (_, max_age_s) in self._needed.items():
            heard_ns = self._heard_ns[topic]
            age_s = (now_ns - heard_ns) * 1e-9
            if heard_ns == NEVER_NS:
                words.append(f"{topic} was never received")
            elif age_s > max_age_s:
                words.append(f"{topic} was received {age_s:.2f} s ago, at most {max_age_s:g} s are allowed")
        return words

    def measure(self, now_ns: int) -> tuple[dict[str, float], list[str]]:
        """How often each topic came since the last call or `begin`.

        Returns:
            Rates in Hz by topic, and in words which are too low; nothing at the first call.
        """
        before, self._measured = self._measured, (now_ns, dict(self._counts))
        if before is None or now_ns <= before[0]:
            return {}, []
        seconds = (now_ns - before[0]) * 1e-9
        rates_hz = {topic: (count - before[1][topic]) / seconds for topic, count in self._counts.items()}
        words = [
            f"{topic} comes at {rates_hz[topic]:.1f} Hz, expected {rate_hz:g} Hz"
            for topic, (rate_hz, _) in self._needed.items()
            if rates_hz[topic] < _LEAST_RATE * rate_hz - 1 / seconds  # one may come right behind
        ]
        return rates_hz, words
