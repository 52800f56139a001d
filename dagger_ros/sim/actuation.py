"""How an action of the contract moves a MuJoCo model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.contract.schema import Actuation, ActuatorsSource, PlanarBaseActuation, ToolVelocityActuation
from dagger_ros.sim.kinematics import UprightSite
from dagger_ros.sim.plant import Vector
from dagger_ros.sim.sources import element

__all__ = ["Actuator", "make_actuator"]


class Actuator(Protocol):
    """Turns actions into motion; `model` and `data` are MjModel and MjData. `body` is the one that they move."""

    body: int

    def reset(self, model: Any, data: Any) -> None:
        """The state of the robot was set from outside."""

    def start_tick(self, model: Any, data: Any, action: Vector) -> None:
        """Called once a control period, before its substeps.

        Args:
            model: MjModel.
            data: MjData.
            action: (A,) mean over the period of what the actuators' lag lets through, in the contract's units.
        """

    def substep(self, model: Any, data: Any, action: Vector) -> None:
        """Called before every simulation step, with the action as the actuators' lag lets it through."""


def make_actuator(actuation: Actuation, contract: Contract, model: Any, path: Path) -> Actuator:
    """The actuator of a contract.

    Raises:
        DaggerError: If the model lacks something that the contract names, or the sizes do not fit.
    """

    def find(kind: str, name: str) -> int:
        return element(model, kind, name, path=path, wanted_by="simulation.actuation of the contract")

    wanted = {"actuators": None, "tool_velocity": 3, "planar_base": 2}[actuation.kind]
    if isinstance(actuation, ActuatorsSource):
        wanted = len(actuation.names)
    if len(contract.action.dimensions) != wanted:
        raise DaggerError(
            f"simulation.actuation: kind '{actuation.kind}' takes {wanted} numbers, "
            f"the action has {len(contract.action.dimensions)}"
        )
    if isinstance(actuation, ActuatorsSource):
        return _Direct(np.array([find("actuator", name) for name in actuation.names]), model)
    if isinstance(actuation, PlanarBaseActuation):
        joints = [find("joint", name) for name in (actuation.x, actuation.y, actuation.yaw)]
        return _PlanarBase(
            int(model.jnt_qposadr[joints[2]]), model.jnt_dofadr[joints], int(model.jnt_bodyid[joints[2]])
        )
    return _ToolVelocity(
        actuation,
        site=find("site", actuation.site),
        joints=np.array([find("joint", name) for name in actuation.joints]),
        model=model,
        path=path,
        period_s=contract.timing.period_ns * 1e-9,
    )


class _Direct:
    def __init__(self, actuators: np.ndarray[Any, Any], model: Any) -> None:
        self._actuators = actuators
        self.body = int(model.jnt_bodyid[model.actuator_trnid[actuators[-1], 0]])

    def reset(self, model: Any, data: Any) -> None:
        pass

    def start_tick(self, model: Any, data: Any, action: Vector) -> None:
        pass

    def substep(self, model: Any, data: Any, action: Vector) -> None:
        data.ctrl[self._actuators] = action


class _PlanarBase:
    """Sets the velocity of a base that cannot slip sideways."""

    def __init__(self, yaw: int, dofs: np.ndarray[Any, Any], body: int) -> None:
        self._yaw, self._dofs, self.body = yaw, dofs, body

    def reset(self, model: Any, data: Any) -> None:
        pass

    def start_tick(self, model: Any, data: Any, action: Vector) -> None:
        pass

    def substep(self, model: Any, data: Any, action: Vector) -> None:
        heading = data.qpos[self._yaw]
        data.qvel[self._dofs] = action[0] * np.cos(heading), action[0] * np.sin(heading), action[1]


class _ToolVelocity:
    """Moves joint targets so that a site has the wanted velocity and keeps its orientation upright.

    The target never runs further ahead of the measured joints than `largest_error_rad`, so that a blocked tool
    pushes with a bounded force.
    """

    def __init__(
        self,
        actuation: ToolVelocityActuation,
        *,
        site: int,
        joints: np.ndarray[Any, Any],
        model: Any,
        path: Path,
        period_s: float,
    ) -> None:
        self.body = int(model.site_bodyid[site])
        self._kinematics = UprightSite(model, site, joints)
        self._places = model.jnt_qposadr[joints]
        actuator_of = {int(model.actuator_trnid[i, 0]): i for i in range(model.nu)}
        missing = [name for name, j in zip(actuation.joints, joints, strict=True) if int(j) not in actuator_of]
        if missing:
            raise DaggerError(f"{path}: expected a position actuator on each of {', '.join(missing)}")
        self._actuators = np.array([actuator_of[int(j)] for j in joints])
        self._largest_error = actuation.largest_error_rad
        self._period_s = period_s
        self._target = np.zeros(len(joints))

    def reset(self, model: Any, data: Any) -> None:
        self._target = data.qpos[self._places].copy()
        data.ctrl[self._actuators] = self._target

    def start_tick(self, model: Any, data: Any, action: Vector) -> None:
        step = self._kinematics.step(data, action * self._period_s)
        measured = data.qpos[self._places]
        error = np.clip(self._target + step - measured, -self._largest_error, self._largest_error)
        self._target = measured + error
        data.ctrl[self._actuators] = self._target

    def substep(self, model: Any, data: Any, action: Vector) -> None:
        pass
