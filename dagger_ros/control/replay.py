"""Recorded rows, decided again: what another gate, policy or expert would have made of the same inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, SCORES_OF_POLICY, DaggerError, Label, Mode, RowLayout
from dagger_ros.control.tick import newest_ns
from dagger_ros.expert import Labeller
from dagger_ros.policy import Checkpoint, Policy
from dagger_ros.supervisor import INPUT_BITS, Event, Gate

__all__ = ["Replayed", "label_again", "propose_again", "replay"]

Rows = np.ndarray[Any, np.dtype[Any]]
Ticks = np.ndarray[Any, np.dtype[np.bool_]]
Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Replayed:
    """The rows of one episode beside what became of them.

    Args:
        recorded: (T,) as they were recorded.
        again: (T,) of the same type.
    """

    recorded: Rows
    again: Rows

    @cached_property
    def differing(self) -> dict[str, Ticks]:
        """For each field that is not the same bits everywhere, NaN but for its bits: (T,) bool, the ticks."""
        found = {}
        for name in self.recorded.dtype.names or ():
            ticks = _differ(self.recorded[name], self.again[name])
            if ticks.any():
                found[name] = ticks
        return found

    @property
    def differs(self) -> Ticks:
        """(T,) bool: the ticks at which any field does."""
        ticks = np.zeros(len(self.recorded), bool)
        for found in self.differing.values():
            ticks |= found
        return ticks

    def gaps(self, name: str) -> Values:
        """How far an action is from the recorded one: (T, A) float64, in its units; NaN where one of them is none."""
        gaps: Values = np.abs(self.again[name] - self.recorded[name])
        gaps[~np.isfinite(gaps)] = np.nan
        return gaps


def replay(rows: Rows, gate: Gate, *, recorded_limits: bool = True) -> Rows:
    """Decides the rows of one episode again.

    Args:
        rows: (T,) decided rows in the order in which they were recorded. Where the first one is not the start of an
            episode, the gate goes on from it, and it is returned as it is.
        gate: A new one, under the contract of the rows or one with the same row.
        recorded_limits: A rule that asks for help takes the limits that were in force, which may follow from episodes
            before; False: those of the gate.

    Returns:
        (T,) rows with the same inputs and what this gate made of them; the same bytes, if it is the same gate.
    """
    again = rows.copy()
    if not len(rows):
        return again
    goes_on = not rows[0]["requests"] & Event.LOCK.bit
    again[int(goes_on) :]["reasons"] &= np.uint64(INPUT_BITS)
    for row, start in zip(again, _starts(rows).tolist(), strict=True):
        if start:
            gate.start_episode(max(int(row["seed"]), 0))
        if goes_on:
            gate.go_on_from(row)
            goes_on = False
            continue
        if recorded_limits:
            gate.take_limits(row)
        gate.decide(row)
    return again


def propose_again(rows: Rows, layout: RowLayout, policy: tuple[Checkpoint, Policy]) -> Rows:
    """What a policy proposes for recorded observations; the robot did not follow it.

    Args:
        rows: (T,) rows of one episode.
        layout: Of the rows.
        policy: What it is and its network.

    Returns:
        (T,) rows with other proposals and scores where there was a proposal, of the same stamp and age. In lockstep a
        proposal is of the observation in its row; else of the newest row whose observation was there by its stamp. A
        policy that remembers has seen the proposals of the rows before, and no other.
    """
    about, network = policy
    again = rows.copy()
    newest = [newest_ns(row, layout.seen_by_policy) for row in rows]
    for i, start in enumerate(_starts(rows).tolist()):
        row, seen = again[i], i
        if start:
            network.start_episode()
        stamp_ns = int(row["policy_stamp_ns"])
        if stamp_ns == NEVER_NS:
            continue
        while seen > 0 and newest[seen] > stamp_ns:
            seen -= 1
        scores = network.act(rows[seen]["observation"], row["policy_action"], stamp_ns)
        for name in SCORES_OF_POLICY:
            row[name] = getattr(scores, name)
        row["policy_round"] = about.round
        row["policy"], row["policy_sha256"] = about.name.encode(), about.weights_sha256.encode()
    return again


def label_again(rows: Rows, layout: RowLayout, labeller: Labeller) -> Rows:
    """Recorded rows with an expert's action as the label of every frame that is whole; who drove stays as it was.

    Args:
        rows: (T,) rows of one episode.
        layout: Of the rows.
        labeller: Labels every state.

    Returns:
        (T,) rows with its actions, reasons and name, and no other label.

    Raises:
        DaggerError: If no row has what the expert sees.
    """
    again = rows.copy()
    labeller.start_episode(max(int(rows[0]["seed"]), 0) if len(rows) else 0)
    whole = (rows["receive_ns"] != NEVER_NS).all(1)
    whole &= np.isfinite(rows["observation"]).all(1) & np.isfinite(rows["privileged"]).all(1)
    if not whole.any():
        streams = ", ".join(np.array(layout.streams)[layout.seen_by_expert])
        raise DaggerError(f"expected ticks with everything that {labeller.operator_id} sees ({streams}), found none")
    # Nobody has said how far the policy is from this expert.
    again["discrepancy"] = np.nan
    again["label_source"] = Label.NONE
    # Nor how long after what this expert saw the other one's command went out.
    again["command_s"][again["mode"] == Mode.EXPERT] = np.nan
    for i, row in enumerate(again):
        intent = labeller.label(row, rows[i - 1] if i else None, row["expert_action"])
        row["expert_intent"], row["expert_reason"] = intent.bits(), intent.reason
        row["operator_id"] = labeller.operator_id.encode("ascii", "replace")
        row["expert_stamp_ns"] = newest_ns(row, layout.seen_by_expert)
        row["expert_receive_ns"] = NEVER_NS if row["expert_stamp_ns"] == NEVER_NS else row["monotonic_ns"]
        if whole[i] and np.isfinite(row["expert_action"]).all():
            row["label_source"] = Label.EXPERT
    return again


def _starts(rows: Rows) -> Ticks:
    """(T,) bool: where an episode begins. A recorder may be ahead of the others, which hear of it a few ticks later."""
    starts = np.ones(len(rows), bool)
    changes = (np.diff(rows["episode"]) != 0) | (np.diff(rows["seed"]) != 0)
    starts[1:] = changes & (rows["episode"][1:] >= 0)
    return starts


def _differ(recorded: np.ndarray[Any, Any], again: np.ndarray[Any, Any]) -> Ticks:
    """(T,) bool: where two columns are not the same bits; one NaN is as good as another."""
    differ = recorded != again
    if recorded.dtype.kind == "f":
        differ |= np.signbit(recorded) != np.signbit(again)  # of zeros, too
        differ &= ~(np.isnan(recorded) & np.isnan(again))
    ticks: Ticks = differ.any(axis=tuple(range(1, differ.ndim)))
    return ticks
