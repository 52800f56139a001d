"""Pictures of simulated scenes, without a window: near what the action moves, and of everything with the way gone.

Drawing is best done in a process of its own, which a graphics driver may end: `draw_strip` is for that.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import PIL.Image

from dagger_ros.contract import load_contract
from dagger_ros.sim.mujoco_plant import MujocoPlant, load_plant
from dagger_ros.sim.offscreen import Offscreen, Picture
from dagger_ros.sim.plant import Vector

__all__ = ["Film", "Picture", "draw_strip"]

_CAMERA = "overview"
# Distance of the camera in a close-up, in radii of the largest part of the moved body: its surroundings are seen too.
_CLOSE = 9.0
# Pixels without anything, which MuJoCo leaves black: paper, so that a printed page is not mostly ink.
_NOTHING = np.array([226, 228, 231], np.uint8)
_WAY_RGBA = np.array([0.95, 0.5, 0.0, 1.0], np.float32)
_MARK_RGBA = np.array([0.8, 0.0, 0.55, 1.0], np.float32)
_MOST_WAY = 100
_QUALITY = 50  # of WebP, of 100


class Film:
    """Draws the scenes of a plant. `close` gives its memory on the graphics device back.

    Args:
        plant: Its model is drawn; its state is changed by every picture.
        width: Of a picture, pixels.
        height: Of a picture, pixels.

    Raises:
        DaggerError: If nothing here can draw without a window.
    """

    def __init__(self, plant: MujocoPlant, *, width: int, height: int) -> None:
        self._plant = plant
        model = plant.model
        self._canvas = Offscreen(model, width=width, height=height)
        self.renderer = self._canvas.renderer
        self._shape = (height, width, 3)
        self._whole = mujoco.MjvCamera()
        named = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, _CAMERA)
        if named >= 0:
            self._whole.type, self._whole.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, named
        else:
            mujoco.mjv_defaultFreeCamera(model, self._whole)
        self._near = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._near)
        if named >= 0:
            self._near.azimuth, self._near.elevation = _direction(plant.data.cam_xmat[named].reshape(3, 3))
        parts = model.geom_bodyid == plant.moved_body
        self._near.distance = _CLOSE * float(model.geom_rbound[parts].max()) if parts.any() else 0.3 * model.stat.extent

    def close_up(self, scene: Vector) -> Picture:
        """What surrounds the body that the action moves.

        Args:
            scene: (S,) as `MujocoPlant.scene` gives it.

        Returns:
            A copy.
        """
        self._plant.show(scene)
        self._near.lookat[:] = self._place()
        return self._draw(self._near, [], None)

    def overview(self, scenes: Sequence[Vector] | Vector, mark: int | None = None) -> Picture:
        """Everything as it stood last, with the way that the moved body went.

        Args:
            scenes: (T, S) as `MujocoPlant.scene` gives them.
            mark: Index of the scene whose place is marked with a cube; None: no mark.

        Returns:
            A copy.
        """
        chosen = np.linspace(0, len(scenes) - 1, min(len(scenes), _MOST_WAY)).round().astype(int)
        way = [self._place_in(scenes[i]) for i in chosen]
        marked = self._place_in(scenes[mark]) if mark is not None else None
        self._plant.show(scenes[-1])
        return self._draw(self._whole, way, marked)

    def close(self) -> None:
        """Gives back what the graphics device holds."""
        self._canvas.close()

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place(self) -> Vector:
        place: Vector = self._plant.data.xipos[self._plant.moved_body].copy()
        return place

    def _place_in(self, scene: Vector) -> Vector:
        self._plant.show(scene)
        return self._place()

    def _draw(self, camera: Any, way: Sequence[Vector], marked: Vector | None) -> Picture:
        scene = self._canvas.see(self._plant.data, camera)
        width = 0.004 * self._plant.model.stat.extent
        for start, end in itertools.pairwise(way):
            geom = _new_geom(scene, _WAY_RGBA)
            mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_CAPSULE, width, start, end)
        if marked is not None:
            cube = _new_geom(scene, _MARK_RGBA)
            cube.type, cube.pos[:], cube.size[:] = mujoco.mjtGeom.mjGEOM_BOX, marked, 3 * width
        picture = np.empty(self._shape, np.uint8)
        self._canvas.draw(picture)
        picture[(picture == 0).all(axis=2)] = _NOTHING
        return picture


def draw_strip(
    contract_path: Path,
    scenes: np.ndarray[Any, np.dtype[np.float32]],
    indices: Sequence[int],
    mark: int | None,
    *,
    width: int,
    height: int,
) -> tuple[bytes, bytes]:
    """Draws one rollout; what it needs for that stays for the next one of the same contract.

    Args:
        contract_path: The contract, beside which its model lies.
        scenes: (T, S) as `MujocoPlant.scene` gives them.
        indices: Of the scenes of which there are pictures.
        mark: See `Film.overview`.
        width: Of a picture, pixels.
        height: Of a picture, pixels.

    Returns:
        WebP of the close-ups side by side, and of the overview.

    Raises:
        DaggerError: If there is no such plant, or nothing here can draw.
    """
    film = _film_of(contract_path, width, height)
    places = scenes.astype(float)
    near = np.concatenate([film.close_up(places[i]) for i in indices], axis=1)
    return _webp(near), _webp(film.overview(places, mark))


@functools.lru_cache(maxsize=1)
def _film_of(contract_path: Path, width: int, height: int) -> Film:
    return Film(load_plant(load_contract(contract_path), contract_path), width=width, height=height)


def _new_geom(scene: Any, rgba: np.ndarray[Any, Any]) -> Any:
    geom = scene.geoms[scene.ngeom]
    scene.ngeom += 1
    mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_BOX, np.zeros(3), np.zeros(3), np.eye(3).ravel(), rgba)
    geom.emission = 0.4
    return geom


def _webp(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, "webp", quality=_QUALITY, method=2)
    return buffer.getvalue()


def _direction(axes: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Azimuth and elevation, degrees, of a free camera that looks as a fixed one does, whose axes are the columns."""
    up, forward = axes[:, 1], -axes[:, 2]
    # Of a camera that looks straight down only its up says where north is.
    azimuth = np.degrees(np.arctan2(*(forward[:2] + up[:2])[::-1]))
    return float(azimuth), float(np.degrees(np.arcsin(np.clip(forward[2], -1, 1))))
