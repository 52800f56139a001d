"""A node's parameters: each is declared once, with what `ros2 param describe` says of it, and checked here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from dagger_ros.contract import DaggerError

__all__ = ["REALTIME", "NodeParameter", "declare"]

_MOST_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class NodeParameter:
    """One parameter of a node; read when the node starts, and read-only from then on.

    Args:
        name: As in the parameter file.
        default: Also says the type. A whole number will do for a float.
        description: In words, with the meaning of special values.
        unit: SI, or of what the number is a multiple; empty: it has none.
        least: Smallest value; None: of a number that may be negative.
        most: Largest value; None: there is none.
        choices: The only values; empty: any.
    """

    name: str
    default: Any
    description: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def descriptor(self) -> ParameterDescriptor:
        """For `ros2 param describe`."""
        number = isinstance(self.default, float)
        constraints = [f"unit: {self.unit}"] if self.unit else []
        constraints += [f"one of {', '.join(self.choices)}"] if self.choices else []
        result = ParameterDescriptor(
            name=self.name,
            type=Parameter.Type.from_parameter_value(self.default).value,
            description=self.description,
            additional_constraints="; ".join(constraints),
            read_only=True,
            dynamic_typing=number,  # so that 1 will do for 1.0
        )
        if self.range and number:
            result.floating_point_range = [FloatingPointRange(from_value=self._least, to_value=self._most)]
        elif self.range:
            most = min(self._most, _MOST_INTEGER)
            result.integer_range = [IntegerRange(from_value=int(self._least), to_value=int(most))]
        return result

    @property
    def _least(self) -> float:
        return -math.inf if self.least is None else self.least

    @property
    def _most(self) -> float:
        return math.inf if self.most is None else self.most

    def checked(self, value: Any) -> Any:
        """The value, a float where the default is one.

        Raises:
            DaggerError: If it is not a number where it should be, out of range or not one of the choices.
        """
        if isinstance(self.default, float):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise DaggerError(f"parameter {self.name}: expected a number, got {value!r}")
            value = float(value)
        if self.choices and value not in self.choices:
            raise DaggerError(f"{self.name}: expected one of {', '.join(self.choices)}, got {value!r}")
        if self.range and not self._least <= value <= self._most:
            raise DaggerError(f"{self.name}: expected {self.range}, got {value:g}")
        return value

    @property
    def range(self) -> str:
        """What the number may be, in words; empty: anything."""
        if self.least is None and self.most is None:
            return ""
        unit = f" {self.unit}" if self.unit else ""
        if self.most is None:
            return f"{self.least:g} or more{unit}"
        return f"at most {self.most:g}{unit}" if self.least is None else f"{self.least:g} to {self.most:g}{unit}"


REALTIME = (
    NodeParameter(
        "realtime_priority", 0, "SCHED_FIFO priority of the process; 0: the usual scheduler", least=0, most=99
    ),
    NodeParameter("cpu_affinity", "", "cores on which the process runs, as in 2 or 0,2-3; empty: any"),
    NodeParameter("lock_memory", False, "never swap out any memory of the process"),
)


def declare(node: Node, parameters: Sequence[NodeParameter]) -> dict[str, Any]:
    """Declares the parameters of a node.

    Returns:
        Their values by name.

    Raises:
        DaggerError: If one was given that cannot be.
    """
    given: dict[str, Any] = {}
    for parameter in parameters:
        # By rclpy, what is out of range would be refused without a word of what would be in it.
        number = isinstance(parameter.default, float)
        lenient = ParameterDescriptor(description=parameter.description, dynamic_typing=number)
        value = node.declare_parameter(parameter.name, parameter.default, lenient).value
        given[parameter.name] = parameter.checked(value)
        node.set_descriptor(parameter.name, parameter.descriptor)
    return given
