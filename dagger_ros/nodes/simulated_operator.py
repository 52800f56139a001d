"""simulated_operator: observations and decisions in, `sensor_msgs/Joy` out: a person at a pad, for simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import Joy

from dagger_ros.contract import DaggerError, Mode, read_decision, stamp_from_ns
from dagger_ros.expert import PadHands
from dagger_ros.msg import EpisodeEvent, GateDecision
from dagger_ros.nodes.base import LEVEL_OK, LEVEL_WARN, ContractNode, run_node
from dagger_ros.nodes.episode import EpisodeWatch
from dagger_ros.nodes.joy_input import mapped_pad
from dagger_ros.nodes.observations import ObservationInput
from dagger_ros.nodes.parameters import NodeParameter
from dagger_ros.nodes.qos import ACT_QOS, EVENT_QOS
from dagger_ros.sim.experts import make_operator

__all__ = ["SimulatedOperatorNode", "main"]


class SimulatedOperatorNode(ContractNode):
    """Arms, watches, takes over, corrects, gives back: with what a person has for it, and with a person's delays.

    Everything behind the pad is the same as with a person: `expert_label` with `expert: joystick`.
    """

    NODE = "simulated_operator"
    PARAMETERS = (NodeParameter("pad", "xbox", "a YAML file, or the name of one in config/joysticks"),)

    def configure(self) -> None:
        """Checks contract and pad."""
        super().configure()
        pad = self.given["pad"]
        if self.lockstep:
            raise DaggerError("simulated_operator: expected lockstep false, since Joy comes in real time; got true")
        self._operator = make_operator(self.contract)
        self._hands = PadHands(*mapped_pad(self.contract, self.contract_path, pad), self.contract)
        self._row, self._previous = self.layout.new(2)
        self._has_previous = False
        self._wanted = np.empty(self.layout.action_size)
        self._episode = EpisodeWatch()
        self._takes = False
        self._observations = ObservationInput(self, lambda: None)
        self._publisher = self.create_publisher(Joy, "joy", ACT_QOS)
        self.create_subscription(GateDecision, "supervisor/decision", self._on_decision, self.qos.record)
        self.create_subscription(EpisodeEvent, "episode", self._on_episode, EVENT_QOS)
        self.create_steady_timer(self.period_ns * 1e-9, self._on_timer)

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """What the operator does."""
        if not self._has_previous:
            return LEVEL_WARN, "waits for decisions of the supervisor", {}
        return LEVEL_OK, "has the deadman pressed" if self._takes else "watches", {}

    def _on_decision(self, decision: Any) -> None:
        self._has_previous = read_decision(decision, self._previous)

    def _on_episode(self, event: Any) -> None:
        if self._episode.started(event):
            self._operator.start_episode(max(event.seed, 0))
            self._hands.start_episode(max(event.seed, 0))

    def _on_timer(self) -> None:
        self._observations.fill(self._row)
        previous = self._previous if self._has_previous else None
        wish = self._operator.label(self._row, previous, self._wanted)
        self._takes = wish.takeover
        self._hands.let_go()
        if previous is not None and Mode(previous["mode"]) is Mode.LOCKED:
            self._hands.tap("arm")
        elif wish.takeover and np.isfinite(self._wanted).all():
            self._hands.press("deadman")
            self._hands.push(self._wanted)
        elif wish.resume:
            self._hands.tap("resume")
        message = Joy(axes=self._hands.axes, buttons=self._hands.buttons)
        stamp_from_ns(message.header.stamp, self.robot_ns())
        self._publisher.publish(message)


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(SimulatedOperatorNode, args)


if __name__ == "__main__":
    main()
