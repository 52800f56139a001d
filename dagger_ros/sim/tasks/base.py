"""What a task adds to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dagger_ros.contract import Contract, DaggerError, RowLayout
from dagger_ros.expert import Expert, OperatorSettings
from dagger_ros.sim.plant import TaskStatus

__all__ = ["Task", "privileged_slice"]


class Task(Protocol):
    """Initial states, judgement, and who knows how to do it. `attach` comes before everything but `edit`.

    A contract that names the task has its metric and its failure labels.
    """

    metric: str
    failures: tuple[str, ...]
    expert: Expert
    operator: OperatorSettings
    was_put_back: bool

    def edit(self, spec: Any) -> None:
        """Adds to the MjSpec what the task needs in the scene."""

    def attach(self, model: Any, data: Any, path: Path) -> None:
        """Takes the compiled MjModel and its MjData; `path` is the MJCF file, for messages."""

    def reset(self, rng: np.random.Generator, spread: float = 1.0) -> None:
        """Draws the initial state into the MjData and starts counting; `spread` is a factor on its range."""

    def step(self) -> TaskStatus:
        """Judges after one control period. May put the robot back; `was_put_back` then says so."""

    def status(self) -> TaskStatus:
        """How the task stands, without moving on."""


def privileged_slice(contract: Contract, name: str) -> slice:
    """Where a privileged stream lies in the privileged observations.

    Raises:
        DaggerError: If the contract has no such stream.
    """
    layout = RowLayout(contract)
    if name in contract.streams and contract.streams[name].privileged:
        return layout.slices[layout.streams.index(name)]
    task = contract.simulation.task if contract.simulation else contract.name
    raise DaggerError(f"contract {contract.name}: task '{task}' needs a privileged stream named {name}; there is none")
