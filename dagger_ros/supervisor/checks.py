"""Every objection to one tick, each a small pure function of what is known of it.

`TickView` is what is known: one row, prepared once, beside what only a sequence of rows shows (the clock, the
answers of the policy, the deadman). A check looks at it and gives reason bits or 0. All of them are asked at every
tick and their bits are OR-ed, so their order cannot matter.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from dagger_ros.contract import NEVER_NS, Intent, RowLayout, RowView, Scores
from dagger_ros.supervisor.arrivals import LeakyBucket
from dagger_ros.supervisor.limits import Vector, beyond, finite
from dagger_ros.supervisor.reasons import Reason

__all__ = ["CHECKS", "Check", "Proposal", "TickView"]

# The deadman may go on twice a second for ever, or `TOLERATED` times at once; no hand that works does more.
_PRESSES_PER_S = 2.0
# What a tick is read from, beside its vectors.
_NUMBERS = (
    "time_ns",
    "monotonic_ns",
    "reasons",
    "policy_stamp_ns",
    "expert_stamp_ns",
    "policy_receive_ns",
    "expert_receive_ns",
    "doubt",
    "novelty",
    "deviation",
    "risk",
    "expert_intent",
    "expert_reason",
    "requests",
    "policy_sha256",
)
_WANTS_LABEL, _WANTS_TAKEOVER = int(Intent.LABEL), int(Intent.TAKEOVER)
# Ticks of the robot's clock beyond those that passed: a simulated clock moves in whole periods.
_CLOCK_PERIODS = 2


class Proposal:
    """What one source asks for at this tick.

    Args:
        name: `policy` or `expert`: how the row and the reasons call it.
        max_age_s: How old its messages may be.
        oldest_observation_ns: An action is stamped with the observation that it was computed from, which may be
            so old itself.
    """

    def __init__(self, name: str, max_age_s: float, oldest_observation_ns: int) -> None:
        self.max_age_ns = round(max_age_s * 1e9)
        self.max_stamp_age_ns = self.max_age_ns + oldest_observation_ns
        self.never, self.stale, self.future, self.not_finite, self.jump = (
            int(Reason[f"{name.upper()}_{fault}"]) for fault in ("NEVER", "STALE", "FUTURE", "NOT_FINITE", "JUMP")
        )
        self.received: bool
        self.received_ns: int
        self.stamp_ns: int
        self.age_ns: int
        self.stamp_age_ns: int
        self.action: Vector

    def read(self, received_ns: int, stamp_ns: int, time_ns: int, monotonic_ns: int) -> None:
        """Takes its times, and those of the tick."""
        self.received_ns, self.stamp_ns = received_ns, stamp_ns
        self.received = received_ns != NEVER_NS
        self.age_ns, self.stamp_age_ns = monotonic_ns - received_ns, time_ns - stamp_ns


class TickView:
    """One tick as the checks see it.

    Args:
        layout: Of the rows; its contract gives ages and limits.
        doubt_limit: Largest doubt with which the policy may drive.
        policy_sha256: The only weights that may drive; empty: any.

    Attributes:
        start: (A,) what the next action starts from; see `start_from`.
        finite: Every number of observation and proposals is finite; if False they may be too. The checks say which.
        far: Something is further apart than a limit allows: a proposal from the start, or the start from where the
            robot is. The checks say which.
        reasons: Bits that stood in the row.
        intent: Of the expert, `Intent` bits.
        requests: Of people.
        pressed_anew: The deadman is pressed, and was not at the last tick.
        driving_sha256: Weights that control was given to; empty: the policy does not drive. The gate writes it.
    """

    def __init__(self, layout: RowLayout, doubt_limit: float, policy_sha256: bytes) -> None:
        self._layout, contract = layout, layout.contract
        action, timing = contract.action, contract.timing
        ages_ns = [round(s.max_age_s * 1e9) for s in contract.streams.values()]
        self._seen = np.flatnonzero(layout.seen_by_policy).tolist()
        self.max_age_ns = [ages_ns[i] for i in self._seen]
        self.future_ns = round(timing.future_tolerance_s * 1e9)
        self.clock_ns = self.future_ns + _CLOCK_PERIODS * timing.period_ns
        self.budget_ns = round(timing.latency_budget_s * 1e9)
        dimensions = action.dimensions_
        self.jump = np.array([d.jump_limit for d in dimensions])
        self.tracking = np.array([d.tracking_limit or np.inf for d in dimensions])
        lower, upper = (np.array([getattr(d, end) for d in dimensions]) for end in ("lower", "upper"))
        # Without a limit too, a doubt that is infinite is no doubt that anybody measured.
        self.doubt_limit, self.policy_sha256 = min(doubt_limit, sys.float_info.max), policy_sha256
        self.policy = Proposal("policy", timing.policy_max_age_s, max(ages_ns))
        self.expert = Proposal("expert", timing.expert_max_age_s, max(ages_ns))
        self._measured = layout.streams.index(action.measured) if action.measured is not None else None
        self._boxes = [(layout.streams.index(b.stream), b.lower, b.upper) for b in action.workspace]
        self._numbers = layout.numbers(*_NUMBERS, gaps=True)
        self._row: RowView | None = None
        # Both proposals at once, and the three distances that have a limit.
        self._lower, self._upper, self._range = np.stack([lower] * 2), np.stack([upper] * 2), upper - lower
        self._bounded, self._apart = np.empty_like(self._lower), np.empty(len(dimensions))
        self._bounded_policy, self._bounded_expert = self._bounded
        proposals = layout.numbers("policy_action", "expert_action")
        self._proposals_part = slice(proposals.start, proposals.end)
        self._gaps = np.zeros((3, len(dimensions)))
        self._policy_gap, self._expert_gap, self._tracking_gap = self._gaps
        self._gap_limits = np.stack([self.jump, self.jump, self.tracking])
        self._over = np.zeros(self._gaps.shape, bool)
        self.last_time_ns: int
        self.last_monotonic_ns: int
        self.reasons = self.intent = self.expert_reason = self.requests = 0
        # Plain numbers: for a few streams that takes a third of the time of an array.
        self.received_ns: list[int]
        self.stamps_ns: list[int]
        self.observation: Vector
        self.start: Vector
        self.finite, self.far = True, False
        self.measured: Vector | None = None
        self.boxed: list[tuple[Vector, Sequence[float], Sequence[float]]]
        self.scores = Scores()
        self.sha256: bytes
        self.driving_sha256 = b""
        self.pressed = self.pressed_anew = False
        self._open_receive_ns: int
        self.forget()

    def forget(self) -> None:
        """The robot is not where it was: nothing follows from the tick before."""
        self.time_ns = self.monotonic_ns = NEVER_NS
        self.late, self.flapping = LeakyBucket(), LeakyBucket()
        self._open_stamp_ns = self._answered_stamp_ns = NEVER_NS

    def read(self, row: RowView, *, intent: int | None = None) -> None:
        """Takes the inputs of a row.

        Args:
            row: With times, observations and proposals filled in; its vectors are kept until the next tick.
            intent: Instead of that in the row.
        """
        if row is not self._row:
            self._bind(row)
        self.last_time_ns, self.last_monotonic_ns = self.time_ns, self.monotonic_ns
        (
            self.time_ns,
            self.monotonic_ns,
            self.reasons,
            policy_stamp_ns,
            expert_stamp_ns,
            policy_receive_ns,
            expert_receive_ns,
            doubt,
            novelty,
            deviation,
            risk,
            self.intent,
            self.expert_reason,
            self.requests,
            sha256,
        ) = self._numbers.read(row)
        if intent is not None:
            self.intent = intent
        self.sha256 = sha256.rstrip(b"\0")
        received_ns, stamps_ns = self._received_ns.tolist(), self._stamps_ns.tolist()
        self.received_ns = [received_ns[i] for i in self._seen]
        self.stamps_ns = [stamps_ns[i] for i in self._seen]
        self.unseen = NEVER_NS in self.received_ns
        # A sum of squares is finite unless one of the numbers is not, or they are very large.
        observation, proposals = self.observation, self._proposals
        self.finite = math.isfinite(observation.dot(observation) + proposals.dot(proposals))
        self.policy.read(policy_receive_ns, policy_stamp_ns, self.time_ns, self.monotonic_ns)
        self.expert.read(expert_receive_ns, expert_stamp_ns, self.time_ns, self.monotonic_ns)
        labels = self.intent & _WANTS_LABEL and self.policy.received
        self.scores = Scores(doubt, novelty, deviation, risk, self._discrepancy() if labels else math.nan)
        self._time_the_policy()
        self._watch_the_deadman(bool(self.intent & _WANTS_TAKEOVER))

    def start_from(self, start: Vector) -> None:
        """Takes (A,) what the next action starts from: the last emitted one, or where the robot is; NaN: unknown."""
        self.start = start
        np.subtract(self.policy.action, start, out=self._policy_gap)
        np.subtract(self.expert.action, start, out=self._expert_gap)
        if self.measured is not None:
            np.subtract(start, self.measured, out=self._tracking_gap)
        np.abs(self._gaps, out=self._gaps)
        np.greater(self._gaps, self._gap_limits, out=self._over)
        self.far = 1 in self._over.tobytes()

    def _bind(self, row: RowView) -> None:
        self._row, stream = row, self._layout.stream
        self._stamps_ns, self._received_ns = row.stamp_ns, row.receive_ns
        self.observation = row.observation
        self.policy.action, self.expert.action = row.policy_action, row.expert_action
        proposals = np.frombuffer(row.bytes[self._proposals_part])
        self._proposals, self._both = proposals, proposals.reshape(self._bounded.shape)
        if self._measured is not None:
            self.measured = stream(row, self._measured)
        self.boxed = [(stream(row, i), lower, upper) for i, lower, upper in self._boxes]

    def _discrepancy(self) -> float:
        """Distance of the two proposals, each within the bounds, in half bound ranges."""
        both, apart = self._bounded, self._apart
        np.maximum(self._both, self._lower, out=both)
        np.minimum(both, self._upper, out=both)
        np.subtract(self._bounded_policy, self._bounded_expert, out=apart)
        np.divide(apart, self._range, out=apart)
        return 2.0 * math.sqrt(apart.dot(apart))

    def _time_the_policy(self) -> None:
        """Fills `late` with answers that took too long, and drains it with the others."""
        newest_ns = max(self.stamps_ns)
        if self._open_stamp_ns == NEVER_NS and newest_ns > self._answered_stamp_ns:
            self._open_stamp_ns = newest_ns
            self._open_receive_ns = self.received_ns[self.stamps_ns.index(newest_ns)]
        if not self.policy.received or self._open_stamp_ns == NEVER_NS:
            return
        if self.policy.stamp_ns < self._open_stamp_ns:
            if self.monotonic_ns - self._open_receive_ns > self.budget_ns:
                self.late.add()
            return
        # An answer to a newer observation says nothing of how long this one took.
        took_ns = self.policy.received_ns - self._open_receive_ns
        if self.policy.stamp_ns == self._open_stamp_ns and took_ns > self.budget_ns:
            self.late.add()
        else:
            self.late.drain()
        self._answered_stamp_ns, self._open_stamp_ns = self.policy.stamp_ns, NEVER_NS

    def _watch_the_deadman(self, takeover: bool) -> None:
        if self.last_monotonic_ns != NEVER_NS:
            self.flapping.drain((self.monotonic_ns - self.last_monotonic_ns) * 1e-9 * _PRESSES_PER_S)
        self.pressed_anew, self.pressed = takeover and not self.pressed, takeover
        if self.pressed_anew:
            self.flapping.add()


Check = Callable[[TickView], int]


def _observation_never(tick: TickView) -> int:
    return int(Reason.OBSERVATION_NEVER) if tick.unseen else 0


def _observation_stale(tick: TickView) -> int:
    if tick.unseen:
        return 0
    for stamp_ns, received_ns, max_age_ns in zip(tick.stamps_ns, tick.received_ns, tick.max_age_ns, strict=True):
        if tick.time_ns - stamp_ns > max_age_ns or tick.monotonic_ns - received_ns > max_age_ns:
            return int(Reason.OBSERVATION_STALE)
    return 0


def _observation_future(tick: TickView) -> int:
    ahead = not tick.unseen and max(tick.stamps_ns) - tick.time_ns > tick.future_ns
    return int(Reason.OBSERVATION_FUTURE) if ahead else 0


def _observation_not_finite(tick: TickView) -> int:
    bad = not tick.finite and not tick.unseen and not finite(tick.observation)
    return int(Reason.OBSERVATION_NOT_FINITE) if bad else 0


def _clock_jump(tick: TickView) -> int:
    if tick.last_time_ns == NEVER_NS:
        return 0
    moved_ns, passed_ns = tick.time_ns - tick.last_time_ns, tick.monotonic_ns - tick.last_monotonic_ns
    jumped = moved_ns < 0 or passed_ns < 0 or moved_ns - passed_ns > tick.clock_ns
    return int(Reason.CLOCK_JUMP) if jumped else 0


def _tracking(tick: TickView) -> int:
    """A measured value that is not finite, or nothing emitted yet, is the business of other checks."""
    if tick.measured is None:
        return 0
    return int(Reason.TRACKING) if tick.far and beyond(tick.start - tick.measured, tick.tracking) else 0


def _workspace(tick: TickView) -> int:
    for values, lower, upper in tick.boxed:
        for value, low, high in zip(values.tolist(), lower, upper, strict=True):
            if value < low or value > high:
                return int(Reason.WORKSPACE)
    return 0


def _policy_late(tick: TickView) -> int:
    return int(Reason.POLICY_LATE) if tick.late.full else 0


def _policy_doubt(tick: TickView) -> int:
    """Doubt that is not a number is not below any limit."""
    doubts = tick.policy.received and not tick.scores.doubt <= tick.doubt_limit
    return int(Reason.POLICY_DOUBT) if doubts else 0


def _policy_hash(tick: TickView) -> int:
    if not tick.policy.received:
        return 0
    known = (tick.policy_sha256, tick.driving_sha256)
    return int(Reason.POLICY_HASH) if any(sha256 and sha256 != tick.sha256 for sha256 in known) else 0


def _expert_flapping(tick: TickView) -> int:
    return int(Reason.EXPERT_FLAPPING) if tick.flapping.full else 0


def _proposal_never(tick: TickView, proposal: Proposal) -> int:
    return 0 if proposal.received else proposal.never


def _proposal_stale(tick: TickView, proposal: Proposal) -> int:
    old = proposal.age_ns > proposal.max_age_ns or proposal.stamp_age_ns > proposal.max_stamp_age_ns
    return proposal.stale if proposal.received and old else 0


def _proposal_future(tick: TickView, proposal: Proposal) -> int:
    return proposal.future if proposal.received and proposal.stamp_age_ns < -tick.future_ns else 0


def _proposal_not_finite(tick: TickView, proposal: Proposal) -> int:
    bad = not tick.finite and proposal.received and not finite(proposal.action)
    return proposal.not_finite if bad else 0


def _proposal_jump(tick: TickView, proposal: Proposal) -> int:
    """Too far to be clamped, so the whole frame is refused. From nothing there is no distance."""
    return proposal.jump if tick.far and beyond(proposal.action - tick.start, tick.jump) else 0


def _of_policy(check: Callable[[TickView, Proposal], int], tick: TickView) -> int:
    return check(tick, tick.policy)


def _of_expert(check: Callable[[TickView, Proposal], int], tick: TickView) -> int:
    return check(tick, tick.expert)


_OF_PROPOSALS = (_proposal_never, _proposal_stale, _proposal_future, _proposal_not_finite, _proposal_jump)

CHECKS: tuple[Check, ...] = (
    _observation_never,
    _observation_stale,
    _observation_future,
    _observation_not_finite,
    _clock_jump,
    _tracking,
    _workspace,
    _policy_late,
    _policy_doubt,
    _policy_hash,
    _expert_flapping,
    *(partial(source, check) for source in (_of_policy, _of_expert) for check in _OF_PROPOSALS),
)
