"""What one decision of the supervisor costs: 12 joints, every check and every limit.

    .venv/bin/python benchmarks/decision.py [--ticks 20000] [--json FILE]

Prints percentiles of the time from a filled row to a decided one, for joints commanded by position (velocity,
acceleration, jerk and tracking limits, room to stop) and by velocity, with a workspace box, under the lightest rule and
under the heaviest. The limit that the
project sets itself is 200 us at p99. Beside it stand the same percentiles of a fixed piece of numpy work, measured
in turn with it: what of the spread is the machine's own.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, Intent, Mode, RowLayout, Scores, load_contract
from dagger_ros.supervisor import Gate, Limits, make_rule

ROOT = Path(__file__).resolve().parent.parent
JOINTS = 12
LIMIT_US = 200.0
_NUMBERS = np.zeros(JOINTS)


def arm(interface: str) -> Contract:
    """A contract for 12 joints, with every limit that the interface knows."""
    content = load_contract(ROOT / "config" / "contracts" / "peg.yaml").model_dump(mode="json", by_alias=True)
    stream = next(s for s in content["streams"].values() if s["type"].endswith("JointState"))
    quantity, unit = ("position", "rad") if interface == "position" else ("velocity", "rad/s")
    names = [f"j{i}" for i in range(JOINTS)]
    content["streams"] = {
        "measured": stream | {"select": [f"{quantity}.{n}" for n in names], "unit": unit},
        "tool": content["streams"]["tool_position"],
    }
    limits = {"jump_limit": 5.0, "tracking_limit": 3.0, "acceleration_limit": 8.0, "jerk_limit": 200.0}
    limits |= {"velocity_limit": 2.0} if interface == "position" else {"deceleration_limit": 8.0}
    content["action"] |= {
        "type": "std_msgs/msg/Float64MultiArray",
        "interface": interface,
        "stop": "hold_position" if interface == "position" else "ramp_to_zero",
        "measured": "measured",
        "workspace": [{"stream": "tool", "lower": [-1.0] * 3, "upper": [1.0] * 3}],
        "dimensions": [
            {"name": n, "select": f"data[{i}]", "unit": unit, "lower": -3.0, "upper": 3.0} | limits
            for i, n in enumerate(names)
        ],
    }
    content["simulation"] = None
    return Contract.model_validate(content)


def fixed_work() -> None:
    """About as many operations on 12 numbers as a decision needs."""
    for _ in range(70):
        np.add(_NUMBERS, _NUMBERS, out=_NUMBERS)


def measure(contract: Contract, rule: str, ticks: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(2, T) microseconds of each decision, of a policy that moves and is clamped now and then, and of fixed work.

    A script labels each tick, and answers when the rule asks for help.
    """
    layout, period_ns = RowLayout(contract), contract.timing.period_ns
    limits = Limits(Scores(doubt=0.99, risk=0.99), Scores(discrepancy=9.0, risk=0.99))
    gate = Gate(contract, make_rule(rule, round_index=1, limits=limits), auto_arm=True)
    rows = layout.new(1)
    row = rows[0]
    row["observation"] = 0.0
    row["expert_intent"] = Intent.LABEL | Intent.UNATTENDED
    scores = np.random.default_rng(0).random((ticks, 2))
    by_policy = 0
    took_us = np.empty((2, ticks))
    phase = np.linspace(0.0, np.pi, JOINTS)
    for i in range(ticks):
        now_ns = (i + 1) * period_ns
        row["time_ns"] = row["monotonic_ns"] = row["stamp_ns"] = row["receive_ns"] = now_ns
        for source in ("policy", "expert"):
            row[f"{source}_stamp_ns"] = row[f"{source}_receive_ns"] = now_ns
            row[f"{source}_action"] = np.sin(0.02 * i + phase)
        row["reasons"], row["requests"] = 0, 0
        row["doubt"], row["risk"] = scores[i]
        start = time.perf_counter_ns()
        gate.decide(row)
        decided = time.perf_counter_ns()
        fixed_work()
        took_us[:, i] = (decided - start) * 1e-3, (time.perf_counter_ns() - decided) * 1e-3
        layout.stream(row, 0)[:] = row["executed_action"]
        by_policy += row["mode"] == Mode.POLICY
    assert by_policy > ticks / 2, "the policy should drive"
    return took_us[:, 100:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    gc.disable()
    figures = {}
    for interface, rule in (("position", "hg"), ("velocity", "hg"), ("position", "thrifty")):
        took_us = measure(arm(interface), rule, options.ticks)
        (p50, p99, worst), fixed = np.percentile(took_us, [50, 99, 100], axis=1).T
        name = f"{interface} {rule}"
        figures[name] = {"p50_us": p50, "p99_us": p99, "worst_us": worst}
        figures[f"{name}, fixed work"] = dict(zip(("p50_us", "p99_us", "worst_us"), fixed, strict=True))
        verdict = "within" if p99 < LIMIT_US else "ABOVE"
        print(
            f"{name:16} {JOINTS} joints: p50 {p50:6.1f} us   p99 {p99:6.1f} us   worst {worst:7.1f} us   "
            f"{verdict} {LIMIT_US:g} us   (fixed work: p50 {fixed[0]:.1f}, p99 {fixed[1]:.1f} us)"
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"joints": JOINTS, "ticks": options.ticks, "us": figures}, indent=1))


if __name__ == "__main__":
    main()
