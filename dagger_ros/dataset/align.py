"""Recorded samples in, rows out: what live code would have seen of them at each control tick, and what was learned.

At a tick counts what had been received by then, the newest of each stream; nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dagger_ros.contract import NEVER_NS, Intent, InterventionReason, Label, Mode, RowLayout, RowView
from dagger_ros.control import NewestStreams
from dagger_ros.dataset.rows import Rows
from dagger_ros.supervisor import Arrival, Arrivals, Reason, Response, response_bits
from dagger_ros.supervisor.checks import CHECKS, TickView
from dagger_ros.supervisor.limits import outside

__all__ = ["COMMAND", "Sample", "Tally", "align", "unlabelled"]

COMMAND = -1
"""Instead of the index of a stream: the command."""

_LOCK = response_bits(Response.LOCK)
_HOLD = response_bits(Response.HOLD, Response.HOLD_EXPERT)
_BOUND = int(Reason.CLAMPED_BOUND)
_WANTS = int(Intent.LABEL | Intent.TAKEOVER)
# Longer than any episode: the largest horizon that a contract may have.
_LONGEST_NS = 86_400 * 10**9


class Sample(NamedTuple):
    """What one message says of one stream, or of the command.

    Args:
        stream: Index in the contract's order, or `COMMAND`.
        values: (n,) float64 in the stream's unit; None: the message lacked a field.
        stamp_ns: Header stamp, ns.
        received_ns: When it was recorded, ns.
    """

    stream: int
    values: np.ndarray[Any, np.dtype[np.float64]] | None
    stamp_ns: int
    received_ns: int


@dataclass
class Tally:
    """How the messages of one stream came.

    Attributes:
        messages: All of them.
        gaps: Times that at least one was missing; of the command: that it was silent for `expert_max_age_s`.
        out_of_order: Left out, for a stamp older than the one before.
        duplicates: Left out, for the stamp of the one before.
        first_out_of_order: Its number among the messages, from 0; -1: none.
    """

    messages: int = 0
    gaps: int = 0
    out_of_order: int = 0
    duplicates: int = 0
    first_out_of_order: int = -1

    def count(self, arrival: Arrival) -> None:
        """One message."""
        if arrival is Arrival.OUT_OF_ORDER and not self.out_of_order:
            self.first_out_of_order = self.messages
        self.messages += 1
        self.gaps += arrival is Arrival.GAP
        self.out_of_order += arrival is Arrival.OUT_OF_ORDER
        self.duplicates += arrival is Arrival.DUPLICATE


def align(samples: Sequence[Sample], layout: RowLayout) -> tuple[Rows, dict[int, Tally]]:
    """Makes a row of each control tick, from when the policy's streams and the command have all come, to the end.

    The expert is whoever gave the command: where that is fresh, finite and within the bounds it is the label.
    Observations and command are judged by the checks of the supervisor. Its gate does not decide, since it would
    limit a command that was executed already, and judge the next one by what it made of this one.

    Args:
        samples: In order of `received_ns`.
        layout: Of the contract.

    Returns:
        (T,) rows, T may be 0, complete but for operator, round and episode; and a tally by stream or `COMMAND`.

    Raises:
        ValueError: If they are more than a day apart.
    """
    rows = layout.new(_most_ticks(samples, layout))
    streams, command = NewestStreams(layout), _Command(layout)
    tallies = {i: Tally() for i in (*range(len(layout.streams)), COMMAND)}
    waits = {COMMAND, *np.flatnonzero(layout.seen_by_policy).tolist()}
    judge = _Judge(layout)
    period_ns, count, next_ns = layout.contract.timing.period_ns, 0, NEVER_NS

    def tick() -> None:
        nonlocal count, next_ns
        row = rows[count]
        row["time_ns"] = row["monotonic_ns"] = next_ns
        row["tick"] = count
        streams.fill(row)
        command.fill(row)
        judge(row)
        count, next_ns = count + 1, next_ns + period_ns

    for sample in samples:
        while not waits and next_ns < sample.received_ns:
            tick()
        if sample.stream == COMMAND:
            arrival = command.put(sample)
        else:
            arrival = streams.put(sample.stream, sample.values, sample.stamp_ns, sample.received_ns)
        tallies[sample.stream].count(arrival)
        if waits:
            waits.discard(sample.stream)
            next_ns = sample.received_ns
    while not waits and next_ns <= samples[-1].received_ns:
        tick()
    rows = rows[:count]
    driven = rows["mode"] == Mode.EXPERT
    rows["intervention"] = np.cumsum(np.diff(driven, prepend=False) & driven) * driven
    rows["intervention_reason"] = np.where(driven, InterventionReason.DEMONSTRATION, InterventionReason.NONE)
    return rows, tallies


def unlabelled(rows: Rows) -> dict[str, int]:
    """Ticks without a label, by reason; a tick may have several."""
    reasons = rows["reasons"][rows["label_source"] == Label.NONE]
    counts = {str(r.name): int((reasons & np.uint64(r) != 0).sum()) for r in Reason if r & (_LOCK | _HOLD | _BOUND)}
    return {name: n for name, n in counts.items() if n}


def _most_ticks(samples: Sequence[Sample], layout: RowLayout) -> int:
    if not samples:
        return 0
    span_ns = samples[-1].received_ns - samples[0].received_ns
    if span_ns > _LONGEST_NS:
        raise ValueError(f"messages that are {span_ns * 1e-9 / 3600:.0f} h apart, at most 24 h are allowed")
    return span_ns // layout.contract.timing.period_ns + 1


class _Command:
    """The newest command."""

    def __init__(self, layout: RowLayout) -> None:
        timing = layout.contract.timing
        self._arrivals = Arrivals(round(timing.expert_max_age_s * 1e9), gaps_count=False)
        self._newest: Sample | None = None

    def put(self, sample: Sample) -> Arrival:
        arrival = self._arrivals.take(sample.stamp_ns)
        if arrival.counts:
            self._newest = sample
        return arrival

    def fill(self, row: Any) -> None:
        """Writes what the expert asks for: a deadman is pressed, and the action is its label."""
        newest = self._newest
        assert newest is not None  # there is no tick before
        row["expert_stamp_ns"], row["expert_receive_ns"] = newest.stamp_ns, newest.received_ns
        row["expert_intent"], row["expert_reason"] = _WANTS, InterventionReason.DEMONSTRATION
        if newest.values is None:
            row["reasons"] |= np.uint64(Reason.EXPERT_SIZE)
        else:
            row["expert_action"] = newest.values


class _Judge:
    """Completes rows of which streams and command are filled in."""

    def __init__(self, layout: RowLayout) -> None:
        dimensions = layout.contract.action.dimensions_
        self._layout = layout
        self._view = TickView(layout, np.inf, b"")
        # What the robot was sent before, and how it was limited, is not known: no command is too far from it.
        self._start = np.full(layout.action_size, np.nan)
        self._lower, self._upper = (np.array([getattr(d, end) for d in dimensions]) for end in ("lower", "upper"))

    def __call__(self, row: Any) -> None:
        self._view.read(RowView.of(row), intent=_WANTS)
        self._view.start_from(self._start)
        bits = self._view.reasons
        with np.errstate(all="ignore"):
            for check in CHECKS:
                bits |= check(self._view)
        if not bits & _HOLD:
            row["requested_action"] = row["executed_action"] = row["expert_action"]
            if outside(row["expert_action"], self._lower, self._upper):
                bits |= _BOUND
        if bits & _LOCK:
            row["mode"], bits = Mode.LOCKED, bits | int(Reason.NOT_ARMED)
        elif bits & _HOLD:
            row["mode"], bits = Mode.HOLD, bits | int(Reason.HELD)
        else:
            row["mode"] = Mode.EXPERT
            row["label_source"] = Label.NONE if bits & _BOUND else Label.EXPERT
        row["reasons"] = bits
