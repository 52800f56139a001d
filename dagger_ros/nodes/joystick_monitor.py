"""Shows live what each axis and button of a pad does under a contract; drives nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rich.console import Group
from rich.table import Table
from rich.text import Text
from sensor_msgs.msg import Joy

from dagger_ros.contract import RowLayout, load_contract, stamp_ns
from dagger_ros.expert import JoystickLabeller
from dagger_ros.nodes.joy_input import mapped_pad
from dagger_ros.nodes.network import stay_on_this_machine
from dagger_ros.nodes.qos import ACT_QOS

__all__ = ["JoystickMonitor"]

# How often the picture changes.
_PICTURE_S = 0.1


class JoystickMonitor:
    """A pad under a contract, without a graph around it.

    Args:
        contract_path: The task contract.
        pad: Name or file of the pad.

    Raises:
        DaggerError: If the contract has no mapping or the pad does not fit it.
    """

    def __init__(self, contract_path: Path, pad: str) -> None:
        contract = load_contract(contract_path)
        self._contract = contract
        self._mapping, self._pad = mapped_pad(contract, contract_path, pad)
        self._labeller = JoystickLabeller(contract, self._mapping, self._pad, operator_id="monitor", shadow=False)
        self._row, self._previous = RowLayout(contract).new(2)
        dimensions = contract.action.dimensions_
        self._previous["executed_action"] = [(d.lower + d.upper) / 2 for d in dimensions]
        self._action = np.empty(len(dimensions))
        self._lasts: list[str] = []

    def receive(self, message: Any, now_ns: int, robot_ns: int) -> None:
        """Takes a Joy message, received at a monotonic time and at one of the robot's clock."""
        stamp = stamp_ns(message.header.stamp)
        delay_ns = robot_ns - stamp if stamp else 0
        acts = self._labeller.receive(message.axes, message.buttons, stamp, now_ns, delay_ns=delay_ns)
        self._lasts = (self._lasts + acts)[-6:]

    def picture(self, now_ns: int) -> Group:
        """What the pad says and what comes of it."""
        self._row["monotonic_ns"] = now_ns
        intent = self._labeller.label(self._row, self._previous, self._action)
        if np.isfinite(self._action).all():
            self._previous["executed_action"] = self._action  # a robot that does as told
        reader = self._labeller.reader
        problem = reader.problem(now_ns)
        state = f"HOLD: {problem}" if problem else "the expert drives" if intent.takeover else "counts; nobody presses"
        sticks = Table("axis", "deflection", "moves", "control", "full", title="sticks", title_justify="left")
        for entry in self._mapping.axes:
            condition = "".join(
                f" {word} {name}" for word, name in (("when", entry.when), ("unless", entry.unless)) if name
            )
            sticks.add_row(
                entry.axis,
                f"{reader.axes[entry.axis]:+.2f}",
                entry.dimension + condition,
                entry.control.value,
                f"{entry.scale:g} {entry.unit}",
            )
        action = Table("action", "value", "unit", "lower", "upper", title="what comes of it", title_justify="left")
        for value, d in zip(self._action, self._contract.action.dimensions_, strict=True):
            action.add_row(
                d.name, "none" if np.isnan(value) else f"{value:+.3f}", d.unit, f"{d.lower:g}", f"{d.upper:g}"
            )
        buttons = Table("button", "does", "", title="buttons", title_justify="left")
        for act, button in self._mapping.buttons().items():
            how = ["pressed"] if act in reader.pressed else []
            if act.startswith("modifiers.") and self._labeller.is_on(act.split(".")[1]):
                how.append("on")
            buttons.add_row(button, act, ", ".join(how))
        lasts = ", ".join(self._lasts) or "none yet"
        return Group(
            Text(f"{self._pad.description}, contract {self._contract.name}: {state}"),
            sticks,
            action,
            buttons,
            Text(f"last acts: {lasts}"),
        )

    def run(self, show: Callable[[Group], None], *, topic: str, pictures: int | None) -> None:
        """Listens and shows.

        Args:
            show: Takes each picture.
            topic: Of the pad.
            pictures: End after so many; None: go on until interrupted.
        """
        stay_on_this_machine()
        rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        node = rclpy.create_node("joystick_monitor")

        def on_joy(message: Any) -> None:
            self.receive(message, clock.now().nanoseconds, node.get_clock().now().nanoseconds)

        node.create_subscription(Joy, topic, on_joy, ACT_QOS)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            shown = 0
            while pictures is None or shown < pictures:
                end_ns = clock.now().nanoseconds + round(_PICTURE_S * 1e9)
                while (left_ns := end_ns - clock.now().nanoseconds) > 0:
                    executor.spin_once(timeout_sec=left_ns * 1e-9)
                show(self.picture(clock.now().nanoseconds))
                shown += 1
        finally:
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()
