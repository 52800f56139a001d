"""A policy that acts on pictures, as `seeing:make`, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dagger_ros.contract import Contract, Scores

__all__ = ["MADE", "Seeing", "blind", "make", "wants_another"]

MADE: list[Seeing] = []
"""What `make` gave, the last one last."""


class Seeing:
    """Its action is the mean brightness of what it saw last.

    Args:
        cameras: That it wants pictures of.
    """

    def __init__(self, cameras: tuple[str, ...]) -> None:
        self.cameras = cameras
        self.pictures: dict[str, tuple[Any, int]] = {}  # views and stamps, as they were shown
        self.acted: list[tuple[int, dict[str, int]]] = []  # stamp of the observation, and of each picture
        self.meanwhile: Callable[[], object] = lambda: None  # happens while it acts
        MADE.append(self)

    def start_episode(self) -> None:
        self.pictures.clear()

    def see(self, camera: str, picture: Any, stamp_ns: int) -> None:
        self.pictures[camera] = (picture, stamp_ns)

    def act(self, observation: Any, out: Any, stamp_ns: int) -> Scores:
        self.meanwhile()
        out[:] = sum(float(picture.mean()) for picture, _ in self.pictures.values()) / 1e4
        self.acted.append((stamp_ns, {name: shown_ns for name, (_, shown_ns) in self.pictures.items()}))
        return Scores(doubt=0.0)


def make(contract: Contract) -> Seeing:
    return Seeing(tuple(contract.cameras))


def wants_another(contract: Contract) -> Seeing:
    return Seeing(("front",))


def blind(contract: Contract) -> Any:
    """Has cameras, and cannot see."""

    class Blind:
        cameras = tuple(contract.cameras)
        start_episode = Seeing.start_episode
        act = Seeing.act

    return Blind()
