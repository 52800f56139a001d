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
    stamp_ns,
)
from dagger_ros.control.streams import NewestStreams
from dagger_ros.supervisor import Arrival, Arrivals, Event, Reason

__all__ = ["Inbox"]


class _Proposals:
    """The newest proposal of one source.

    Args:
        name: `policy` or `expert`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.message: Any = None
        self.receive_ns = NEVER_NS
        self.used = True  # a decision was made with it
        self._notes = 0
        # Numbers of a counter; one that is lost on the way is a fault of the connection.
        self._arrivals = Arrivals(1, gaps_count=True)

    def put(self, message: Any, receive_ns: int) -> bool:
        """Takes a message, and says whether it counts."""
        arrival = self._arrivals.take(int(message.sequence))
        if arrival is not Arrival.NEXT:
            self._notes |= int(Reason[f"{self.name.upper()}_{arrival.name}"])
        if arrival.counts:
            self.message, self.receive_ns, self.used = message, receive_ns, False
        return arrival.counts

    def clear(self) -> None:
        """As if nothing had been received; the counter goes on."""
        self.message, self.receive_ns = None, NEVER_NS

    def fill(self, row: Row, contract_sha256: str) -> None:
        """Writes action, stamp and time of receipt, and what is to be said of the message."""
        bits, self._notes = self._notes, 0
        prefix = self.name.upper()
        if self._arrivals.invalid:
            bits |= int(Reason[f"{prefix}_SEQUENCE"])
        message = self.message
        if message is not None:
            row[f"{self.name}_stamp_ns"] = stamp = stamp_ns(message.header.stamp)
            row[f"{self.name}_receive_ns"] = NEVER_NS if stamp == NEVER_NS else self.receive_ns
            values = np.asarray(message.action)
            if values.shape == row[f"{self.name}_action"].shape:
                row[f"{self.name}_action"] = values
            else:
                bits |= int(Reason[f"{prefix}_SIZE"])
            if message.contract_sha256 != contract_sha256:
                bits |= int(Reason[f"{prefix}_CONTRACT"])
            self.used = True
        row["reasons"] |= np.uint64(bits)


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

    def put_policy(self, message: Any, receive_ns: int) -> None:
        """Takes a PolicyAction, received at a monotonic time."""
        self._policy.put(message, receive_ns)

    def put_expert(self, message: Any, receive_ns: int) -> None:
        """Takes an ExpertAction. A hand-back is one message long and may come between two ticks: it is kept."""
        before, used = self._expert.message, self._expert.used
        if self._expert.put(message, receive_ns):
            message.resume |= before is not None and before.resume and not used

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
        now_ns = int(row["monotonic_ns"])
        # A wish to hand back counts once: an expert that is not heard any more does not wish it again and again.
        resumes = not self._expert.used
        self.streams.fill(row)
        self._policy.fill(row, self._sha256)
        self._expert.fill(row, self._sha256)
        if self.policy is not None:
            for name in SCORES_OF_POLICY:
                row[name] = getattr(self.policy, name)
            row["policy_round"] = self.policy.round
            row["policy"], row["policy_sha256"] = _ascii(self.policy.policy), _ascii(self.policy.policy_sha256)
        if self.expert is not None:
            row["operator_id"] = _ascii(self.expert.operator_id)
            expert = self.expert
            resume = expert.resume and resumes
            intent = ExpertIntent(expert.label, expert.takeover, resume, unattended=expert.unattended)
            row["expert_intent"] = intent.bits()
            known = expert.reason in InterventionReason.__members__.values()
            row["expert_reason"] = expert.reason if known else InterventionReason.NONE
        row["requests"], self._requests = self._requests, 0
        bits = 0
        pressed = self._estop_pressed or not _is_old(self._estop_act_ns, now_ns, self._estop_act_age_ns)
        if pressed or self._stops:
            self._stops = False
            bits |= int(Reason.ESTOP_PRESSED)
        if self._estop_max_age_ns is not None and _is_old(self._estop_ns, now_ns, self._estop_max_age_ns):
            bits |= int(Reason.ESTOP_STALE)
        if self._is_recorded and _is_old(self._recorder_ns, now_ns, self._recorder_max_age_ns):
            bits |= int(Reason.RECORDER_STALE)
        if self.second_writer:
            bits |= int(Reason.SECOND_WRITER)
        if bits:
            row["reasons"] |= np.uint64(bits)


def _is_old(receive_ns: int, now_ns: int, max_age_ns: int) -> bool:
    return receive_ns == NEVER_NS or now_ns - receive_ns > max_age_ns


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace")
