"""supervisor: proposals in, the gated command out. The only writer of the command topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from std_srvs.srv import Trigger

from dagger_ros.contract import NEVER_NS, DecisionWriter, ExpertIntent, InterventionReason, Mode, TopicWriter, stamp_ns
from dagger_ros.msg import EpisodeEvent, ExpertAction, GateDecision, PolicyAction, SimTick
from dagger_ros.nodes.base import LEVEL_ERROR, LEVEL_OK, LEVEL_WARN, ContractNode, message_class, new_message, run_node
from dagger_ros.nodes.episode import EpisodeWatch
from dagger_ros.nodes.observations import ObservationInput
from dagger_ros.nodes.qos import EVENT_QOS
from dagger_ros.supervisor import BETAS, RULES, Event, Gate, Reason, make_rule, next_mode

__all__ = ["SupervisorNode", "main"]

# What people may ask for, each by a service of its name.
_SERVICES = (Event.ARM, Event.HOLD, Event.RESUME, Event.ESTOP, Event.RESET_ESTOP)


class SupervisorNode(ContractNode):
    """Decides on a timer of its own, so that silence upstream is a stop downstream; in lockstep at each tick."""

    def __init__(self, parameters: Mapping[str, Any] | None = None, context: Any = None, namespace: str = "") -> None:
        super().__init__("supervisor", parameters, context, namespace)
        rule_name = self.parameter("rule", "hg", f"query and takeover rule: {', '.join(RULES)}")
        beta = self.parameter("beta", "indicator", f"beta schedule of rule dagger: {', '.join(BETAS)}")
        self._round = self.parameter("round", 1, "number of the round; 0: demonstrations")
        auto_arm = self._auto_arm = self.parameter("auto_arm", False, "arm without a person; in simulation only")
        self._wants_policy = self.parameter("wait_for_policy", True, "in lockstep: a tick waits for policy/action")
        self._wants_expert = self.parameter("wait_for_expert", True, "in lockstep: a tick waits for expert/action")
        self._gate = Gate(self.contract, make_rule(rule_name, round_index=self._round, beta=beta), auto_arm=auto_arm)
        self._rows, self._empty = self.layout.new(1), self.layout.new(1)
        self._row = self._rows[0]  # a view
        self._policy: Any = None
        self._expert: Any = None
        self._expert_used = True  # a decision was made with it
        self._received_ns = {"policy": NEVER_NS, "expert": NEVER_NS}
        self._requests: list[Event] = []
        self._tick: Any = None
        self._ticks = 0
        self._episode = EpisodeWatch()
        self._observations = ObservationInput(self, self._on_message)
        action = self.contract.action
        self._command = TopicWriter([action], new_message(action.type, period_ns=self.period_ns))
        self._decision = DecisionWriter(GateDecision(), self._row, self.contract.sha256)
        self._command_publisher = self.create_publisher(message_class(action.type), action.topic, self.qos.command)
        self._decision_publisher = self.create_publisher(GateDecision, "supervisor/decision", self.qos.record)
        self.create_subscription(PolicyAction, "policy/action", self._on_policy, self.qos.command)
        self.create_subscription(ExpertAction, "expert/action", self._on_expert, self.qos.command)
        self.create_subscription(EpisodeEvent, "episode", self._on_episode, EVENT_QOS)
        for event in _SERVICES:
            self.create_service(Trigger, f"~/{event.name.lower()}", partial(self._on_request, event))
        if self.lockstep:
            self.create_subscription(SimTick, "sim/tick", self._on_tick, self.qos.record)
        else:
            self.create_steady_timer(self.period_ns * 1e-9, self._on_timer)

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Who drives and what is objected to."""
        mode = self._gate.mode
        reasons = Reason(int(self._row["reasons"])).words()
        level = {Mode.POLICY: LEVEL_OK, Mode.EXPERT: LEVEL_OK, Mode.ESTOP: LEVEL_ERROR}.get(mode, LEVEL_WARN)
        return level, f"{mode.name}: {reasons or 'nothing to object to'}", {"mode": mode.name, "reasons": reasons}

    def shut_down(self) -> None:
        """Sends the stop, last."""
        self._requests = [Event.HOLD]
        try:
            if not self.lockstep:
                self._on_timer()
        finally:
            self._row["executed_action"] = self._gate.final_stop()
            self._publish_command()

    def _on_policy(self, message: Any) -> None:
        self._policy = message
        self._received_ns["policy"] = self.monotonic_ns()
        self._on_message()

    def _on_expert(self, message: Any) -> None:
        # A hand-back is one message long, and may come between two ticks.
        message.resume |= self._expert is not None and self._expert.resume and not self._expert_used
        self._expert, self._expert_used = message, False
        self._received_ns["expert"] = self.monotonic_ns()
        self._on_message()

    def _on_episode(self, event: Any) -> None:
        if self._episode.started(event) and not self.lockstep:
            if self._auto_arm:
                # In simulation the robot is somewhere else now. A person's arming is kept.
                self._gate.lock()
                self._observations.clear()
                self._policy = self._expert = None
            self._gate.start_episode(max(event.seed, 0))

    def _on_request(self, event: Event, _request: Any, response: Any) -> Any:
        faults = Reason(int(self._row["reasons"])) & Reason.observation_faults()
        if event is Event.ARM and (faults or self._ticks == 0):
            response.success, response.message = False, f"not armed: {faults.words() or 'no tick yet'}"
            return response
        if event is not Event.ARM and next_mode(self._gate.mode, event) is self._gate.mode:
            response.success = False
            response.message = f"{event.name.lower()} changes nothing in {self._gate.mode.name}"
            return response
        self._requests.append(event)
        response.success, response.message = True, f"{event.name.lower()} at the next tick"
        return response

    def _on_tick(self, tick: Any) -> None:
        self._tick = None if tick.done else tick
        self._on_message()

    def _on_message(self) -> None:
        """In lockstep: decides as soon as all that belongs to the tick has come."""
        tick = self._tick
        if tick is None or not self._observations.complete(tick):
            return
        if self._wants_policy and (self._policy is None or self._policy.tick != tick.tick):
            return
        if self._wants_expert and (self._expert is None or self._expert.tick != tick.tick):
            return
        self._tick = None
        self._observations.take_tick(tick)
        time_ns = stamp_ns(tick.header.stamp)
        for source in self._received_ns:
            self._received_ns[source] = time_ns
        if tick.start:
            self._gate.lock()
            self._gate.start_episode(tick.seed)
        self._ticks = tick.tick
        self._decide(time_ns, time_ns)

    def _on_timer(self) -> None:
        self._decide(self.robot_ns(), self.monotonic_ns())

    def _decide(self, time_ns: int, monotonic_ns: int) -> None:
        row = self._row
        self._rows[:] = self._empty
        row["time_ns"], row["monotonic_ns"], row["tick"] = time_ns, monotonic_ns, self._ticks
        row["round"], row["episode"], row["seed"] = self._round, self._episode.episode, self._episode.seed
        self._observations.fill(row)
        if self._policy is not None:
            self._read_policy(row)
        intent = ExpertIntent() if self._expert is None else self._read_expert(row)
        requests, self._requests = self._requests, []
        self._gate.decide(row, intent, requests)
        self._publish_command()
        reasons = Reason(int(row["reasons"]))
        self._decision_publisher.publish(self._decision.fill(row, reasons.words()))
        self._ticks += not self.lockstep

    def _publish_command(self) -> None:
        if np.isfinite(self._row["executed_action"]).all():
            time_ns = int(self._row["time_ns"])
            self._command_publisher.publish(self._command.fill([self._row["executed_action"]], time_ns))

    def _read_policy(self, row: Any) -> None:
        message = self._policy
        self._read_proposal(row, "policy", message, Reason.POLICY_SIZE, Reason.POLICY_CONTRACT)
        row["doubt"], row["policy_round"] = message.doubt, message.round
        row["policy"], row["policy_sha256"] = (
            text.encode("ascii", "replace") for text in (message.policy, message.policy_sha256)
        )

    def _read_expert(self, row: Any) -> ExpertIntent:
        message = self._expert
        self._read_proposal(row, "expert", message, Reason.EXPERT_SIZE, Reason.EXPERT_CONTRACT)
        row["operator_id"] = message.operator_id.encode("ascii", "replace")
        self._expert_used = True
        known = message.reason in InterventionReason.__members__.values()
        reason = InterventionReason(message.reason) if known else InterventionReason.NONE
        return ExpertIntent(message.label, message.takeover, message.resume, reason)

    def _read_proposal(self, row: Any, source: str, message: Any, size: Reason, contract: Reason) -> None:
        row[f"{source}_stamp_ns"] = stamp_ns(message.header.stamp)
        row[f"{source}_receive_ns"] = self._received_ns[source]
        if row[f"{source}_stamp_ns"] == NEVER_NS:
            row[f"{source}_receive_ns"] = NEVER_NS
        values = np.asarray(message.action)
        if values.shape == row[f"{source}_action"].shape:
            row[f"{source}_action"] = values
        else:
            row["reasons"] |= np.uint64(size)
        if message.contract_sha256 != self.contract.sha256:
            row["reasons"] |= np.uint64(contract)


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(SupervisorNode, args)


if __name__ == "__main__":
    main()
