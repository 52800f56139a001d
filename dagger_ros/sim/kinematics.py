"""Inverse kinematics of a site: joint steps that move it and keep it upright."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from dagger_ros.sim.plant import Vector

__all__ = ["UprightSite"]


class UprightSite:
    """Damped least squares on the position of a site and on the orientation of its frame.

    Args:
        model: MjModel.
        site: Number of the site.
        joints: (n,) numbers of the joints that may move.

    Source: Buss (2004), Introduction to inverse kinematics with Jacobian transpose, pseudoinverse and damped least
    squares methods, section 5.
    """

    _DAMPING = 1e-4  # m^2, of the prototype in which the tasks were tuned
    _ORIENTATION_GAIN = 0.5  # share of the orientation error that one step corrects

    def __init__(self, model: Any, site: int, joints: np.ndarray[Any, Any]) -> None:
        self._model, self._site = model, site
        self._dofs = model.jnt_dofadr[joints]
        self._position, self._rotation = np.zeros((3, model.nv)), np.zeros((3, model.nv))

    def step(self, data: Any, displacement: Vector) -> Vector:
        """Joint steps for a small displacement.

        Args:
            data: MjData, with positions computed.
            displacement: (3,) of the site, in the world, m.

        Returns:
            (n,) rad.
        """
        mujoco.mj_jacSite(self._model, data, self._position, self._rotation, self._site)
        jacobian = np.concatenate([self._position, self._rotation])[:, self._dofs]
        r = data.site_xmat[self._site]  # row by row
        # Half the sum of the cross products of the frame's axes and the world's.
        tilt = 0.5 * np.array([r[5] - r[7], r[6] - r[2], r[1] - r[3]])
        wanted = np.concatenate([displacement, self._ORIENTATION_GAIN * tilt])
        step: Vector = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + self._DAMPING * np.eye(6), wanted)
        return step
