"""Reach: bring the tool of a 6-DoF arm to a target, by joint positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, DaggerError, Interface
from dagger_ros.expert import Expert, OperatorSettings
from dagger_ros.expert.labeller import Vector
from dagger_ros.sim.plant import TaskStatus
from dagger_ros.sim.sources import element
from dagger_ros.sim.tasks.base import privileged_slice

__all__ = ["ReachExpert", "ReachTask"]

_NEAR_M = 0.015
_HOLD_S = 0.5
# Of config/models/arm.xml: height of the shoulder, the two links, and from the wrist to the tool along both.
_SHOULDER_M, _UPPER_ARM_M, _FOREARM_M, _FLANGE_M, _TOOL_M = 0.35, 0.32, 0.28, 0.06, 0.105
# Where the tool starts, and where its target is; all of it within reach, also with a quarter more of spread.
_MIDDLE_M = np.array([0.45, 0.0, 0.25])
_SPREAD_M = np.array([0.08, 0.2, 0.1])
# How far ahead of where the joints are they are told to go: more than they lag behind a command, so that the limits of
# the contract set the speed.
_AHEAD_RAD = 0.25


def _joints_at(tool: Vector) -> Vector:
    """Joint positions, (6,) rad, with the elbow up and the tool straight down at a place, (3,) m; nearest to it."""
    x, y, z = tool
    out, up = np.hypot(x, y) - _FLANGE_M, z + _TOOL_M - _SHOULDER_M  # of the wrist, from the shoulder
    bend = (out**2 + up**2 - _UPPER_ARM_M**2 - _FOREARM_M**2) / (2 * _UPPER_ARM_M * _FOREARM_M)
    elbow = np.arccos(np.clip(bend, -1, 1))
    rise = np.arctan2(up, out) + np.arctan2(_FOREARM_M * np.sin(elbow), _UPPER_ARM_M + _FOREARM_M * np.cos(elbow))
    return np.array([np.arctan2(y, x), -rise, elbow, rise - elbow, 0.0, 0.0])


class ReachExpert:
    """Goes straight to the target, in the space of joints.

    Args:
        contract: Names the privileged streams; the action is the position of each joint, in rad.

    Raises:
        DaggerError: If the action is not one of positions.
    """

    name = "scripted reach expert"

    def __init__(self, contract: Contract) -> None:
        if contract.action.interface is not Interface.POSITION:
            raise DaggerError(
                f"contract {contract.name}: task 'reach' needs action.interface position, of 6 joints; "
                f"found {contract.action.interface.value}"
            )
        self._joints = privileged_slice(contract, "true_joint_position")
        self._target = privileged_slice(contract, "true_target")

    def act(self, privileged: Vector, out: Vector) -> None:
        """Joint positions, (6,) rad: the target's, or a little ahead on the way there."""
        way = self._way(privileged)
        way *= _AHEAD_RAD / np.maximum(_AHEAD_RAD, np.abs(way).max())
        out[:] = privileged[self._joints] + way

    def progress(self, privileged: Vector) -> float:
        """Minus the way that is left, rad."""
        return -float(np.abs(self._way(privileged)).max())

    def _way(self, privileged: Vector) -> Vector:
        way: Vector = _joints_at(privileged[self._target]) - privileged[self._joints]
        return way


class ReachTask:
    """See `Task`."""

    metric = "success"
    failures: tuple[str, ...] = ("not_reached", "not_held")
    operator = OperatorSettings(
        tolerance=0.1,
        reaction_s=0.15,
        reaction_spread_s=0.05,
        patience_s=1.0,
        least_progress=0.02,
        shortest_takeover_s=0.4,
        agreement_s=0.1,
        agreement=0.5,
        lapse_share=0.05,
        lapse_s=0.5,
    )
    was_put_back = False

    def __init__(self, contract: Contract) -> None:
        self.expert: Expert = ReachExpert(contract)
        self._horizon = contract.horizon_ticks
        self._hold_ticks = round(_HOLD_S * contract.timing.control_rate_hz)

    def edit(self, spec: Any) -> None:
        """The model is whole."""

    def attach(self, model: Any, data: Any, path: Path) -> None:
        """Finds joints, tool and target."""
        self._data = data
        wanted_by = "task 'reach'"
        self._tool = element(model, "site", "tool", path=path, wanted_by=wanted_by)
        target = element(model, "body", "target", path=path, wanted_by=wanted_by)
        self._target = model.body_mocapid[target]
        names = [f"joint_{i}" for i in range(1, 7)]
        joints = [element(model, "joint", name, path=path, wanted_by=wanted_by) for name in names]
        self._places = model.jnt_qposadr[joints]

    def reset(self, rng: np.random.Generator, spread: float = 1.0) -> None:
        """Tool and target anywhere in their range, the arm at rest."""
        start, target = _MIDDLE_M + spread * rng.uniform(-1, 1, (2, 3)) * _SPREAD_M
        self._data.qpos[self._places] = _joints_at(start)
        self._data.mocap_pos[self._target] = target
        self._ticks, self._near_ticks, self._came_near = 0, 0, False

    def step(self) -> TaskStatus:
        """Counts for how long the tool is at the target."""
        self._ticks += 1
        is_near = self._distance_m() < _NEAR_M
        self._near_ticks = self._near_ticks + 1 if is_near else 0
        self._came_near |= is_near
        return self.status()

    def status(self) -> TaskStatus:
        """Success as the contract words it; else which way it failed."""
        success = self._near_ticks >= self._hold_ticks
        done = success or self._ticks >= self._horizon
        failure = "" if success or not done else ("not_held" if self._came_near else "not_reached")
        return TaskStatus(done, success, failure, float(success), -self._distance_m())

    def _distance_m(self) -> float:
        return float(np.linalg.norm(self._data.site_xpos[self._tool] - self._data.mocap_pos[self._target]))
