"""From the press of the deadman to the expert's first command at the plant, over many takeovers.

    .venv/bin/python benchmarks/takeover.py [--takeovers 500] [--seed 0] [--json FILE]

The nodes supervisor and expert_label run as processes of their own; this process is the driver of the robot, the
policy and the pad (`sensor_msgs/Joy`, 20 messages a second, and one at once when a button moves, as joy_node does it).
A person presses at random moments while the policy drives, pushes the stick the other way, lets go, and gives control
back.

Prints percentiles of the latency, in ms and in control periods, the longest gap between two commands, and the largest
step of the executed action at a hand-over as a share of what the contract's hand-over allows. Exits with 1 if p50 is
above one period, p99 or the longest gap above two, or a step above 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "test"))

import itertools

from conftest import next_domain
from dagger_ros.contract import Mode, stamp_ns
from graph import running_graph
from rest import DEADMAN, PATH, PEG, SOUTH, Person, rest_of_the_graph

_PERIOD_S = PEG.timing.period_ns * 1e-9
_ROUNDING = 1e-9
# A press that had no effect for so long was refused: of a pad that was silent before, because this process was held.
_PATIENCE_S = 1.0


class Driver(Person):
    """The robot's driver, the policy and the person, on a clock of 20 Hz."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.received_ns: dict[int, int] = {}  # by stamp of the command
        self._next_s = time.monotonic()

    def run_for(self, time_s: float) -> None:
        """Goes on for so long."""
        end_s = time.monotonic() + time_s
        while (now_s := time.monotonic()) < end_s:
            if now_s >= self._next_s:
                self.speak()
                self._next_s = max(self._next_s + _PERIOD_S, now_s)
            self.executor.spin_once(timeout_sec=max(0.0, min(self._next_s, end_s) - time.monotonic()))

    def _on_command(self, message: Any) -> None:
        self.received_ns[stamp_ns(message.header.stamp)] = time.monotonic_ns()
        super()._on_command(message)

    def takes_over(self) -> tuple[int, Any]:
        """Presses, and gives when (monotonic, ns) and the first decision of the expert; None: the press was refused."""
        first = len(self.decisions)
        self.press(DEADMAN)
        self.push(-1.0)
        self.send_joy()
        pressed_ns = time.monotonic_ns()
        while time.monotonic_ns() - pressed_ns < _PATIENCE_S * 1e9:
            self.run_for(0.01)
            for decision in self.decisions[first:]:
                if decision.mode == Mode.EXPERT:
                    return pressed_ns, decision
        return pressed_ns, None

    def gives_back(self, rng: np.random.Generator) -> None:
        """Lets go, waits a moment, and lets the policy drive again."""
        self.let_go(DEADMAN)
        self.push(0.0)
        self.send_joy()
        self.run_for(0.15)
        while self.decisions[-1].mode != Mode.POLICY:
            self.press(SOUTH)
            self.send_joy()
            self.run_for(0.06)
            self.let_go(SOUTH)
            self.send_joy()
            self.run_for(0.02)
        # The deadman may go on twice a second for ever; faster than that is a loose contact.
        self.run_for(rng.uniform(0.25, 0.45))


def largest_step(decisions: list[Any]) -> float:
    """Largest step of the executed action while a new driver is eased in, as a share of what is allowed."""
    action = PEG.action
    limits = np.array([max(d.acceleration_limit or 0, d.deceleration_limit or 0) for d in action.dimensions_])
    worst = 0.0
    for before, after in itertools.pairwise(decisions):
        modes = (before.mode, after.mode)
        if modes in ((Mode.POLICY, Mode.EXPERT), (Mode.HOLD, Mode.POLICY)):
            step_s = min((after.monotonic_ns - before.monotonic_ns) * 1e-9, 1.5 * _PERIOD_S)
            step = np.abs(np.asarray(after.executed_action) - np.asarray(before.executed_action))
            worst = max(worst, float((step / (limits * action.handover.limit_scale * step_s)).max()))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--takeovers", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the presses")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    os.environ["ROS_DOMAIN_ID"] = str(domain := next_domain())
    latencies_ns = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_graph(domain, Path(folder)) as graph,
        rest_of_the_graph(domain, Driver) as driver,
    ):
        graph.start("supervisor", contract=PATH, rule="hg")
        graph.start("expert_label", contract=PATH, expert="joystick", operator_id="benchmark")
        driver.arm()
        driver.gives_back(rng)
        driver.received_ns.clear()
        driver.decisions.clear()
        for _ in range(options.takeovers):
            pressed_ns, decision = driver.takes_over()
            driver.run_for(0.05)  # its command may still be on the way
            if decision is not None:
                latencies_ns.append(driver.received_ns[stamp_ns(decision.header.stamp)] - pressed_ns)
            driver.run_for(rng.uniform(0.1, 0.2))
            driver.gives_back(rng)
        gap_s = max(np.diff(sorted(driver.received_ns.values()))) * 1e-9
        step = largest_step(driver.decisions)
    p50, p99, worst = np.percentile(latencies_ns, [50, 99, 100]) * 1e-9 / _PERIOD_S
    refused = options.takeovers - len(latencies_ns)
    print(f"{len(latencies_ns)} takeovers, {refused} presses refused, control period {_PERIOD_S * 1e3:g} ms")
    for name, periods in (("p50", p50), ("p99", p99), ("worst", worst), ("longest gap", gap_s / _PERIOD_S)):
        print(f"{name:12} {periods * _PERIOD_S * 1e3:7.1f} ms  {periods:5.2f} periods")
    print(f"largest step at a hand-over: {step:.3f} of what is allowed")
    if options.json is not None:
        figures = {"p50": p50, "p99": p99, "worst": worst, "longest_gap": gap_s / _PERIOD_S, "largest_step": step}
        options.json.write_text(
            json.dumps({"takeovers": len(latencies_ns), "refused": refused, "periods": figures}, indent=1)
        )
    return int(p50 > 1 or p99 > 2 or gap_s > 2 * _PERIOD_S or step > 1 + _ROUNDING)


if __name__ == "__main__":
    sys.exit(main())
