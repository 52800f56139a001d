"""Reads one row a tick (what was seen and asked for) and gives what is sent: mode, reasons, executed action, label."""

from dagger_ros.supervisor.gate import Gate
from dagger_ros.supervisor.modes import TRANSITIONS, Event, next_mode
from dagger_ros.supervisor.reasons import Reason
from dagger_ros.supervisor.rules import BETAS, RULES, BehaviourCloning, Beta, Dagger, HumanGated, Rule, make_rule

__all__ = [
    "BETAS",
    "RULES",
    "TRANSITIONS",
    "BehaviourCloning",
    "Beta",
    "Dagger",
    "Event",
    "Gate",
    "HumanGated",
    "Reason",
    "Rule",
    "make_rule",
    "next_mode",
]
