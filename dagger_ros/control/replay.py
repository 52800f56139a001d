"""Recorded rows, decided again: what another gate would have done with the same inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.supervisor import INPUT_BITS, Event, Gate

__all__ = ["replay"]

Rows = np.ndarray[Any, np.dtype[Any]]


def replay(rows: Rows, gate: Gate, *, recorded_limits: bool = True) -> Rows:
    """Decides the rows of one episode again.

    Args:
        rows: (T,) decided rows in the order in which they were recorded. Where the first one is not the start of an
            episode, the gate goes on from it, and it is returned as it is.
        gate: A new one, under the contract of the rows.
        recorded_limits: A rule that asks for help takes the limits that were in force, which may follow from episodes
            before; False: those of the gate.

    Returns:
        (T,) rows with the same inputs and what this gate made of them; the same bytes, if it is the same gate.
    """
    again = rows.copy()
    if not len(rows):
        return again
    gate.start_episode(max(int(rows[0]["seed"]), 0))
    to_decide = again
    if not rows[0]["requests"] & Event.LOCK.bit:
        gate.go_on_from(rows[0])
        to_decide = again[1:]
    to_decide["reasons"] &= np.uint64(INPUT_BITS)
    for row in to_decide:
        if recorded_limits:
            gate.take_limits(row)
        gate.decide(row)
    return again
