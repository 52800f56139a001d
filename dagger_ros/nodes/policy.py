"""policy: observations in, the policy's proposal out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dagger_ros.contract import (
    NEVER_NS,
    SCORES_OF_POLICY,
    DaggerError,
    Mode,
    RowView,
    mode_of,
    stamp_from_ns,
    stamp_ns,
)
from dagger_ros.control import newest_ns
from dagger_ros.msg import EpisodeEvent, GateDecision, PolicyAction, SimTick
from dagger_ros.nodes.base import LEVEL_OK, LEVEL_WARN, ManagedNode, run_node
from dagger_ros.nodes.episode import EpisodeWatch
from dagger_ros.nodes.images import ImageInput
from dagger_ros.nodes.observations import ObservationInput
from dagger_ros.nodes.parameters import REALTIME, NodeParameter
from dagger_ros.nodes.qos import EVENT_QOS
from dagger_ros.nodes.realtime import Stages
from dagger_ros.policy import Checkpoint, Policy, SeeingPolicy, load_policy
from dagger_ros.policy.outside import FORMS
from dagger_ros.srv import LoadPolicy

__all__ = ["PolicyNode", "main"]

_DRIVEN = (Mode.POLICY, Mode.EXPERT)


class PolicyNode(ManagedNode):
    """Proposes an action whenever every stream brought something new, or at each tick of a lockstep simulation."""

    NODE = "policy"
    PARAMETERS = (
        NodeParameter("policy", "", f"{FORMS}; needed"),
        NodeParameter(
            "shared_images", False, "take pictures from shared memory, where the driver of a camera hands them over too"
        ),
        *REALTIME,
    )

    def configure(self) -> None:
        """Checks contract and policy, and loads it."""
        super().configure()
        source, shared = self.given["policy"], self.given["shared_images"]
        if not source:
            raise DaggerError(f"policy: expected the parameter 'policy' ({FORMS}), got nothing")
        self._row = RowView(self.layout.new(1)[0])
        self._stages = Stages("policy", "publish", "from the last observation")
        self._received_ns = NEVER_NS
        self._observations = ObservationInput(self, self._on_message, privileged=False)
        self._tick: Any = None
        self._proposals = 0
        self._publisher = self.create_publisher(PolicyAction, "policy/action", self.qos.command)
        self._message = PolicyAction(contract_sha256=self.contract.sha256, tick=-1, inference_s=math.nan)
        self._message.action = [0.0] * self.layout.action_size
        self._action = np.asarray(self._message.action)
        about, network = load_policy(source, self.contract, pictures=True)
        self._take(about, network)
        cameras = network.cameras if isinstance(network, SeeingPolicy) else ()
        self._images = ImageInput(self, cameras, shared=shared, on_picture=self._on_message)
        self._blind = ""  # why it cannot act on pictures
        self._mode, self._decided_ns = Mode.LOCKED, NEVER_NS
        self.create_subscription(GateDecision, "supervisor/decision", self._on_decision, self.qos.record, raw=True)
        self.create_service(LoadPolicy, "~/load_policy", self._on_load)
        if self.lockstep:
            self.create_subscription(SimTick, "sim/tick", self._on_tick, self.qos.record)
        else:
            self._episode = EpisodeWatch()
            self.create_subscription(EpisodeEvent, "episode", self._on_episode, EVENT_QOS)
            # A stream slower than the control rate must not hold the others up.
            self.create_steady_timer(self.period_ns * 1e-9, self._on_timer)

    def activate(self) -> None:
        """Proposes from now on."""
        self._network.start_episode()
        if self.lockstep:
            self._on_message()

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Whether it proposes."""
        count, self._proposals = self._proposals, 0
        values = {"policy": self._about.name, "policy_sha256": self._about.weights_sha256, "proposals_per_s": count}
        values |= self._stages.take()
        if count == 0:
            return LEVEL_WARN, f"no proposal in the last second: {self._blind or 'no new observations'}", values
        return LEVEL_OK, f"{self._about.name} proposes", values

    def _take(self, about: Checkpoint, network: Policy) -> None:
        """From now on this one proposes."""
        self._about, self._network = about, network
        self._seeing = network if isinstance(network, SeeingPolicy) else None
        message = self._message
        message.policy, message.policy_sha256, message.round = about.name, about.weights_sha256, about.round

    def _on_decision(self, decision: bytes) -> None:
        self._mode, self._decided_ns = Mode(mode_of(decision)), self.monotonic_ns()
        self.idle = self._mode not in _DRIVEN

    def _on_load(self, request: Any, response: Any) -> Any:
        response.success, response.message = self._load(request.folder)
        self.get_logger().info(f"load_policy: success={response.success} {response.message}")
        return response

    def _load(self, folder: str) -> tuple[bool, str]:
        """Takes another policy while the robot is held; whoever resumes before it is there is held by its hash."""
        age_ns = self.monotonic_ns() - self._decided_ns
        if self._decided_ns == NEVER_NS or age_ns > self.contract.timing.policy_max_age_s * 1e9:
            return False, "not loaded: the supervisor is not heard, so nobody can say that the robot is held"
        if self._mode in _DRIVEN:
            return False, f"not loaded: {self._mode.name} drives; hold the robot first (supervisor/hold)"
        try:
            self._take(*load_policy(folder, self.contract, run_code=False))
        except DaggerError as error:
            return False, f"not loaded, {self._about.name} stays: {error}"
        return True, f"{self._about.name} ({self._about.weights_sha256[:12]}) proposes now"

    def _on_episode(self, event: Any) -> None:
        if self._episode.started(event):
            self._network.start_episode()

    def _on_tick(self, tick: Any) -> None:
        self._tick = None if tick.done else tick
        if tick.start:
            self._network.start_episode()
        self._on_message()

    def _on_message(self) -> None:
        if not self.active:
            return
        if not self.lockstep:
            self._received_ns = self.monotonic_ns()
            if self._observations.all_fresh():
                self._propose(self.robot_ns())
            return
        tick = self._tick
        if tick is not None and self._observations.complete(tick) and self._images.complete(tick):
            self._tick = None
            self._observations.take_tick(tick)
            self._message.tick = tick.tick
            self._propose(stamp_ns(tick.header.stamp))

    def _on_timer(self) -> None:
        if self.active and self._observations.any_fresh():
            self._propose(self.robot_ns())

    def _propose(self, now_ns: int) -> None:
        """Publishes what the policy says; nothing where it lacks a picture, so that the supervisor holds."""
        if self._seeing is not None:
            self._blind = self._images.show(self._seeing.see, now_ns)
            if self._blind:
                return
        self._observations.fill(self._row)
        newest = newest_ns(self._row, self.layout.seen_by_policy)
        started_ns = self.monotonic_ns()
        scores = self._network.act(self._row.observation, self._action, newest)
        acted_ns = self.monotonic_ns()
        if self._seeing is not None and not self._images.still_valid():
            self._blind = "pictures were overwritten while the policy looked at them"
            return
        for name in SCORES_OF_POLICY:
            setattr(self._message, name, getattr(scores, name))
        if not self.lockstep:  # where a round is the same bytes each time
            self._message.inference_s = (acted_ns - started_ns) * 1e-9
        stamp_from_ns(self._message.header.stamp, newest)
        self._publisher.publish(self._message)
        sent_ns = self.monotonic_ns()
        self._stages.note(acted_ns - started_ns, sent_ns - acted_ns, sent_ns - self._received_ns)
        self._message.sequence += 1
        self._proposals += 1


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(PolicyNode, args)


if __name__ == "__main__":
    main()
