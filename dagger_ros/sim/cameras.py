"""What the cameras of a contract see of a simulated robot."""

from __future__ import annotations

from pathlib import Path

import mujoco

from dagger_ros.contract import Contract
from dagger_ros.sim.mujoco_plant import MujocoPlant
from dagger_ros.sim.offscreen import Offscreen, Picture
from dagger_ros.sim.sources import element

__all__ = ["PlantCameras"]


class PlantCameras:
    """Draws the cameras of a contract, which are those of the same names in the model. Perturbations leave them alone.

    Args:
        plant: Is drawn as it stands; nothing of its state changes.
        contract_path: The contract's file, to which the model's path is relative.

    Raises:
        DaggerError: If the model lacks a camera, or nothing here can draw.
    """

    def __init__(self, plant: MujocoPlant, contract_path: str | Path) -> None:
        cameras = plant.contract.cameras
        path = _model_path(plant.contract, contract_path)
        self._data = plant.data
        self._cameras = {}
        for name in cameras:
            camera = mujoco.MjvCamera()
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = element(
                plant.model, "camera", name, path=path, wanted_by=f"cameras.{name} of the contract"
            )
            self._cameras[name] = camera
        self._canvas = Offscreen(
            plant.model,
            width=max(c.width for c in cameras.values()),
            height=max(c.height for c in cameras.values()),
        )
        self._canvas.option.sitegroup[:] = 0  # marks of the model's author, which no robot sees

    def draw(self, name: str, out: Picture) -> None:
        """Draws what a camera sees now.

        Args:
            name: Of the camera.
            out: (height, width, 3) uint8 RGB as the contract says; filled.
        """
        self._canvas.see(self._data, self._cameras[name])
        self._canvas.draw(out)

    def close(self) -> None:
        """Gives back what the graphics device holds."""
        self._canvas.close()


def _model_path(contract: Contract, contract_path: str | Path) -> Path:
    assert contract.simulation is not None  # there is a plant of it
    return Path(contract_path).parent / contract.simulation.model
