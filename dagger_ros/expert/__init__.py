"""Reads the state of the task and gives an expert's action, and when a person would take over and hand back."""

from dagger_ros.expert.hands import OperatorAtPad, PadHands, unreached
from dagger_ros.expert.joystick import JoystickLabeller
from dagger_ros.expert.labeller import Expert, Labeller, ScriptedLabeller
from dagger_ros.expert.operator import OperatorSettings, SimulatedOperator
from dagger_ros.expert.pad import Pad, PadReader, load_pad, plain_pad

__all__ = [
    "Expert",
    "JoystickLabeller",
    "Labeller",
    "OperatorAtPad",
    "OperatorSettings",
    "Pad",
    "PadHands",
    "PadReader",
    "ScriptedLabeller",
    "SimulatedOperator",
    "load_pad",
    "plain_pad",
    "unreached",
]
