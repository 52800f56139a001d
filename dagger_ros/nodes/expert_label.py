"""expert_label: observations in, the expert's action and intent out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, DaggerError, ExpertIntent, Mode, read_decision, stamp_from_ns, stamp_ns
from dagger_ros.control import newest_ns
from dagger_ros.expert import Labeller
from dagger_ros.msg import EpisodeEvent, ExpertAction, GateDecision, SimTick
from dagger_ros.nodes.base import LEVEL_OK, LEVEL_WARN, ManagedNode, run_node
from dagger_ros.nodes.episode import EpisodeWatch
from dagger_ros.nodes.joy_input import LABELS, JoyInput
from dagger_ros.nodes.observations import ObservationInput
from dagger_ros.nodes.parameters import NodeParameter
from dagger_ros.nodes.qos import EVENT_QOS
from dagger_ros.sim.experts import LABELLERS, make_labeller

__all__ = ["ExpertLabelNode", "main"]

JOYSTICK = "joystick"


class ExpertLabelNode(ManagedNode):
    """Labels whenever every stream brought something new, or at each tick of a lockstep simulation.

    With a joystick it labels at each control period, and at once when the deadman is pressed or let go.
    """

    NODE = "expert_label"
    PARAMETERS = (
        NodeParameter("expert", "scripted", "who labels", choices=(*LABELLERS, JOYSTICK)),
        NodeParameter("pad", "xbox", "with joystick: a YAML file, or the name of one in config/joysticks"),
        NodeParameter("operator_id", "", "with joystick: who holds the pad; needed, stands on every label"),
        NodeParameter(
            "labels",
            "takeover",
            "with joystick: the deadman takes control, or only says that the sticks are labels",
            choices=LABELS,
        ),
        NodeParameter(
            "horizon",
            1,
            "with joystick: ticks that the policy learns at once; a shorter correction is warned of",
            unit="ticks",
            least=1,
        ),
    )

    def configure(self) -> None:
        """Checks contract, expert and pad."""
        super().configure()
        kind = self.given["expert"]
        given = {name: self.given[name] for name in ("pad", "operator_id", "labels", "horizon")}
        if kind == JOYSTICK and self.lockstep:
            raise DaggerError("expert joystick: expected lockstep false, since a person lives in real time; got true")
        self._joy = JoyInput(self, self._label, **given) if kind == JOYSTICK else None
        self._labeller: Labeller = self._joy.labeller if self._joy else make_labeller(kind, self.contract)
        # A person sees the robot, and no stream of the simulation's.
        self._seen = self.layout.seen_by_policy if self._joy else self.layout.seen_by_expert
        self._row, self._previous = self.layout.new(2)
        self._has_previous, self._decided_ns = False, NEVER_NS
        self._observations = ObservationInput(self, self._on_message, privileged=self._joy is None)
        self._tick: Any = None
        self._tick_ns = 0
        self._labels = 0
        self._episode = EpisodeWatch()
        self._intent = ExpertIntent()
        self._publisher = self.create_publisher(ExpertAction, "expert/action", self.qos.command)
        self._message = ExpertAction(
            contract_sha256=self.contract.sha256, operator_id=self._labeller.operator_id, tick=-1
        )
        self._message.action = [0.0] * self.layout.action_size
        self._action = np.asarray(self._message.action)
        self.create_subscription(GateDecision, "supervisor/decision", self._on_decision, self.qos.record)
        if self.lockstep:
            self.create_subscription(SimTick, "sim/tick", self._on_tick, self.qos.record)
        else:
            self.create_subscription(EpisodeEvent, "episode", self._on_episode, EVENT_QOS)
            self.create_steady_timer(self.period_ns * 1e-9, self._on_timer)

    def activate(self) -> None:
        """Labels from now on."""
        if self.lockstep:
            self._on_message()

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Whether it labels, and whether the expert has control."""
        count, self._labels = self._labels, 0
        values: dict[str, object] = {"operator_id": self._labeller.operator_id, "actions_per_s": count}
        if self._joy is not None:
            values |= self._joy.values()
            if problem := self._joy.problem():
                return LEVEL_WARN, problem, values
        if count == 0:
            return LEVEL_WARN, "no action in the last second: no new observations", values
        if self._has_previous and self._supervisor_is_heard() and self._previous["mode"] == Mode.EXPERT:
            return LEVEL_OK, "the expert has control", values
        return LEVEL_OK, "the expert wants control" if self._intent.takeover else "the expert watches", values

    def _on_tick(self, tick: Any) -> None:
        self._tick = None if tick.done else tick
        if tick.start:
            self._start_episode(tick.seed)
        self._on_message()

    def _on_episode(self, event: Any) -> None:
        if self._episode.started(event):
            self._start_episode(event.seed)

    def _start_episode(self, seed: int) -> None:
        # What was last sent still is where a pad's rate and relative axes start from.
        self._has_previous = self._has_previous and self._joy is not None
        self._labeller.start_episode(max(seed, 0))

    def _on_decision(self, decision: Any) -> None:
        self._has_previous, self._decided_ns = read_decision(decision, self._previous), self.monotonic_ns()
        if self._joy is not None and self._has_previous:
            self._joy.count(self._previous)
        self._on_message()

    def _on_message(self) -> None:
        if not self.active:
            return
        if not self.lockstep:
            if self._observations.all_fresh() and self._joy is None:
                self._label()
            return
        tick = self._tick
        if tick is None or not self._observations.complete(tick):
            return
        # What the operator does depends on the tick before: wait for its decision.
        if not tick.start and not (self._has_previous and int(self._previous["tick"]) == tick.tick - 1):
            return
        self._tick = None
        self._has_previous = self._has_previous and not tick.start
        self._observations.take_tick(tick)
        self._message.tick, self._tick_ns = tick.tick, stamp_ns(tick.header.stamp)
        self._label()

    def _on_timer(self) -> None:
        if self.active and (self._joy is not None or self._observations.any_fresh()):
            self._label()

    def _supervisor_is_heard(self) -> bool:
        """Whether what was sent last is known; in lockstep a tick is not labelled before."""
        age_ns = self.monotonic_ns() - self._decided_ns
        return self.lockstep or age_ns <= self.contract.timing.expert_max_age_s * 1e9

    def _label(self) -> None:
        self._observations.fill(self._row)
        # In lockstep the pad of a simulated operator lives in the time of the simulation.
        self._row["monotonic_ns"] = self._tick_ns if self.lockstep else self.monotonic_ns()
        previous = self._previous if self._has_previous and self._supervisor_is_heard() else None
        self._intent = intent = self._labeller.label(self._row, previous, self._action)
        message = self._message
        message.label, message.takeover, message.resume = intent.label, intent.takeover, intent.resume
        message.reason, message.unattended = int(intent.reason), intent.unattended
        stamp_from_ns(message.header.stamp, newest_ns(self._row, self._seen))
        self._publisher.publish(message)
        message.sequence += 1
        self._labels += 1
        if self._joy is not None:
            self._joy.follow()


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(ExpertLabelNode, args)


if __name__ == "__main__":
    main()
