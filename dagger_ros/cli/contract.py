"""The verbs about a task contract: `check` and `joystick`."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from dagger_ros.cli.tables import listed, make_console, tables
from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import Contract, DaggerError, RowLayout, load_contract

__all__ = ["add_verbs"]


def add_verbs(verbs: Verbs) -> None:
    """Adds them to the command line."""
    check = verbs.add_parser("check", help="check a task contract and show what it says")
    check.add_argument("contract", type=Path, help="YAML file")
    check.set_defaults(run=_check)

    joystick = verbs.add_parser("joystick", help="show live what each axis and button of a pad does under a contract")
    joystick.add_argument("contract", type=Path, help="task contract with a section expert, a YAML file")
    joystick.add_argument(
        "--pad", default="xbox", help="a YAML file, or the name of one in config/joysticks (default: xbox)"
    )
    joystick.add_argument("--topic", default="joy", help="topic of joy_node (default: joy)")
    joystick.add_argument("--pictures", type=int, help="end after so many pictures, ten a second (default: Ctrl-C)")
    joystick.set_defaults(run=_joystick)


def _check(options: argparse.Namespace) -> None:
    contract = load_contract(options.contract)
    if contract.simulation is not None:
        from dagger_ros.sim import load_plant

        load_plant(contract, options.contract)
    _print_contract(contract)


def _print_contract(contract: Contract) -> None:
    console = make_console()
    table = tables(console)
    timing, task, action = contract.timing, contract.task, contract.action
    console.print(f"{contract.name}: {task.description}")
    console.print(f"success: {task.criterion}; horizon {task.horizon_s:g} s = {contract.horizon_ticks} ticks")
    console.print(f"robot: {contract.robot.body}; operator: {contract.operator.source}; licence: {contract.licence}")
    streams = contract.streams.items()
    table(
        "streams",
        "name, values, unit, frame, seen by, topic",
        [(n, len(s.dimensions), s.unit, s.frame, "expert" if s.privileged else "policy", s.topic) for n, s in streams],
    )
    topics = {s.topic: (s.topic, s.type, s.rate_hz, s.max_age_s) for _, s in streams}
    table("topics", "topic, type, rate Hz, largest age s", list(topics.values()))
    if contract.cameras:
        table(
            "cameras",
            "name, topic, type, size, rate Hz, largest age s",
            [
                (n, c.topic, c.type.rpartition("/")[2], f"{c.width}x{c.height}", c.rate_hz, c.max_age_s)
                for n, c in contract.cameras.items()
            ],
        )
    table(
        f"action: {action.type} on {action.topic}; {action.interface.value} interface, stop: {action.stop.value}",
        "name, field, unit, lower, upper, limits",
        [(d.name, d.select, d.unit, d.lower, d.upper, d.limits_words) for d in action.dimensions_],
    )
    if action.workspace:
        table(
            "workspace",
            "stream, unit, lower, upper",
            [(b.stream, contract.streams[b.stream].unit, listed(b.lower), listed(b.upper)) for b in action.workspace],
        )
    table(
        "timing",
        "limit, Hz or s",
        [
            ("control rate Hz", timing.control_rate_hz),
            ("latency budget s", timing.latency_budget_s),
            ("oldest policy action s", timing.policy_max_age_s),
            ("oldest expert action s", timing.expert_max_age_s),
            ("future stamp s", timing.future_tolerance_s),
            ("hand-over at most s", action.handover.longest_s),
            ("request for help held after s", timing.help_answer_s or "no rule may ask"),
            ("e-stop heard at least every s", timing.estop_max_age_s or "not missed"),
            ("driver stops by itself after s", timing.driver_timeout_s),
        ],
    )
    metric = task.metric
    table("metric", "name, unit, goal, meaning", [(metric.name, metric.unit, metric.goal.value, metric.description)])
    table("failure labels", "label, meaning", list(task.failure_labels.items()))
    layout = RowLayout(contract)
    console.print(
        f"policy input: {layout.observation_size} values; action: {layout.action_size} values; "
        f"row: {layout.dtype.itemsize} bytes"
    )
    console.print(f"sha256: {contract.sha256}", soft_wrap=True)


def _joystick(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.live import Live

    from dagger_ros.nodes.joystick_monitor import JoystickMonitor

    if options.pictures is not None and options.pictures < 1:
        raise DaggerError(f"pictures: expected a whole number >= 1, got {options.pictures}")
    monitor = JoystickMonitor(options.contract, options.pad)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        monitor.run(lambda picture: live.update(picture, refresh=True), topic=options.topic, pictures=options.pictures)
    console.print()
