"""A sensor of the world that has moved since it was calibrated."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from dagger_ros.contract import Contract
from dagger_ros.contract.schema import LidarSource
from dagger_ros.sim.plant import Vector

__all__ = ["CameraShift"]


class CameraShift:
    """Shifts what a policy sees of the world by a distance, in a direction drawn for each episode.

    Args:
        contract: Its `perception` names the streams.
        model: MjModel; a range finder's site is moved in it.
        distance: How far, in resolutions of each stream; 0: nothing is drawn or moved.
    """

    def __init__(self, contract: Contract, model: Any, distance: float) -> None:
        self._distance = distance
        # Stream; its resolution; how many values; which of them are positions; along which axis each.
        self._places: list[tuple[int, float, int, list[int], list[int]]] = []
        self._sites: list[tuple[int, float, Vector]] = []  # of range finders: resolution, and where it belongs
        sources = contract.simulation.sources if contract.simulation else {}
        for name in contract.perception:
            stream, source = contract.streams[name], sources.get(name)
            if isinstance(source, LidarSource):
                site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, source.site)
                self._sites.append((site, stream.resolution, model.site_pos[site].copy()))
                continue
            axes = {f"pose.position.{axis}": i for i, axis in enumerate("xyz")}
            values = [i for i, d in enumerate(stream.dimensions) if d in axes]
            index = list(contract.streams).index(name)
            along = [axes[stream.dimensions[i]] for i in values]
            self._places.append((index, stream.resolution, len(stream.dimensions), values, along))

    def draw(self, rng: np.random.Generator, model: Any, data: Any, biases: list[Any]) -> None:
        """Draws a direction, adds it to the biases of poses, and moves range finders.

        Args:
            rng: Of the episode.
            model: MjModel.
            data: MjData, with positions computed; sites are computed anew.
            biases: For each stream (n,) or 0.0; changed.
        """
        if not self._distance:
            return
        for index, resolution, size, values, axes in self._places:
            shift = np.zeros(size)
            shift[values] = self._shift(rng, 3, resolution)[axes]
            biases[index] = biases[index] + shift
        for site, resolution, place in self._sites:
            model.site_pos[site] = place + np.append(self._shift(rng, 2, resolution), 0.0)
            model.site_sameframe[site] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE  # else its place in the body is not read
        mujoco.mj_kinematics(model, data)

    def _shift(self, rng: np.random.Generator, size: int, resolution: float) -> Vector:
        drawn = rng.standard_normal(size)
        shift: Vector = self._distance * resolution * drawn / np.linalg.norm(drawn)
        return shift
