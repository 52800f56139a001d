"""supervisor: proposals in, the gated command out. The only writer of the command topic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from rclpy.duration import Duration
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from dagger_ros.contract import NEVER_NS, Act, DaggerError, DecisionWriter, Mode, RowView, Scores, stamp_ns
from dagger_ros.control import Inbox
from dagger_ros.msg import (
    EpisodeEvent,
    ExpertAction,
    GateDecision,
    HelpRequest,
    OperatorAct,
    PolicyAction,
    SimTick,
)
from dagger_ros.msg import GateSettings as GateSettingsMessage
from dagger_ros.nodes.base import (
    LEVEL_ERROR,
    LEVEL_OK,
    LEVEL_WARN,
    ManagedNode,
    message_class,
    message_writer,
    new_message,
    run_node,
)
from dagger_ros.nodes.episode import EpisodeWatch
from dagger_ros.nodes.observations import ObservationInput
from dagger_ros.nodes.parameters import REALTIME, NodeParameter
from dagger_ros.nodes.qos import ACT_QOS, EVENT_QOS
from dagger_ros.nodes.realtime import Stages
from dagger_ros.policy import load_checkpoint
from dagger_ros.supervisor import (
    BETAS,
    ROBOT_GATED,
    RULES,
    Event,
    GateSettings,
    Limits,
    Reason,
    Response,
    RuleOptions,
    help_words,
    next_mode,
    response_bits,
)
from dagger_ros.supervisor.limits import finite

__all__ = ["SupervisorNode", "main"]

# What people may ask for, each by a service of its name.
_SERVICES = (Event.ARM, Event.HOLD, Event.RESUME, Event.ESTOP, Event.RESET_ESTOP)
# The same by a button of the pad.
_ACTS = {Act.ARM: Event.ARM, Act.HOLD: Event.HOLD, Act.RESUME: Event.RESUME}
_DRIVEN = (Mode.POLICY, Mode.EXPERT)
_LIMITED = response_bits(Response.LIMIT)
_MISSED = int(Reason.MISSED_TICKS)
_LOCK, _ESTOP = Reason(response_bits(Response.LOCK)), Reason(response_bits(Response.ESTOP))
# A robot that is told to end ramps down first, if that takes no longer than this; launch kills after 5 s.
_LONGEST_STOP_S = 2.0
# How long the driver may take to say that it has the stop; a driver that is gone says nothing.
_LONGEST_ACK_S = 0.5


class SupervisorNode(ManagedNode):
    """Decides on a timer of its own, so that silence upstream is a stop downstream; in lockstep at each tick."""

    NODE = "supervisor"
    PARAMETERS = (
        NodeParameter("rule", "hg", "query and takeover rule", choices=tuple(RULES)),
        NodeParameter("beta", "indicator", "beta schedule of rule dagger", choices=tuple(BETAS)),
        NodeParameter("round", 1, "number of the round; 0: demonstrations", least=0),
        NodeParameter("auto_arm", False, "arm without a person; in simulation only"),
        NodeParameter("needs_policy", True, "in lockstep: a tick waits for policy/action"),
        NodeParameter(
            "needs_expert",
            True,
            "the policy drives only while expert/action comes; in lockstep: a tick waits for it",
        ),
        NodeParameter(
            "doubt_limit",
            math.inf,
            "largest doubt with which the policy may drive",
            unit="half bound ranges",
            least=0.0,
        ),
        NodeParameter("policy_sha256", "", "SHA-256 of the only weights that may drive; empty: any"),
        NodeParameter(
            "budget",
            0.01,
            "rule thrifty: share of the policy's ticks at which it may ask for help",
            least=0.0,
            most=1.0,
        ),
        NodeParameter(
            "expert_noise",
            0.0,
            "rule lazy, in simulation: standard deviation of noise on what the expert executes",
            unit="half bound ranges",
            least=0.0,
        ),
        NodeParameter(
            "policy",
            "",
            "rules that ask for help: folder of the checkpoint with their limits; only its weights drive",
        ),
        NodeParameter(
            "decide_on_arrival",
            True,
            "decide as soon as the driver's proposal comes, up to a quarter of a period early",
        ),
        *REALTIME,
    )

    def configure(self) -> None:
        """Checks contract, policy and limits, and makes the gate; it is LOCKED."""
        super().configure()
        given = self.given
        rule_name, sha256, policy = given["rule"], given["policy_sha256"], given["policy"]
        self._round, self._auto_arm = given["round"], given["auto_arm"]
        self._needs_policy, self._needs_expert = given["needs_policy"], given["needs_expert"]
        self._decides_on_arrival = given["decide_on_arrival"]
        options, limits = RuleOptions(given["beta"], given["budget"], given["expert_noise"]), None
        if rule_name in ROBOT_GATED and self._round > 0:
            if not policy:
                raise DaggerError(
                    f"rule {rule_name}: expected the parameter 'policy' (folder of a checkpoint), got nothing"
                )
            about, _ = load_checkpoint(policy, self.contract)
            limits = Limits.fitted(rule_name, about.limits)
            if sha256 not in ("", about.weights_sha256):
                raise DaggerError(
                    f"policy_sha256: expected that of the policy whose limits are used, {about.weights_sha256[:12]}, "
                    f"or nothing; got {sha256[:12]}"
                )
            sha256 = about.weights_sha256
        settings = GateSettings(
            rule=rule_name,
            round=self._round,
            options=options,
            back_ticks=limits.back_ticks if limits else 1,
            auto_arm=self._auto_arm,
            needs_expert=self._needs_expert,
            doubt_limit=given["doubt_limit"],
            policy_sha256=sha256,
        )
        self._gate = settings.make_gate(self.contract, limits)
        self._row, self._empty = RowView(self.layout.new(1)[0]), self.layout.new(1).tobytes()
        self._times = self.layout.numbers("time_ns", "monotonic_ns", "tick")
        self._reasons_of = self.layout.numbers("reasons")
        self._took = self.layout.numbers("late_s", "gate_s", "command_s")
        self._said_bits, self._said_words = 0, ""
        self._stages = Stages("late", "gate", "command", "decision", "tick")
        self._inbox = Inbox(self.layout)
        self._tick: Any = None
        self._ticks = 0
        self._missed_ticks = self._limited_ticks = self._told_ticks = 0
        self._episode = EpisodeWatch()
        self._observations = ObservationInput(self, self._on_message, streams=self._inbox.streams)
        action = self.contract.action
        self._command = message_writer([action], new_message(action.type, period_ns=self.period_ns))
        self._decision = DecisionWriter(GateDecision(), self._row, self.contract.sha256)
        self._command_publisher = self.create_publisher(message_class(action.type), action.topic, self.qos.command)
        self._command_topic = self._command_publisher.topic_name
        self._decision_publisher = self.create_publisher(GateDecision, "supervisor/decision", self.qos.record)
        self._help = HelpRequest(rule=self._gate.rule.name, answer_s=self.contract.timing.help_answer_s or 0.0)
        self._help_publisher = self.create_publisher(HelpRequest, "supervisor/help", EVENT_QOS)
        self._settings = GateSettingsMessage(contract_sha256=self.contract.sha256)
        settings.write(self._settings)
        self._settings_publisher = self.create_publisher(GateSettingsMessage, "supervisor/settings", EVENT_QOS)
        self.create_subscription(PolicyAction, "policy/action", self._on_policy, self.qos.command)
        self.create_subscription(ExpertAction, "expert/action", self._on_expert, self.qos.command)
        self.create_subscription(Bool, "estop", self._on_estop, self.qos.command)
        self.create_subscription(EpisodeEvent, "episode", self._on_episode, EVENT_QOS)
        self.create_subscription(OperatorAct, "expert/act", self._on_act, ACT_QOS)
        for event in _SERVICES:
            self.create_service(Trigger, f"~/{event.name.lower()}", partial(self._on_request, event))
        if self.lockstep:
            self.create_subscription(SimTick, "sim/tick", self._on_tick, self.qos.record)

    def activate(self) -> None:
        """Decides from now on: LOCKED, until somebody arms."""
        if self.lockstep:
            self._on_message()
        else:
            self._say_settings()
            self.tick_at_control_rate(self._on_period)

    def deactivate(self) -> None:
        """Ramps down, sends the stop last, and is LOCKED when it is activated again."""
        try:
            self._ramp_down()
        finally:
            self._row["executed_action"] = self._gate.final_stop()
            self._publish_command()
            # What was only published may be lost with the process that ends.
            self._command_publisher.wait_for_all_acked(Duration(nanoseconds=round(_LONGEST_ACK_S * 1e9)))
            self.stop_ticking()
            self._inbox.request(Event.LOCK)
            self._inbox.clear()
            self._ticks = 0

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Who drives and what is objected to, in words; the age of every stream."""
        mode, reasons, ticks = self._gate.mode, self._reasons(), self._ticks - self._told_ticks
        levels = {Mode.POLICY: LEVEL_OK, Mode.EXPERT: LEVEL_OK, Mode.ESTOP: LEVEL_ERROR}
        values = {
            "mode": mode.name,
            "reasons": reasons.words(),
            "missed_ticks": self._missed_ticks,
            "limited_ticks": f"{self._limited_ticks} of {ticks}",
            **self._stages.take(),
            **{f"age of {name}": age for name, age in self._ages()},
        }
        self._limited_ticks, self._told_ticks = 0, self._ticks
        words = f"{mode.name}: {reasons.sentences() or 'nothing to object to'}"
        if self._help.asked:
            words += f"; asks for help: {self._help.reason}"
        return levels.get(mode, LEVEL_WARN), words, values

    def _ramp_down(self) -> None:
        self._inbox.request(Event.HOLD)
        if self.ticker is None:
            return
        self.ticker.tick()
        for _ in range(int(_LONGEST_STOP_S * 1e9 / self.period_ns)):
            if self._gate.at_rest:
                break
            self.steady.sleep_for(Duration(nanoseconds=self.period_ns), self.context)
            self.ticker.tick()

    def _reasons(self) -> Reason:
        return Reason(int(self._row["reasons"]))

    def _ages(self) -> Iterator[tuple[str, str]]:
        """Every stream that the policy sees, and how old it was at the last tick."""
        now_ns = int(self._row["monotonic_ns"])
        limits = [stream.max_age_s for stream in self.contract.streams.values()]
        for i in np.flatnonzero(self.layout.seen_by_policy):
            receive_ns = int(self._row["receive_ns"][i])
            age = "never received" if receive_ns == NEVER_NS else f"{(now_ns - receive_ns) * 1e-9:.3f} s"
            yield self.layout.streams[i], f"{age} (limit {limits[i]:g} s)"

    def _on_policy(self, message: Any) -> None:
        self._on_proposal(Mode.POLICY, self._inbox.put_policy, message)

    def _on_expert(self, message: Any) -> None:
        self._on_proposal(Mode.EXPERT, self._inbox.put_expert, message)

    def _on_proposal(self, source: Mode, put: Callable[[Any, int], bool], message: Any) -> None:
        now_ns = self.monotonic_ns()
        counts = put(message, now_ns)
        if self.lockstep:
            self._on_message()
        elif counts and self.ticker is not None and self._decides_on_arrival and self._gate.mode is source:
            self.ticker.arrive(now_ns)

    def _on_estop(self, message: Any) -> None:
        self._inbox.put_estop(message.data, self.monotonic_ns())

    def _on_act(self, message: Any) -> None:
        if message.act == Act.ESTOP:  # also of a pad whose buttons mean something else under another contract
            self._inbox.put_estop_act(self.monotonic_ns())
        event = _ACTS.get(message.act)
        if event is None or message.contract_sha256 != self.contract.sha256 or not self.active:
            return
        age_s = (self.robot_ns() - stamp_ns(message.header.stamp)) * 1e-9
        if event is not Event.HOLD and abs(age_s) > self.contract.timing.expert_max_age_s:
            self.get_logger().warning(f"{event.name.lower()} of the pad left out: it is {age_s:.2f} s old")
            return
        self._inbox.request(event)

    def _on_episode(self, event: Any) -> None:
        if self.lockstep:
            self._episode.started(event)
            return
        is_recorded = event.event == EpisodeEvent.STARTED
        self._inbox.put_recorder(is_recorded, self.monotonic_ns())
        if is_recorded:
            self._say_settings()  # each time: a bag that begins later must have them too
        was_recorded = self._episode.episode >= 0
        if self._episode.started(event):
            if self._auto_arm:
                # In simulation the robot is somewhere else now. A person's arming is kept.
                self._inbox.request(Event.LOCK)
                self._inbox.clear()
            self._gate.start_episode(max(event.seed, 0))
        elif was_recorded and self._episode.episode < 0 and not self._auto_arm:
            self._inbox.request(Event.HOLD)  # the episode is over, and so is what was to be done

    def _on_request(self, event: Event, _request: Any, response: Any) -> Any:
        response.success, response.message = self._answer(event)
        if response.success:
            self._inbox.request(event)
        return response

    def _answer(self, event: Event) -> tuple[bool, str]:
        """Whether a request will be followed, and why not."""
        mode, reasons, name = self._gate.mode, self._reasons(), event.name.lower()
        if not self.active:
            return False, f"no {name}: the supervisor is {self.state}"
        if event is Event.ARM and (reasons & _LOCK or self._ticks == 0):
            words = (reasons & _LOCK).sentences() or "no tick yet"
            return False, f"not armed: {words} [{', '.join(f'{n}: {age}' for n, age in self._ages())}]"
        if event is Event.RESET_ESTOP and reasons & _ESTOP:
            return False, f"not reset, the cause persists: {(reasons & _ESTOP).sentences()}"
        faults = reasons & Reason(self._gate.hold_policy) & ~Reason.HELP_UNANSWERED
        if event is Event.RESUME and mode is Mode.HOLD and faults:
            return False, f"not resumed, the policy could not drive: {faults.sentences()}"
        if event is Event.RESUME and mode is Mode.POLICY and self._help.asked:
            return True, "the policy goes on at the next tick"
        if next_mode(mode, event) is mode:
            return False, f"{name} changes nothing in {mode.name}"
        return True, f"{name} at the next tick"

    def _on_tick(self, tick: Any) -> None:
        self._tick = None if tick.done else tick
        self._on_message()

    def _on_message(self) -> None:
        """In lockstep: decides as soon as all that belongs to the tick has come."""
        tick, inbox = self._tick, self._inbox
        if tick is None or not self.active or not self._observations.complete(tick):
            return
        if self._needs_policy and (inbox.policy is None or inbox.policy.tick != tick.tick):
            return
        if self._needs_expert and (inbox.expert is None or inbox.expert.tick != tick.tick):
            return
        self._tick = None
        self._observations.take_tick(tick)
        time_ns = stamp_ns(tick.header.stamp)
        inbox.received_at(time_ns)
        if tick.start:
            inbox.request(Event.LOCK)
            self._gate.start_episode(tick.seed)
            self._say_settings()
        self._ticks = tick.tick
        self._decide(time_ns, time_ns, 0)

    def _on_period(self, now_ns: int, missed_ticks: int) -> None:
        self._decide(self.robot_ns(), now_ns, missed_ticks)
        self._ticks += 1
        self.idle = self._gate.mode not in _DRIVEN
        # For the next tick: no command waits for it.
        self._inbox.second_writer = self.count_publishers(self._command_topic) > 1

    def _decide(self, time_ns: int, monotonic_ns: int, missed_ticks: int) -> None:
        row = self._row
        row.bytes[:] = self._empty
        self._times.write(row, time_ns, monotonic_ns, self._ticks)
        row["round"], row["episode"], row["seed"] = self._round, self._episode.episode, self._episode.seed
        self._inbox.fill(row)
        if missed_ticks:
            row["missed_ticks"] = missed_ticks
            self._reasons_of.write(row, self._reasons_of.read(row)[0] | _MISSED)
            self._missed_ticks += missed_ticks
        self._gate.decide(row)
        decided_ns = self.monotonic_ns()
        is_sent = self._publish_command()
        sent_ns = self.monotonic_ns()
        gate_ns, command_ns = decided_ns - monotonic_ns, sent_ns - decided_ns
        if self.ticker is not None:
            command_s = command_ns * 1e-9 if is_sent else math.nan
            self._took.write(row, self.ticker.late_ns * 1e-9, gate_ns * 1e-9, command_s)
        (bits,) = self._reasons_of.read(row)
        self._limited_ticks += bool(bits & _LIMITED)
        if bits != self._said_bits:
            self._said_bits, self._said_words = bits, Reason(bits).words()
        decision = self._decision.fill(row, self._said_words)
        self._decision_publisher.publish(decision)
        if decision.help != self._help.asked:
            self._ask_for_help(decision)
        if self.ticker is not None:
            now_ns = self.monotonic_ns()
            self._stages.note(self.ticker.late_ns, gate_ns, command_ns, now_ns - sent_ns, now_ns - monotonic_ns)

    def _say_settings(self) -> None:
        self._settings_publisher.publish(self._settings)

    def _ask_for_help(self, decision: Any) -> None:
        """Says that help is asked for, or is not any more."""
        self._help.header, self._help.asked = decision.header, decision.help
        self._help.round, self._help.episode = decision.round, decision.episode
        self._help.reason = self._help_reason() if decision.help else ""
        self._help_publisher.publish(self._help)
        if decision.help and not self.lockstep:
            self.get_logger().info(
                f"help: rule={self._help.rule} reason={self._help.reason}", throttle_duration_sec=1.0
            )

    def _help_reason(self) -> str:
        scores = Scores(*(float(self._row[name]) for name in Scores._fields))
        return help_words(scores, Scores(*self._row["ask_limits"].tolist()))

    def _publish_command(self) -> bool:
        """Sends the action of the row, and says whether there is one."""
        is_action = finite(self._row.executed_action)
        if is_action:
            time_ns, *_ = self._times.read(self._row)
            self._command_publisher.publish(self._command.fill([self._row.executed_action], time_ns))
        return is_action


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(SupervisorNode, args)


if __name__ == "__main__":
    main()
