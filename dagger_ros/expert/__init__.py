"""Reads the state of the task and gives an expert's action, and when a person would take over and hand back."""

from dagger_ros.expert.labeller import Expert, Labeller, ScriptedLabeller
from dagger_ros.expert.operator import OperatorSettings, SimulatedOperator

__all__ = [
    "Expert",
    "Labeller",
    "OperatorSettings",
    "ScriptedLabeller",
    "SimulatedOperator",
]
