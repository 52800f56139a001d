"""Judges a recorded rollout anew by the contract's criterion, from the true state alone and without the task's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, RowLayout

__all__ = ["JUDGES", "Judge"]

Vector = np.ndarray[Any, np.dtype[np.float64]]

Judge = Callable[[Contract, Vector], bool]
"""Whether a rollout met the criterion: of (T + 1, P) privileged observations, one before each decision and the last."""

# Of `peg`: "the tip of the peg is at least 25 mm below the rim of the hole and within 6 mm of its axis"; the rim is
# 60 mm above the origin of the hole (config/models/peg.xml).
_RIM_MM, _DEPTH_MM, _OFF_AXIS_MM = 60.0, 25.0, 6.0
# Of `lane`: the base cannot move sideways, back, or faster than its bounds by more than noise brings about; where it
# did, somebody has put it back. The closed lane goes once around the origin; a lap is known to 1 %.
_SIDEWAYS_M, _SLACK = 0.05, 1.3
_LAP_RAD = 2 * np.pi * 0.99


def _peg(contract: Contract, truth: Vector) -> bool:
    x, y, z = 1000.0 * _columns(contract, truth, "true_peg_in_hole").T
    return bool(((x**2 + y**2 < _OFF_AXIS_MM**2) & (_RIM_MM - z > _DEPTH_MM)).any())


def _lane(contract: Contract, truth: Vector) -> bool:
    position = _columns(contract, truth, "true_position")
    yaw = np.unwrap(2 * np.arctan2(*_columns(contract, truth, "true_heading").T))
    way, turn = np.diff(position, axis=0), np.diff(yaw)
    # Over one period the base drives an arc: its chord points half way between both headings.
    heading = yaw[:-1] + turn / 2
    forwards = way[:, 0] * np.cos(heading) + way[:, 1] * np.sin(heading)
    sideways = way[:, 1] * np.cos(heading) - way[:, 0] * np.sin(heading)
    fastest, turning = (_SLACK * d.upper / contract.timing.control_rate_hz for d in contract.action.dimensions_)
    moved = (np.abs(sideways) > _SIDEWAYS_M) | (forwards < -_SIDEWAYS_M) | (forwards > fastest)
    moved |= np.abs(turn) > turning
    angle = np.unwrap(np.arctan2(position[:, 1], position[:, 0]))
    finished = np.flatnonzero(angle - angle[0] >= _LAP_RAD)
    return len(finished) > 0 and not moved[: finished[0]].any()


JUDGES: dict[str, Judge] = {"peg": _peg, "lane": _lane}


def _columns(contract: Contract, truth: Vector, name: str) -> Vector:
    layout = RowLayout(contract)
    result: Vector = truth[:, layout.slices[layout.streams.index(name)]]
    return result
