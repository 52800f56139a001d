"""The quality of service of every topic.

On a robot a late value is useless: observations are best effort and commands have a depth of one. In lockstep the
simulation waits for every message, so there each topic is reliable and kept for whoever joins late: otherwise a
graph of several processes could lose its first tick and stand still.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

__all__ = ["ACT_QOS", "EVENT_QOS", "GraphQos"]


def _profile(depth: int, *, reliable: bool, kept: bool) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
    )


EVENT_QOS = _profile(1, reliable=True, kept=True)
# What a hand does: nothing is to be missed, and nothing to be repeated to who joins late.
ACT_QOS = _profile(10, reliable=True, kept=False)
# So long the queues of a recorder last.
_WAIT_S = 2.0


@dataclass(frozen=True)
class GraphQos:
    """The profiles of one graph.

    Args:
        lockstep: Whether the graph is run by the ticks of the simulation.
    """

    lockstep: bool

    @property
    def sensor(self) -> QoSProfile:
        """For reading observations."""
        return _profile(10, reliable=self.lockstep, kept=self.lockstep)

    def recorded_sensor(self, rate_hz: float) -> QoSProfile:
        """For recording observations that come at a rate: nothing is to be missed while the disk makes one wait."""
        return _profile(max(10, math.ceil(_WAIT_S * rate_hz)), reliable=self.lockstep, kept=self.lockstep)

    @property
    def sensor_writer(self) -> QoSProfile:
        """For writing observations: reliable, which serves readers of both kinds."""
        return _profile(10, reliable=True, kept=self.lockstep)

    @property
    def command(self) -> QoSProfile:
        """For proposals and commands. One in flight: an older one is worth nothing once a newer one is there."""
        return _profile(1, reliable=True, kept=self.lockstep)

    @property
    def record(self) -> QoSProfile:
        """For what every tick counts of: deep enough for 10 s of ticks at 100 Hz."""
        return _profile(1000, reliable=True, kept=self.lockstep)
