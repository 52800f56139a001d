"""Reads commands and gives observations: the simulated robot, its tasks, and what can go wrong with them."""

from dagger_ros.sim.faults import Fault, FaultInjector, FaultKind, load_faults
from dagger_ros.sim.mujoco_plant import MujocoPlant, load_plant
from dagger_ros.sim.perturbation import Perturbation
from dagger_ros.sim.plant import Plant, Sample, TaskStatus
from dagger_ros.sim.rollout import rollout

__all__ = [
    "Fault",
    "FaultInjector",
    "FaultKind",
    "MujocoPlant",
    "Perturbation",
    "Plant",
    "Sample",
    "TaskStatus",
    "load_faults",
    "load_plant",
    "rollout",
]
