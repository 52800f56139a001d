"""The gate: from what was seen and asked for at a tick to the action that may go to the actuators.

It works on one row in place, knows no ROS and no clock, and raises nothing for bad data: what is wrong becomes a
bit of `Reason`. Whatever comes in, what goes out is finite, within the bounds and within the rate limits of the
contract, or nothing at all (NaN: the driver's own timeout stops the robot).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dagger_ros.contract import Contract, ExpertIntent, Interface, Mode
from dagger_ros.contract.row import NEVER_NS, Row, RowLayout
from dagger_ros.supervisor.limits import Vector, clamp_bounds, clamp_rate
from dagger_ros.supervisor.modes import Event, next_mode
from dagger_ros.supervisor.reasons import Reason
from dagger_ros.supervisor.rules import Rule

__all__ = ["Gate"]

# A late tick earns no more than half a period of extra travel, an early one no less than half a period's.
_SHORTEST_STEP = 0.5
_LONGEST_STEP = 1.5


class _Proposal:
    """How the row and the reasons name one of the two sources of actions, and how old its actions may be."""

    def __init__(self, name: str, max_age_s: float, oldest_observation_ns: int) -> None:
        self.name = name
        self.max_age_ns = round(max_age_s * 1e9)
        # An action is stamped with the observation that it was computed from.
        self.max_stamp_age_ns = self.max_age_ns + oldest_observation_ns
        self.never = Reason[f"{name.upper()}_NEVER"]
        self.stale = Reason[f"{name.upper()}_STALE"]
        self.future = Reason[f"{name.upper()}_FUTURE"]
        self.not_finite = Reason[f"{name.upper()}_NOT_FINITE"]


class Gate:
    """Decides each tick. Create one for each run of the robot; `start_episode` before each episode.

    Args:
        contract: Limits, ages, the interface and what "stop" means.
        rule: Who should drive and which frames are labels.
        auto_arm: Arm and give control to the policy as soon as everything is fresh. For simulation only: on a
            robot a person arms.
    """

    def __init__(self, contract: Contract, rule: Rule, *, auto_arm: bool) -> None:
        layout = RowLayout(contract)
        dimensions = contract.action.dimensions_
        self.mode = Mode.LOCKED
        self.rule = rule
        self._auto_arm = auto_arm
        self._interface = contract.action.interface
        self._lower = np.array([d.lower for d in dimensions])
        self._upper = np.array([d.upper for d in dimensions])
        self._rate = np.array([d.rate_limit for d in dimensions])
        self._period_ns = contract.timing.period_ns
        self._future_ns = round(contract.timing.future_tolerance_s * 1e9)
        ages_ns = [round(s.max_age_s * 1e9) for s in contract.streams.values()]
        self._seen = layout.seen_by_policy
        self._max_age_ns = np.array(ages_ns)[self._seen]
        self._policy = _Proposal("policy", contract.timing.policy_max_age_s, max(ages_ns))
        self._expert = _Proposal("expert", contract.timing.expert_max_age_s, max(ages_ns))
        self._layout = layout
        measured = contract.action.measured
        self._measured = layout.streams.index(measured) if measured is not None else None
        self._timeout_ns = round(contract.timing.driver_timeout_s * 1e9)
        self._last = np.full(layout.action_size, 0.0 if self._interface is Interface.VELOCITY else np.nan)
        self._last_ns = NEVER_NS
        self._interventions = 0
        self._waits_for_person = False
        self._had_takeover = False

    def start_episode(self, seed: int) -> None:
        """Counts interventions from 0, and draws what is random in the rule from the seed."""
        self.rule.start_episode(seed)
        self._interventions = 0

    def lock(self) -> None:
        """Locks and forgets the last emitted action: the robot is not where it was."""
        self.mode = next_mode(self.mode, Event.LOCK)
        self._last_ns = NEVER_NS

    def final_stop(self) -> Vector:
        """The action that stops at once and is sent last, (A,): the driver ends what a ramp would take too long for."""
        stop = np.empty(self._layout.action_size)
        stop[:] = self._stop_action()
        return stop

    def decide(self, row: Row, intent: ExpertIntent, requests: Iterable[Event] = ()) -> None:
        """Completes one row.

        Args:
            row: One row of the contract's layout, with times, observations, proposals and (from reading the
                messages) SIZE and CONTRACT reasons filled in. Mode, reasons, requested and executed action, label
                and intervention are written.
            intent: What the expert asks for beside its action.
            requests: What people asked for since the last tick: arm, hold, resume, stop.
        """
        reasons = Reason(int(row["reasons"]))
        reasons |= self._check_observations(row)
        reasons |= self._check_proposal(row, self._policy)
        reasons |= self._check_proposal(row, self._expert)
        before = self.mode
        self._change_mode(row, reasons, intent, requests)
        if self.mode is Mode.EXPERT and before is not Mode.EXPERT:
            self._interventions += 1
        reasons |= self._execute(row, observed=not reasons & Reason.observation_faults())
        driven = self.mode is Mode.EXPERT
        row["mode"] = self.mode
        row["reasons"] = int(reasons)
        row["intervention"] = self._interventions if driven else 0
        row["intervention_reason"] = intent.reason if driven else 0
        labelled = intent.label and not reasons & Reason.expert_faults()
        row["label_source"] = self.rule.label(self.mode, expert_labels=labelled)

    def _check_observations(self, row: Row) -> Reason:
        """Faults of what the policy sees. Streams that only the expert sees show in the age of its actions."""
        received, stamps = row["receive_ns"][self._seen], row["stamp_ns"][self._seen]
        if (received == NEVER_NS).any():
            return Reason.OBSERVATION_NEVER
        reasons = Reason(0)
        age_ns = row["time_ns"] - stamps
        if (age_ns > self._max_age_ns).any() or (row["monotonic_ns"] - received > self._max_age_ns).any():
            reasons |= Reason.OBSERVATION_STALE
        if (age_ns < -self._future_ns).any():
            reasons |= Reason.OBSERVATION_FUTURE
        if not np.isfinite(row["observation"]).all():
            reasons |= Reason.OBSERVATION_NOT_FINITE
        return reasons

    def _check_proposal(self, row: Row, source: _Proposal) -> Reason:
        received, stamp = int(row[f"{source.name}_receive_ns"]), int(row[f"{source.name}_stamp_ns"])
        if received == NEVER_NS:
            return source.never
        reasons = Reason(0)
        age_ns = int(row["time_ns"]) - stamp
        if int(row["monotonic_ns"]) - received > source.max_age_ns or age_ns > source.max_stamp_age_ns:
            reasons |= source.stale
        if age_ns < -self._future_ns:
            reasons |= source.future
        if not np.isfinite(row[f"{source.name}_action"]).all():
            reasons |= source.not_finite
        return reasons

    def _change_mode(self, row: Row, reasons: Reason, intent: ExpertIntent, requests: Iterable[Event]) -> None:
        observed = not reasons & Reason.observation_faults()
        if not observed:
            self.mode = next_mode(self.mode, Event.LOCK)
        for event in requests:
            if event is not Event.ARM or observed:
                self.mode = next_mode(self.mode, event)
            # What a person stopped or has just armed does not move before a person says so.
            self._waits_for_person = event is not Event.RESUME
        if intent.takeover and not self._had_takeover:
            self._waits_for_person = False
        self._had_takeover = intent.takeover
        if self._auto_arm and self.mode is Mode.LOCKED and observed:
            self.mode = next_mode(next_mode(self.mode, Event.ARM), Event.RESUME)
        if not self._waits_for_person:
            for event in self.rule.events(self.mode, intent):
                self.mode = next_mode(self.mode, event)
        faults = {Mode.POLICY: Reason.policy_faults(), Mode.EXPERT: Reason.expert_faults()}.get(self.mode)
        if faults is not None and reasons & faults:
            self.mode = next_mode(self.mode, Event.HOLD)
        # Last, so that nothing above leads past it: who cannot see does not drive.
        if not observed:
            self.mode = next_mode(self.mode, Event.LOCK)

    def _execute(self, row: Row, *, observed: bool) -> Reason:
        reasons = {
            Mode.LOCKED: Reason.NOT_ARMED,
            Mode.HOLD: Reason.HELD,
            Mode.ESTOP: Reason.ESTOP,
        }.get(self.mode, Reason(0))
        now_ns = int(row["monotonic_ns"])
        if self._last_ns == NEVER_NS or now_ns - self._last_ns > self._timeout_ns:
            # Never sent anything, or so long ago that the driver has stopped by itself.
            self._last_ns = NEVER_NS
            self._start_from(row, observed=observed)
        requested: Vector = row["requested_action"]
        if self.mode is Mode.POLICY:
            requested[:] = row["policy_action"]
        elif self.mode is Mode.EXPERT:
            requested[:] = row["expert_action"]
        else:
            requested[:] = self._stop_action()
        executed: Vector = row["executed_action"]
        executed[:] = requested
        if not np.isfinite(executed).all():
            return reasons  # nothing to send: an effort interface at rest, a position that was never measured
        if ((self._last < self._lower) | (self._last > self._upper)).any():
            executed[:] = np.nan  # no command is both within the bounds and near enough; a person must move it
            return reasons | Reason.START_OUT_OF_BOUNDS
        if clamp_bounds(executed, self._lower, self._upper):
            reasons |= Reason.CLAMPED_BOUND
        if clamp_rate(executed, self._last, self._rate * self._step_s(now_ns)):
            reasons |= Reason.CLAMPED_RATE
        if not np.isfinite(executed).all():
            executed[:] = np.nan
            return reasons | Reason.OUTPUT_NOT_FINITE
        self._last[:] = executed
        self._last_ns = now_ns
        return reasons

    def _stop_action(self) -> Vector | float:
        if self._interface is Interface.VELOCITY:
            return 0.0  # the rate limit turns it into a ramp
        return self._last if self._interface is Interface.POSITION else np.nan

    def _start_from(self, row: Row, *, observed: bool) -> None:
        """What the first action may differ from by one step: standstill, or the position measured just now."""
        if self._measured is None:
            self._last[:] = 0.0
        else:
            self._last[:] = self._layout.stream(row, self._measured) if observed else np.nan

    def _step_s(self, now_ns: int) -> float:
        """Time that the rate limit may use, bounded at both ends, so that neither a burst nor a stall is travel."""
        since_ns = self._period_ns if self._last_ns == NEVER_NS else now_ns - self._last_ns
        return min(max(since_ns, _SHORTEST_STEP * self._period_ns), _LONGEST_STEP * self._period_ns) * 1e-9
