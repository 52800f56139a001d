"""Lane: keep a differential-drive base inside a closed lane between walls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dagger_ros.contract import Contract
from dagger_ros.expert import Expert, OperatorSettings
from dagger_ros.expert.labeller import Vector
from dagger_ros.sim.plant import TaskStatus
from dagger_ros.sim.sources import element
from dagger_ros.sim.tasks.base import privileged_slice

__all__ = ["LaneExpert", "LaneTask"]

_POINTS = 240
_HALF_WIDTH_M = 0.35  # further from the centre line the base has fallen off
_WALL_M = 0.6  # distance of the walls from the centre line
_SPEED_M_S = 1.6
# How far from the centre line and from its direction an episode begins, and goes on after a fall. One demonstrated
# lap shows one such start, so a cloned policy has not seen how to get back; the expert recovers from each.
_OFFSET_M = 0.2
_ASKEW_RAD = 0.8
_STUCK_S = 3.0
_STUCK_POINTS = 2  # less way than this in that time is standing still; a point is about 0.19 m


def _centre_line() -> tuple[Vector, Vector, Vector]:
    """Points (N, 2) m, unit tangents and unit normals to the left of a closed curve of about 44 m."""
    t = np.linspace(0, 2 * np.pi, _POINTS + 1)[:-1]
    radius = 6 + 1.2 * np.sin(3 * t) + 0.7 * np.cos(5 * t)
    points = np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1)
    tangents = np.roll(points, -1, axis=0) - points
    tangents /= np.linalg.norm(tangents, axis=1)[:, None]
    return points, tangents, np.stack([-tangents[:, 1], tangents[:, 0]], axis=1)


_LINE, _TANGENT, _NORMAL = _centre_line()


def _nearest(position: Vector) -> int:
    return int(((_LINE - position) ** 2).sum(axis=1).argmin())


class LaneExpert:
    """Pure pursuit of a point about 1.3 m ahead on the centre line, at constant speed.

    Args:
        contract: Names the privileged streams; the action is forward velocity and yaw rate.

    Source: Coulter (1992), Implementation of the pure pursuit path tracking algorithm: curvature is
    2 sin(alpha) / distance.
    """

    name = "scripted lane expert"
    _AHEAD = 7  # points

    def __init__(self, contract: Contract) -> None:
        self._position = privileged_slice(contract, "true_position")
        self._heading = privileged_slice(contract, "true_heading")
        self._bounds = [(d.lower, d.upper) for d in contract.action.dimensions_]

    def act(self, privileged: Vector, out: Vector) -> None:
        """Forward velocity, m/s, and yaw rate, rad/s."""
        position = privileged[self._position]
        if not np.isfinite(privileged).all():
            out[:] = np.nan
            return
        ahead = _LINE[(_nearest(position) + self._AHEAD) % _POINTS] - position
        alpha = np.arctan2(ahead[1], ahead[0]) - self._yaw(privileged)
        out[0] = _SPEED_M_S
        out[1] = 2 * np.sin(alpha) * _SPEED_M_S / np.linalg.norm(ahead) * _TURN_GAIN
        out[1] = np.clip(out[1], *self._bounds[1])

    def progress(self, privileged: Vector) -> float:
        """Minus the distance from the centre line, m: on this task a person watches the base, not the lap."""
        position = privileged[self._position]
        return -float(np.linalg.norm(_LINE[_nearest(position)] - position))

    def _yaw(self, privileged: Vector) -> float:
        z, w = privileged[self._heading]
        return float(2 * np.arctan2(z, w))


_TURN_GAIN = 2.2 / 1.6  # the prototype's: a little more than geometry asks for, against the actuators' lag


class LaneTask:
    """See `Task`. A fall puts the base back near the centre line, at rest; the lap goes on."""

    metric = "falls_per_lap"
    failures: tuple[str, ...] = ("fell", "too_slow")
    operator = OperatorSettings(
        tolerance=0.5,
        reaction_s=0.2,
        reaction_spread_s=0.05,
        patience_s=60.0,
        least_progress=-1e9,
        shortest_takeover_s=0.5,
        agreement_s=0.2,
        agreement=0.5,
        lapse_share=0.05,
        lapse_s=0.5,
    )

    def __init__(self, contract: Contract) -> None:
        self.expert: Expert = LaneExpert(contract)
        self.was_put_back = False
        self._horizon = contract.horizon_ticks
        self._stuck_ticks = round(_STUCK_S * contract.timing.control_rate_hz)

    def edit(self, spec: Any) -> None:
        """Adds the walls."""
        for side in (1, -1):
            corners = _LINE + side * _WALL_M * _NORMAL
            for i in range(0, _POINTS, 2):
                start, end = corners[i], corners[(i + 2) % _POINTS]
                way = end - start
                wall = spec.worldbody.add_geom()
                wall.type = mujoco.mjtGeom.mjGEOM_BOX
                wall.size = [float(np.linalg.norm(way)) / 2 + 0.02, 0.03, 0.15]
                wall.pos = [*((start + end) / 2), 0.15]
                angle = np.arctan2(way[1], way[0])
                wall.quat = [np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)]
                wall.contype = wall.conaffinity = 0  # seen by the range finder; running into it is a fall, not a crash
                wall.rgba = [0.4, 0.4, 0.45, 1.0]

    def attach(self, model: Any, data: Any, path: Path) -> None:
        """Finds the base."""
        self._data = data
        joints = [element(model, "joint", n, path=path, wanted_by="task 'lane'") for n in ("x", "y", "yaw")]
        self._places, self._dofs = model.jnt_qposadr[joints], model.jnt_dofadr[joints]

    def reset(self, rng: np.random.Generator, spread: float = 1.0) -> None:
        """Anywhere on the lane, not quite in its middle nor along it, at rest."""
        self._rng, self._spread = rng, spread
        self._at = int(rng.integers(_POINTS))
        self._put(self._at)
        self._ticks, self._falls, self._way = 0, 0, 0
        self._stuck_since, self._stuck_way = 0, 0
        self.was_put_back = False

    def step(self) -> TaskStatus:
        """Counts the way along the centre line, and falls."""
        self._ticks += 1
        position = self._data.qpos[self._places[:2]]
        at = _nearest(position)
        self._way += (at - self._at + _POINTS // 2) % _POINTS - _POINTS // 2
        self._at = at
        off = abs(float((position - _LINE[at]) @ _NORMAL[at])) > _HALF_WIDTH_M
        if self._way - self._stuck_way >= _STUCK_POINTS:
            self._stuck_since, self._stuck_way = self._ticks, self._way
        self.was_put_back = off or self._ticks - self._stuck_since >= self._stuck_ticks
        if self.was_put_back:
            self._falls += 1
            self._put(at)
            self._stuck_since, self._stuck_way = self._ticks, self._way
        return self.status()

    def status(self) -> TaskStatus:
        """Over after one lap or at the horizon."""
        finished = self._way >= _POINTS
        done = finished or self._ticks >= self._horizon
        success = finished and self._falls == 0
        failure = "" if success or not done else ("fell" if finished else "too_slow")
        return TaskStatus(done, success, failure, float(self._falls), self._way / _POINTS)

    def _put(self, at: int) -> None:
        """At rest near a point of the centre line, a little beside it and askew."""
        offset = self._spread * self._rng.uniform(-_OFFSET_M, _OFFSET_M)
        askew = self._spread * self._rng.uniform(-_ASKEW_RAD, _ASKEW_RAD)
        heading = np.arctan2(_TANGENT[at, 1], _TANGENT[at, 0]) + askew
        self._data.qpos[self._places] = *(_LINE[at] + offset * _NORMAL[at]), heading
        self._data.qvel[self._dofs] = 0.0
