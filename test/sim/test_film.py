from __future__ import annotations

import numpy as np
import pytest

from conftest import contract_path
from dagger_ros.contract import DaggerError, load_contract
from dagger_ros.sim import MujocoPlant, load_plant
from dagger_ros.sim.film import Film

pytestmark = pytest.mark.mujoco


@pytest.fixture
def plant(task: str) -> MujocoPlant:
    return load_plant(load_contract(contract_path(task)), contract_path(task))


def make_film(plant: MujocoPlant) -> Film:
    try:
        return Film(plant, width=120, height=90)
    except DaggerError as error:
        pytest.skip(str(error))


def scenes_of(plant: MujocoPlant, seeds: range) -> list[np.ndarray]:
    scenes = []
    for seed in seeds:
        plant.reset(seed)
        scenes.append(plant.scene())
    return scenes


def test_pictures_show_what_differs_and_are_the_same_each_time(plant: MujocoPlant) -> None:
    first, second = scenes_of(plant, range(2))
    with make_film(plant) as film:
        pictures = [film.close_up(scene) for scene in (first, second, first)]
    assert {picture.shape for picture in pictures} == {(90, 120, 3)}
    assert np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], pictures[1])
    assert all(picture.std() > 5 for picture in pictures)


def test_overview_shows_the_way_and_the_marked_place(plant: MujocoPlant) -> None:
    scenes = scenes_of(plant, range(3))
    with make_film(plant) as film:
        alone, way, marked = film.overview(scenes[-1:]), film.overview(scenes), film.overview(scenes, mark=1)
    assert (alone != way).any()
    assert (way != marked).any()


def test_where_nothing_draws_it_is_said_how_to_mend_it(plant: MujocoPlant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nothing")
    with pytest.raises(DaggerError, match=r"expected a way to draw without a window \(EGL.*nothing: "):
        Film(plant, width=120, height=90)
