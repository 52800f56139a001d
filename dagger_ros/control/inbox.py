"""What reaches the supervisor, message by message, and the inputs of a row made from it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract import (
    NEVER_NS,
    SCORES_OF_POLICY,
    ExpertIntent,
    InterventionReason,
    Row,
    RowLayout,
    RowView,
    stamp_ns,
)
from dagger_ros.control.streams import NewestStreams
from dagger_ros.supervisor import Arrival, Arrivals, Event, Reason

__all__ = ["Inbox"]


# What can be said of a proposal.
_FAULTS = ("SIZE", "CONTRACT", "SEQUENCE", "GAP", "DUPLICATE", "OUT_OF_ORDER")
# Neighbours in the row that are written together.
_PROPOSED = ("policy_stamp_ns", "expert_stamp_ns", "policy_receive_ns", "expert_receive_ns", *SCORES_OF_POLICY)
_WISHES = ("expert_intent", "expert_reason", "requests")
_NAMES = ("policy_round", "policy", "policy_sha256", "operator_id")
_UNKNOWN = (np.nan,) * len(SCORES_OF_POLICY)
_ESTOP_PRESSED, _ESTOP_STALE = int(Reason.ESTOP_PRESSED), int(Reason.ESTOP_STALE)
_RECORDER_STALE, _SECOND_WRITER = int(Reason.RECORDER_STALE), int(Reason.SECOND_WRITER)
_REASONS = frozenset(map(int, InterventionReason))


class _Proposals:
    """The newest proposal of one source.

    Args:
        name: `policy` or `expert`.
    """

    def __init__(self, name: str) -> None:
        self._action = f"{name}_action"
        self._bits = {what: int(Reason[f"{name.upper()}_{what}"]) for what in _FAULTS}
        self.message: Any = None
        self.stamp_ns = NEVER_NS
        self.receive_ns = NEVER_NS
        self.used = True  # a decision was made with it
        self._notes = 0
        # Numbers of a counter; one that is lost on the way is a fault of the connection.
        self._arrivals = Arrivals(1, gaps_count=True)

    def put(self, message: Any, receive_ns: int) -> bool:
        """Takes a message, and says whether it counts."""
        arrival = self._arrivals.take(int(message.sequence))
        if arrival is not Arrival.NEXT:
            self._notes |= self._bits[arrival.name]
        if arrival.counts:
            self.message, self.receive_ns, self.used = message, receive_ns, False
        return arrival.counts

    def clear(self) -> None:
        """As if nothing had been received; the counter goes on."""
        self.message, self.stamp_ns, self.receive_ns = None, NEVER_NS, NEVER_NS

    def fill(self, row: RowView, contract_sha256: str) -> int:
        """Writes the action, and gives what is to be said of the message."""
        bits, self._notes = self._notes, 0
        if self._arrivals.invalid:
            bits |= self._bits["SEQUENCE"]
        message = self.message
        if message is not None:
            self.stamp_ns = stamp_ns(message.header.stamp)
            values, action = np.asarray(message.action), getattr(row, self._action)
            if values.shape == action.shape:
                action[:] = values
            else:
                bits |= self._bits["SIZE"]
            if message.contract_sha256 != contract_sha256:
                bits |= self._bits["CONTRACT"]
            self.used = True
        return bits

    def times(self) -> tuple[int, int]:
        """Stamp and time of receipt, ns."""
        return self.stamp_ns, NEVER_NS if self.stamp_ns == NEVER_NS else self.receive_ns


class Inbox:
    """Keeps what the next tick is decided from. Messages are touched only through their attributes.

    Args:
        layout: Row of the contract.

    Attributes:
        streams: The observations.
        second_writer: Somebody else publishes on the command topic.
    """

    def __init__(self, layout: RowLayout) -> None:
        contract = layout.contract
        self.streams = NewestStreams(layout)
        self.second_writer = False
        self._sha256 = contract.sha256
        self._monotonic, self._reasons = layout.numbers("monotonic_ns"), layout.numbers("reasons")
        self._proposed, self._names = layout.numbers(*_PROPOSED), layout.numbers(*_NAMES)
        self._wishes = layout.numbers(*_WISHES)
        self._policy, self._expert = _Proposals("policy"), _Proposals("expert")
        self._requests = 0
        estop_s = contract.timing.estop_max_age_s
        self._estop_max_age_ns = None if estop_s is None else round(estop_s * 1e9)
        self._estop_ns, self._estop_pressed = NEVER_NS, False
        self._stops = False  # somebody pressed since the last tick, however shortly
        # The button of the pad is said again and again while it is pressed.
        self._estop_act_ns, self._estop_act_age_ns = NEVER_NS, round(contract.timing.expert_max_age_s * 1e9)
        self._recorder_max_age_ns = round(contract.recorder_max_age_s * 1e9)
        self._recorder_ns, self._is_recorded = NEVER_NS, False

    @property
    def policy(self) -> Any:
        """The newest PolicyAction; None: nothing usable came."""
        return self._policy.message

    @property
    def expert(self) -> Any:
        """The newest ExpertAction; None: nothing usable came."""
        return self._expert.message

    def put_policy(self, message: Any, receive_ns: int) -> bool:
        """Takes a PolicyAction, received at a monotonic time, and says whether it counts."""
        return self._policy.put(message, receive_ns)

    def put_expert(self, message: Any, receive_ns: int) -> bool:
        """The same of an ExpertAction. A hand-back is one message long and may come between two ticks: it is kept."""
        before, used = self._expert.message, self._expert.used
        counts = self._expert.put(message, receive_ns)
        if counts:
            message.resume |= before is not None and before.resume and not used
        return counts

    def put_estop(self, pressed: bool, receive_ns: int) -> None:
        """Takes what the topic estop says."""
        self._estop_pressed, self._estop_ns = pressed, receive_ns
        self._stops |= pressed

    def put_estop_act(self, receive_ns: int) -> None:
        """Takes an emergency stop by the pad; it counts as pressed until it was not repeated for `expert_max_age_s`."""
        self._estop_act_ns, self._stops = receive_ns, True

    def put_recorder(self, is_recorded: bool, receive_ns: int) -> None:
        """Takes a sign of life of the aggregator, and whether an episode is under way."""
        self._is_recorded, self._recorder_ns = is_recorded, receive_ns

    def request(self, event: Event) -> None:
        """Takes what somebody asks for; it counts at the next tick."""
        self._requests |= event.bit

    def received_at(self, now_ns: int) -> None:
        """In lockstep: whatever came counts as received at this tick."""
        for proposals in (self._policy, self._expert):
            proposals.receive_ns = now_ns

    def clear(self) -> None:
        """As if no observation and no proposal had been received: the robot is somewhere else now."""
        self.streams.clear()
        self._policy.clear()
        self._expert.clear()

    def fill(self, row: Row) -> None:
        """Writes everything that the gate reads beside times and provenance of the tick.

        Args:
            row: A new one, with its times filled in.
        """
        row = RowView.of(row)
        (now_ns,) = self._monotonic.read(row)
        # A wish to hand back counts once: an expert that is not heard any more does not wish it again and again.
        resumes = not self._expert.used
        self.streams.fill(row)
        bits = self._policy.fill(row, self._sha256) | self._expert.fill(row, self._sha256)
        policy, expert = self._policy.message, self._expert.message
        scores, round_, name, sha256, operator_id, intent, reason = _UNKNOWN, -1, "", "", "", 0, 0
        if policy is not None:
            row["inference_s"] = policy.inference_s or np.nan  # a writer that does not say it leaves 0
            scores = policy.doubt, policy.novelty, policy.deviation, policy.risk
            round_, name, sha256 = policy.round, policy.policy, policy.policy_sha256
        if expert is not None:
            operator_id = expert.operator_id
            resume = expert.resume and resumes
            intent = ExpertIntent(expert.label, expert.takeover, resume, unattended=expert.unattended).bits()
            reason = expert.reason if expert.reason in _REASONS else InterventionReason.NONE
        (policy_ns, policy_receive_ns), (expert_ns, expert_receive_ns) = self._policy.times(), self._expert.times()
        self._proposed.write(row, policy_ns, expert_ns, policy_receive_ns, expert_receive_ns, *scores)
        self._names.write(row, round_, _ascii(name), _ascii(sha256), _ascii(operator_id))
        self._wishes.write(row, intent, reason, self._requests)
        self._requests = 0
        pressed = self._estop_pressed or not _is_old(self._estop_act_ns, now_ns, self._estop_act_age_ns)
        if pressed or self._stops:
            self._stops = False
            bits |= _ESTOP_PRESSED
        if self._estop_max_age_ns is not None and _is_old(self._estop_ns, now_ns, self._estop_max_age_ns):
            bits |= _ESTOP_STALE
        if self._is_recorded and _is_old(self._recorder_ns, now_ns, self._recorder_max_age_ns):
            bits |= _RECORDER_STALE
        if self.second_writer:
            bits |= _SECOND_WRITER
        if bits:
            self._reasons.write(row, self._reasons.read(row)[0] | bits)


def _is_old(receive_ns: int, now_ns: int, max_age_ns: int) -> bool:
    return receive_ns == NEVER_NS or now_ns - receive_ns > max_age_ns


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace")
