"""The gate: from what was seen and asked for at a tick to the action that may go to the actuators.

It works on one row in place, knows no ROS and no clock, and raises nothing for bad data: what is wrong becomes a
bit of `Reason`. Whatever comes in, what goes out is finite and within every limit of the contract, or nothing at all
(NaN: the driver's own timeout stops the robot).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dagger_ros.contract import (
    NEVER_NS,
    Contract,
    DaggerError,
    Intent,
    Interface,
    InterventionReason,
    Label,
    Mode,
    Row,
    RowLayout,
    RowView,
    Scores,
)
from dagger_ros.supervisor.checks import CHECKS, TickView
from dagger_ros.supervisor.help import HelpWatch
from dagger_ros.supervisor.limits import Limiter, Vector, finite
from dagger_ros.supervisor.modes import Event, events_of, next_mode
from dagger_ros.supervisor.reasons import Reason, Response, response_bits
from dagger_ros.supervisor.rule import Rule, Situation

__all__ = ["Gate"]

_LOCK = response_bits(Response.LOCK)
_ESTOP = response_bits(Response.ESTOP)
_HOLD_POLICY = response_bits(Response.HOLD, Response.HOLD_POLICY)
_HOLD_EXPERT = response_bits(Response.HOLD, Response.HOLD_EXPERT)
_EXPERT_UNUSABLE = response_bits(Response.HOLD_EXPERT)
# Without these the expert cannot be asked to help.
_EXPERT_SILENT = int(
    Reason.EXPERT_NEVER
    | Reason.EXPERT_STALE
    | Reason.EXPERT_FUTURE
    | Reason.EXPERT_NOT_FINITE
    | Reason.EXPERT_CONTRACT
    | Reason.EXPERT_SEQUENCE
)
# As plain numbers: operations on flags are slow, and these are done at every tick.
_TRACKING, _WORKSPACE, _HANDOVER = int(Reason.TRACKING), int(Reason.WORKSPACE), int(Reason.HANDOVER)
_WANTS_LABEL, _WANTS_RESUME = int(Intent.LABEL), int(Intent.RESUME)
_UNATTENDED, _HELP_UNANSWERED = int(Intent.UNATTENDED), int(Reason.HELP_UNANSWERED)
_ASKED = int(InterventionReason.ASKED)
# Whose expert may drive: a script, or a person with the deadman pressed, be it to drive or only to label.
_CONSENTS = int(Intent.TAKEOVER | Intent.LABEL | Intent.UNATTENDED)
_LOCK_REQUEST, _HOLD_REQUEST, _RESUME_REQUEST = Event.LOCK.bit, Event.HOLD.bit, Event.RESUME.bit
# Looking up a member of an enumeration takes as long as a numpy operation on 12 numbers.
_LOCKED, _HOLD, _POLICY, _EXPERT = Mode.LOCKED, Mode.HOLD, Mode.POLICY, Mode.EXPERT
_NO_LABEL = Label.NONE
_TAKEOVER, _RESUME, _RELEASE = Event.TAKEOVER, Event.RESUME, Event.RELEASE
_STOPS = (Event.HOLD, Event.LOCK, Event.ESTOP)
_STOPPED = {_LOCKED: int(Reason.NOT_ARMED), _HOLD: int(Reason.HELD), Mode.ESTOP: int(Reason.ESTOP)}
# Neighbours in the row that are written together.
_PROVENANCE = (
    "discrepancy",
    "ask_limits",
    "back_limits",
    "help",
    "label_source",
    "intervention",
    "intervention_reason",
)


class Gate:
    """Decides each tick. Create one for each run of the robot; `start_episode` before each episode.

    Args:
        contract: Limits, ages, the interface and what "stop" means.
        rule: Who should drive and which frames are labels.
        auto_arm: Arm and give control to the policy as soon as everything is fresh, and let an expert go on after a
            fault. For simulation only: on a robot a person does it.
        needs_expert: The policy drives only while the expert node is heard, so that somebody can take over.
        doubt_limit: Largest doubt of the policy's ensemble with which it may drive, > 0.
        policy_sha256: The only weights that may drive; empty: any, but never other ones than control was given to.

    Attributes:
        mode: Who drives.
        rule: As given.
        hold_policy: Every reason with which the policy does not drive, as a mask.

    Raises:
        DaggerError: If the contract does not allow the rule, or does not say how long an answer to it may take.
    """

    _driver: Mode | None

    def __init__(
        self,
        contract: Contract,
        rule: Rule,
        *,
        auto_arm: bool,
        needs_expert: bool = True,
        doubt_limit: float = math.inf,
        policy_sha256: bytes = b"",
    ) -> None:
        action, answer_s = contract.action, contract.timing.help_answer_s
        if rule.mixes and not auto_arm and not action.handover.beta_mixing:
            raise DaggerError(
                f"rule {rule.name}: expected action.handover.beta_mixing true in contract {contract.name}, since with "
                "this beta the expert and the policy drive the robot in turn, tick by tick; found false"
            )
        if rule.robot_gated and answer_s is None:
            raise DaggerError(
                f"rule {rule.name}: expected timing.help_answer_s in contract {contract.name}, how long a request for "
                "help may stay unanswered before the robot is held; found nothing"
            )
        self._layout = RowLayout(contract)
        self.mode = _LOCKED
        self.rule = rule
        self.checks = CHECKS
        self._auto_arm = auto_arm
        self.hold_policy = _HOLD_POLICY | (_EXPERT_SILENT if needs_expert else 0)
        self._interface = action.interface
        self._measures = action.measured is not None and action.interface is not Interface.EFFORT
        self._handover_scale = action.handover.limit_scale
        self._handover_ns = round(action.handover.longest_s * 1e9)
        self._timeout_ns = round(contract.timing.driver_timeout_s * 1e9)
        # Where motion starts when nothing is known: a velocity from standstill, a position nowhere.
        self._rest = np.full(len(action.dimensions_), np.nan if action.interface is Interface.POSITION else 0.0)
        self._limiter = Limiter(contract)
        self._view = TickView(self._layout, doubt_limit, policy_sha256)
        # Where it writes beside the actions.
        self._verdict = self._layout.numbers("mode", "reasons")
        self._provenance = self._layout.numbers(*_PROVENANCE)
        self._requests_at = self._layout.numbers("requests").start
        self._interventions = 0
        self._begins = False
        self._waits_for_person = False
        self._help = HelpWatch(answer_s)
        self._was_outside = False
        self._forget()

    @property
    def at_rest(self) -> bool:
        """Whether the last emitted action leaves nothing to brake."""
        return self._interface is Interface.EFFORT or self._limiter.at_rest

    def start_episode(self, seed: int) -> None:
        """Counts interventions anew, and draws what is random in the rule from the seed."""
        self.rule.start_episode(seed)
        self._begins = True

    def take_limits(self, row: Row) -> None:
        """Takes the limits on scores that were in force at a recorded tick, if there were any."""
        ask, back = (Scores(*row[name].tolist()) for name in ("ask_limits", "back_limits"))
        if ask.given() or back.given():
            self.rule.limits = replace(self.rule.limits, ask=ask, back=back)

    def go_on_from(self, row: Row) -> None:
        """Takes a decided row as the gate's own last tick: how a recorded run is joined in the middle.

        What does not stand in a row is taken to be the safe one: a held robot waits for a person, if one arms it.
        """
        self.mode = Mode(row["mode"])
        self._view.read(RowView.of(row))
        self._view.driving_sha256 = self._view.sha256 if self.mode is _POLICY else b""
        self._waits_for_person = self.mode is _HOLD and not self._auto_arm
        self._was_outside = bool(self._view.reasons & _WORKSPACE)
        self._driver = self.mode if self.mode in (_POLICY, _EXPERT) else None
        self._interventions, self._begins = int(row["intervention"]), False
        self._handed_back = self.rule.robot_gated and self.mode is _POLICY and self._view.pressed
        self._answered = self.rule.robot_gated and self.mode is _EXPERT
        if row["help"]:
            self._help.go_on(self._view.monotonic_ns)
        self._limiter.seed(row["executed_action"])
        self._limiter.last_ns = self._view.monotonic_ns

    def final_stop(self) -> Vector:
        """The action that stops at once and is sent last, (A,): the driver ends what a ramp would take too long for."""
        stop = np.empty_like(self._rest)
        stop[:] = self._stop_action(blocked=False)
        return stop

    def decide(self, row: Row) -> None:
        """Completes one row.

        Args:
            row: One row of the contract's layout, with times, observations, proposals, the expert's intent, requests
                and (from how messages came) `INPUT_BITS` of the reasons filled in. Mode, reasons, requested and
                executed action, label and intervention are written.
        """
        view = RowView.of(row)
        if view.bytes[self._requests_at] & _LOCK_REQUEST:
            self._forget()
        if self._begins:
            self._begins = False
            self._interventions = int(self.mode is _EXPERT)  # one that goes on is the first of this episode
        with np.errstate(all="ignore"):  # what is not a number is data here, and becomes a reason
            self._decide(view)

    def _decide(self, row: RowView) -> None:
        view, before = self._view, self.mode
        view.read(row)
        view.start_from(self._start())
        bits, intent = view.reasons, view.intent
        for check in self.checks:
            bits |= check(view)
        limits = self.rule.limits  # in force now; the rule may fit them to this tick
        bits |= self._change_mode(bits, intent, view.requests)
        view.driving_sha256 = view.sha256 if self.mode is _POLICY else b""
        if self.mode is _EXPERT and before is not _EXPERT:
            self._interventions += 1
        if self.mode in (_POLICY, _EXPERT):
            if self._driver not in (None, self.mode):
                self._eased_until_ns = view.monotonic_ns + self._handover_ns
            self._driver = self.mode
        bits |= self._execute(row, bits)
        driven = self.mode is _EXPERT
        self._verdict.write(row, self.mode, bits)
        # Whoever does not say why answers the rule.
        asked = self._answered and (intent & _UNATTENDED or not view.expert_reason)
        labelled = bool(intent & _WANTS_LABEL) and not bits & _EXPERT_UNUSABLE
        label = self.rule.label(self.mode, expert_labels=labelled)
        self._provenance.write(
            row,
            view.scores.discrepancy,
            *limits.ask,
            *limits.back,
            self._help.asked,
            _NO_LABEL if bits & _HANDOVER else label,
            self._interventions if driven else 0,
            (_ASKED if asked else view.expert_reason) if driven else 0,
        )

    def _forget(self) -> None:
        """The robot is not where it was: a velocity starts from standstill, a position from what is measured next."""
        self.mode = next_mode(self.mode, Event.LOCK)
        self._view.forget()
        self._help.forget()
        # The rule took control back while the deadman was pressed; the expert drives because the rule asked.
        self._handed_back = self._answered = False
        # Who drove last; the first one after a lock takes over from nobody.
        self._driver = None
        self._eased_until_ns = NEVER_NS
        self._limiter.last_ns = NEVER_NS

    def _change_mode(self, bits: int, intent: int, requests: int) -> int:
        """Gives the bit of a request for help that nobody answered."""
        fresh, before = not bits & _LOCK, self.mode
        if requests:
            self._obey(fresh, requests)
        if self._view.pressed_anew and not requests & _HOLD_REQUEST:
            self._waits_for_person = False
        consents = bool(intent & _CONSENTS)
        if self.mode is _EXPERT and not consents:
            self.mode = next_mode(self.mode, _RELEASE)  # whatever the rule
        if self._auto_arm and self.mode is _LOCKED and fresh:
            self._take(Event.ARM)
            self._take(_RESUME)
        asks = not self._waits_for_person and self._follow_rule(bits, intent, consents=consents)
        dismissed = bool(requests & _RESUME_REQUEST) or (before is _HOLD and self.mode is _POLICY)
        unanswered = 0
        if self._help.watch(self.mode, asks=asks, dismissed=dismissed, now_ns=self._view.monotonic_ns):
            unanswered = _HELP_UNANSWERED
        outside = bool(bits & _WORKSPACE)
        crossed, self._was_outside = outside and not self._was_outside, outside
        if self.mode is _POLICY and (bits | unanswered) & self.hold_policy:
            self.mode = next_mode(self.mode, Event.HOLD)
            self._waits_for_person = not self._auto_arm
        elif self.mode is _EXPERT and (bits & _HOLD_EXPERT or crossed):
            self.mode = next_mode(self.mode, Event.HOLD)
            # A deadman that was pressed all the while does not drive on: that takes a new press.
            self._waits_for_person = not self._auto_arm
        # Last, so that nothing above leads past them: who cannot see does not drive.
        if not fresh:
            self.mode = next_mode(self.mode, Event.LOCK)
        # Nor who was stopped in an emergency, whatever was reset, while its cause persists.
        if bits & _ESTOP:
            self.mode = next_mode(self.mode, Event.ESTOP)
        return unanswered

    def _follow_rule(self, bits: int, intent: int, *, consents: bool) -> bool:
        """Does what the rule says, and gives whether it asks for help. A deadman that is pressed anew drives."""
        view, rule, resume = self._view, self.rule, bool(intent & _WANTS_RESUME)
        if view.pressed_anew or not view.pressed:
            self._handed_back = False
        if self._auto_arm and self.mode is _HOLD and intent & _UNATTENDED:
            self._take(_RESUME)  # nobody is there to do it
        before = self.mode
        events = rule.events(Situation(before, resume, view.scores, self._answered))
        if rule.robot_gated and before is _EXPERT and not resume and bits & (self.hold_policy | _HOLD_EXPERT):
            events = ()  # it does not take control back for a policy that could not drive
        for event in events:
            if event is not _TAKEOVER or (consents and not self._handed_back):
                self.mode = next_mode(self.mode, event)
        if rule.robot_gated and before is _EXPERT and self.mode is _POLICY:
            self._handed_back = view.pressed
        if view.pressed and not self._handed_back:
            self.mode = next_mode(self.mode, _TAKEOVER)  # whatever the rule
        if self.mode is _EXPERT and before is not _EXPERT:
            self._answered = rule.asks or self._help.asked
        return rule.asks

    def _obey(self, fresh: bool, requests: int) -> None:
        """What people asked for since the last tick."""
        for event in events_of(requests):
            before = self.mode
            if event is not Event.ARM or fresh:
                self._take(event)
            # What a person stopped or has just armed does not move before a person says so. A lock is no person's.
            if event is _RESUME or (event is Event.LOCK and self._auto_arm):
                self._waits_for_person = False
            elif event in _STOPS or self.mode is not before:
                self._waits_for_person = True

    def _take(self, event: Event) -> None:
        """A wish of a person; a robot that was stopped may have been moved, so motion starts from what is measured."""
        before, self.mode = self.mode, next_mode(self.mode, event)
        if self._measures and before in (_LOCKED, Mode.ESTOP) and self.mode is _HOLD:
            self._limiter.last_ns = NEVER_NS

    def _execute(self, row: RowView, bits: int) -> int:
        limiter, now_ns = self._limiter, self._view.monotonic_ns
        reasons = _STOPPED.get(self.mode, 0)
        if self._is_idle():
            limiter.seed(self._rest if bits & _LOCK else self._start())
        requested: Vector = row.requested_action
        stop = reasons != 0
        if self.mode is _POLICY:
            requested[:] = self._view.policy.action
        elif self.mode is _EXPERT:
            requested[:] = self._view.expert.action
            self.rule.disturb(requested, limiter.half_range)
        else:
            requested[:] = self._stop_action(blocked=bool(bits & _TRACKING) and not bits & _LOCK)
        executed: Vector = row.executed_action
        executed[:] = requested
        if not finite(executed):
            return reasons  # nothing to send: an effort interface at rest, a position that was never measured
        if not limiter.in_bounds:
            executed[:] = np.nan  # no command is both within the bounds and near enough; a person must move it
            return reasons | int(Reason.START_OUT_OF_BOUNDS)
        eased = not stop and now_ns <= self._eased_until_ns
        reasons |= limiter.limit(executed, now_ns, stop=stop, scale=self._handover_scale if eased else 1.0)
        if not reasons & _HANDOVER:
            self._eased_until_ns = NEVER_NS
        if not finite(executed):
            executed[:] = np.nan
            return reasons | int(Reason.OUTPUT_NOT_FINITE)
        return reasons

    def _stop_action(self, *, blocked: bool) -> Vector | float:
        """What stops this interface; a position that is blocked gives way to where the robot is."""
        if self._interface is Interface.VELOCITY:
            return 0.0  # the limits turn it into a ramp
        if self._interface is Interface.EFFORT:
            return np.nan
        return self._view.measured if blocked and self._view.measured is not None else self._limiter.last

    def _is_idle(self) -> bool:
        """Never sent anything, or so long ago that the driver has stopped by itself."""
        last_ns = self._limiter.last_ns
        return last_ns == NEVER_NS or self._view.monotonic_ns - last_ns > self._timeout_ns

    def _start(self) -> Vector:
        """What the next action may differ from by one step: the last one, what is measured, or standstill."""
        if not self._is_idle():
            return self._limiter.last
        if self._measures:
            assert self._view.measured is not None
            if self._interface is Interface.POSITION:
                return self._view.measured
            # A velocity that is measured a little outside its bounds is noise, and no reason to stand still.
            return np.clip(self._view.measured, *self._limiter.bounds)
        return self._rest
