from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import contract_path, with_cameras
from dagger_ros.contract import DaggerError, load_contract
from dagger_ros.sim import MujocoPlant, load_plant
from dagger_ros.sim.cameras import PlantCameras

pytestmark = pytest.mark.mujoco


def plant_with(path: Path, **cameras: tuple[int, int]) -> MujocoPlant:
    with_cameras(contract_path("peg"), path, **cameras)
    return load_plant(load_contract(path), path)


def cameras_of(plant: MujocoPlant, path: Path) -> PlantCameras:
    try:
        return PlantCameras(plant, path)
    except DaggerError as error:
        if "a way to draw" in str(error):
            pytest.skip(str(error))
        raise


def test_camera_of_the_model_sees_the_red_peg_above_the_block(tmp_path: Path) -> None:
    plant = plant_with(path := tmp_path / "contract.yaml", overview=(160, 120))
    cameras = cameras_of(plant, path)
    plant.reset(0)
    picture = np.zeros((120, 160, 3), np.uint8)
    cameras.draw("overview", picture)
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    peg = np.argwhere((red > 2 * green) & (red > 2 * blue) & (red > 60))
    block = np.argwhere((red > 1.2 * green) & (green > 1.2 * blue) & (red > 60))
    cameras.close()
    assert len(peg) > 20
    assert peg[:, 0].mean() < block[:, 0].mean()


def test_drawing_changes_nothing_of_the_simulation(tmp_path: Path) -> None:
    drawn, other = (plant_with(tmp_path / "contract.yaml", overview=(32, 24)) for _ in range(2))
    cameras = cameras_of(drawn, tmp_path / "contract.yaml")
    picture = np.zeros((24, 32, 3), np.uint8)
    for plant in (drawn, other):
        plant.reset(1)
        for _ in range(5):
            plant.step(np.array([0.1, 0.0, -0.1]))
            if plant is drawn:
                cameras.draw("overview", picture)
    cameras.close()
    assert (drawn.scene() == other.scene()).all()
    assert [s.values[0][1].tolist() for s in drawn.observe()] == [s.values[0][1].tolist() for s in other.observe()]


def test_camera_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    plant = plant_with(path := tmp_path / "contract.yaml", wrist=(32, 24))
    words = r"peg.xml: expected a camera named 'wrist' \(cameras.wrist of the contract\); the model has overview"
    with pytest.raises(DaggerError, match=words):
        PlantCameras(plant, path)
