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
        distance_m: How far; 0: nothing is drawn or moved.
    """

    def __init__(self, contract: Contract, model: Any, distance_m: float) -> None:
        self._distance_m = distance_m
        # Stream; how many values; which of them are positions; along which axis each.
        self._places: list[tuple[int, int, list[int], list[int]]] = []
        self._sites: list[tuple[int, Vector]] = []  # of range finders, and where they belong
        sources = contract.simulation.sources if contract.simulation else {}
        for name in contract.perception:
            stream, source = contract.streams[name], sources.get(name)
            if isinstance(source, LidarSource):
                site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, source.site)
                self._sites.append((site, model.site_pos[site].copy()))
                continue
            axes = {f"pose.position.{axis}": i for i, axis in enumerate("xyz")}
            values = [i for i, d in enumerate(stream.dimensions) if d in axes]
            index = list(contract.streams).index(name)
            self._places.append((index, len(stream.dimensions), values, [axes[stream.dimensions[i]] for i in values]))

    def draw(self, rng: np.random.Generator, model: Any, biases: list[Any]) -> None:
        """Draws a direction, adds it to the biases of poses, and moves range finders.

        Args:
            rng: Of the episode.
            model: MjModel.
            biases: For each stream (n,) or 0.0; changed.
        """
        if not self._distance_m:
            return
        for index, size, values, axes in self._places:
            shift = np.zeros(size)
            shift[values] = self._direction(rng, 3)[axes]
            biases[index] = biases[index] + shift
        for site, place in self._sites:
            model.site_pos[site] = place + np.append(self._direction(rng, 2), 0.0)

    def _direction(self, rng: np.random.Generator, size: int) -> Vector:
        drawn = rng.standard_normal(size)
        direction: Vector = self._distance_m * drawn / np.linalg.norm(drawn)
        return direction
