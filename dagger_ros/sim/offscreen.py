"""Draws scenes of a MuJoCo model without a window."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import mujoco
import numpy as np

from dagger_ros.contract import DaggerError

__all__ = ["Offscreen", "Picture"]

Picture = np.ndarray[Any, np.dtype[np.uint8]]
"""(height, width, 3) RGB."""

# A software renderer spends most of its time on shadows of 4096 x 4096 and on smooth edges; neither is missed in small
# pictures. Below 1024 shadows get spots.
_SHADOW_PX = 1024
_MOST_PARTS_WITH_SHADOW = 100
# That a scene has room for, as in mujoco.Renderer: a tendon alone is many.
_MOST_THINGS = 10_000


class Offscreen:
    """A place to draw to. `close` gives its memory on the graphics device back.

    Args:
        model: MjModel; how well it is drawn is changed in it.
        width: Of the largest picture, pixels.
        height: Of the largest picture, pixels.

    Attributes:
        option: What is shown.

    Raises:
        DaggerError: If nothing here can draw without a window.
    """

    def __init__(self, model: Any, *, width: int, height: int) -> None:
        self._model = model
        self._context, self.renderer = _make_context(width, height)
        model.vis.quality.shadowsize, model.vis.quality.offsamples = _SHADOW_PX, 0
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self._scene = mujoco.MjvScene(model, maxgeom=_MOST_THINGS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = model.ngeom <= _MOST_PARTS_WITH_SHADOW
        self.option = mujoco.MjvOption()
        self._device = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._device)
        self._pixels = np.zeros(3 * width * height, np.uint8)

    def see(self, data: Any, camera: Any) -> Any:
        """Takes what a camera sees.

        Args:
            data: MjData with positions computed.
            camera: MjvCamera.

        Returns:
            The MjvScene, to which things can be added before `draw`.
        """
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self.option, None, camera, every, self._scene)
        return self._scene

    def draw(self, out: Picture) -> None:
        """Draws what was seen last.

        Args:
            out: Filled; not larger than the largest picture.
        """
        height, width, _ = out.shape
        self._context.make_current()  # there may be another one in this process
        rectangle = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(rectangle, self._scene, self._device)
        pixels = self._pixels[: out.size]
        mujoco.mjr_readPixels(pixels, None, rectangle, self._device)
        np.copyto(out, pixels.reshape(out.shape)[::-1])

    def close(self) -> None:
        """Gives back what the graphics device holds."""
        self._device.free()
        self._context.free()


def _make_context(width: int, height: int) -> tuple[Any, str]:
    """An OpenGL context that is current, and its kind: EGL, or OSMesa, or a hidden window; MUJOCO_GL names another."""
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    kinds = ["egl", "osmesa"] if sys.platform == "linux" else []
    if sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ:
        kinds.append("glfw")
    said = []
    for kind in [wanted] if wanted else kinds:
        try:
            context = importlib.import_module(f"mujoco.{kind}").GLContext(width, height)
            context.make_current()
        except Exception as error:  # whatever a driver or its binding raises, this way is closed
            said.append(f"{kind}: {error}")
            continue
        return context, kind
    raise DaggerError(
        "pictures: expected a way to draw without a window (EGL, as of Debian's libegl1 and libgl1-mesa-dri, or "
        f"OSMesa); {'; '.join(said) or 'there is none'}"
    )
