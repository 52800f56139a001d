"""Reads a task contract (YAML) and gives what everything else is derived from: streams, limits, the row, its hash."""

from dagger_ros.contract.cdr import CdrReader, CdrWriter
from dagger_ros.contract.codes import Act, ExpertIntent, Intent, InterventionReason, Label, Mode
from dagger_ros.contract.decision import DecisionWriter, mode_of, read_decision
from dagger_ros.contract.errors import ContractError, DaggerError, Problem
from dagger_ros.contract.joystick import Joystick
from dagger_ros.contract.load import load_contract, parse_contract
from dagger_ros.contract.messages import StreamReader, shape_message, stamp_from_ns, stamp_ns
from dagger_ros.contract.row import DURATIONS, NEVER_NS, Row, RowLayout
from dagger_ros.contract.schema import Action, Contract, Goal, Interface, Stop, Stream
from dagger_ros.contract.scores import SCORES_OF_POLICY, Scores
from dagger_ros.contract.view import Numbers, RowView

__all__ = [
    "DURATIONS",
    "NEVER_NS",
    "SCORES_OF_POLICY",
    "Act",
    "Action",
    "CdrReader",
    "CdrWriter",
    "Contract",
    "ContractError",
    "DaggerError",
    "DecisionWriter",
    "ExpertIntent",
    "Goal",
    "Intent",
    "Interface",
    "InterventionReason",
    "Joystick",
    "Label",
    "Mode",
    "Numbers",
    "Problem",
    "Row",
    "RowLayout",
    "RowView",
    "Scores",
    "Stop",
    "Stream",
    "StreamReader",
    "load_contract",
    "mode_of",
    "parse_contract",
    "read_decision",
    "shape_message",
    "stamp_from_ns",
    "stamp_ns",
]
