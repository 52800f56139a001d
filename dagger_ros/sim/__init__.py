"""Reads commands and gives observations: the simulated robot, its tasks, and what can be made worse about them."""

from dagger_ros.sim.mujoco_plant import MujocoPlant, load_plant
from dagger_ros.sim.perturbation import Perturbation
from dagger_ros.sim.plant import Plant, Sample, TaskStatus
from dagger_ros.sim.rollout import rollout

__all__ = ["MujocoPlant", "Perturbation", "Plant", "Sample", "TaskStatus", "load_plant", "rollout"]
