"""Reads one row a tick (what was seen and asked for) and gives what is sent: mode, reasons, executed action, label."""

from dagger_ros.supervisor.arrivals import Arrival, Arrivals
from dagger_ros.supervisor.asking import FEWEST_TICKS, Lazy, RobotGated, Thrifty, fit_thrifty
from dagger_ros.supervisor.checks import CHECKS
from dagger_ros.supervisor.gate import Gate
from dagger_ros.supervisor.help import help_words
from dagger_ros.supervisor.modes import TRANSITIONS, Event, next_mode
from dagger_ros.supervisor.reasons import ABOUT, INPUT_BITS, About, Reason, Response, response_bits
from dagger_ros.supervisor.rule import Limits, Rule, Situation
from dagger_ros.supervisor.rules import (
    BETAS,
    ROBOT_GATED,
    RULES,
    BehaviourCloning,
    Beta,
    Dagger,
    HumanGated,
    RuleOptions,
    make_rule,
)
from dagger_ros.supervisor.settings import GateSettings

__all__ = [
    "ABOUT",
    "BETAS",
    "CHECKS",
    "FEWEST_TICKS",
    "INPUT_BITS",
    "ROBOT_GATED",
    "RULES",
    "TRANSITIONS",
    "About",
    "Arrival",
    "Arrivals",
    "BehaviourCloning",
    "Beta",
    "Dagger",
    "Event",
    "Gate",
    "GateSettings",
    "HumanGated",
    "Lazy",
    "Limits",
    "Reason",
    "Response",
    "RobotGated",
    "Rule",
    "RuleOptions",
    "Situation",
    "Thrifty",
    "fit_thrifty",
    "help_words",
    "make_rule",
    "next_mode",
    "response_bits",
]
