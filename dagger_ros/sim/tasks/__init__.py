"""The tasks that ship: initial state, success, scripted expert and simulated operator of each."""

from collections.abc import Callable

from dagger_ros.contract import Contract
from dagger_ros.sim.tasks.base import Task
from dagger_ros.sim.tasks.lane import LaneTask
from dagger_ros.sim.tasks.peg import PegTask
from dagger_ros.sim.tasks.reach import ReachTask

__all__ = ["TASKS", "LaneTask", "PegTask", "ReachTask", "Task"]

TASKS: dict[str, Callable[[Contract], Task]] = {"peg": PegTask, "lane": LaneTask, "reach": ReachTask}
