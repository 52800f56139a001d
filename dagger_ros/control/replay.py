"""Recorded rows, decided again: what another gate would have done with the same inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.supervisor import INPUT_BITS, Gate

__all__ = ["replay"]

Rows = np.ndarray[Any, np.dtype[Any]]

_OUTPUTS = ("requested_action", "executed_action")


def replay(rows: Rows, gate: Gate) -> Rows:
    """Decides the rows of one episode again.

    Args:
        rows: (T,) decided rows in the order in which they were recorded, from the tick on which the gate starts.
        gate: A new one, under the contract of the rows.

    Returns:
        (T,) rows with the same inputs and what this gate made of them; the same bytes, if it is the same gate.
    """
    again = rows.copy()
    again["reasons"] &= np.uint64(INPUT_BITS)
    again["mode"] = again["intervention"] = again["intervention_reason"] = 0
    for name in _OUTPUTS:
        again[name] = np.nan
    again["label_source"] = -1
    episode = None
    for row in again:
        if (row["episode"], row["seed"]) != episode:
            episode = (row["episode"], row["seed"])
            gate.start_episode(max(int(row["seed"]), 0))
        gate.decide(row)
    return again
