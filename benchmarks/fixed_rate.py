"""How steadily the supervisor keeps 500 Hz with the other core loaded, and what it does after a stall.

    .venv/bin/python benchmarks/fixed_rate.py [--rate 500] [--seconds 60] [--json FILE]

Runs the supervisor node in a process of its own on one core; a busy loop and the listener share the other. Prints the
ticks that were asked for, made and missed, the intervals between commands, and, after the process was stopped for
0.1 s (SIGSTOP) five times, the shortest interval: a burst would show there. Exit status 1 on a burst, or when ticks
are missing that no decision counts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "test"))

from conftest import next_domain
from dagger_ros.msg import GateDecision
from dagger_ros.nodes.qos import GraphQos
from graph import running_graph

_STALL_S = 0.1
_STALLS = 5
# A tick after a late one is on time again, so it may follow sooner; a burst are several at once.
_BURST_SHARE = 0.1


def contract_at(rate_hz: float, folder: Path) -> Path:
    """The lane's contract at another control rate; nothing is simulated."""
    content = yaml.safe_load((ROOT / "config" / "contracts" / "lane.yaml").read_text())
    del content["simulation"]
    content["timing"] |= {"control_rate_hz": rate_hz, "latency_budget_s": 0.5 / rate_hz}
    path = folder / "fast.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="Hz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    period_s = 1 / options.rate
    os.environ["ROS_DOMAIN_ID"] = str(domain := next_domain())
    seen: list[tuple[int, int]] = []  # monotonic time and missed ticks of each decision
    with tempfile.TemporaryDirectory() as folder, running_graph(domain, Path(folder)) as graph:

        def on_decision(decision: Any) -> None:
            seen.append((decision.monotonic_ns, decision.missed_ticks))

        graph.node.create_subscription(GateDecision, "supervisor/decision", on_decision, GraphQos(False).record)
        graph.start("supervisor", contract=contract_at(options.rate, Path(folder)))
        process = graph.processes["supervisor"]
        os.sched_setaffinity(process.pid, {cores[0]})
        os.sched_setaffinity(0, {cores[-1]})
        load = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
        os.sched_setaffinity(load.pid, {cores[-1]})
        try:
            graph.wait_for(lambda: len(seen) > options.rate)  # warm
            seen.clear()
            listen(graph, options.seconds)
            steady = np.array(seen)
            seen.clear()
            for _ in range(_STALLS):
                process.send_signal(signal.SIGSTOP)
                time.sleep(_STALL_S)
                process.send_signal(signal.SIGCONT)
                listen(graph, 0.5)
            stalled = np.array(seen)
        finally:
            load.kill()
            load.wait()
    figures = {"steady": judge(steady, period_s), "after_stalls": judge(stalled, period_s)}
    print(f"{options.rate:g} Hz, period {1e3 * period_s:g} ms, the other core loaded")
    for name, f in figures.items():
        print(
            f"{name:13} {f['ticks']:6.0f} ticks, {f['missed']:4.0f} missed ({100 * f['missed_share']:.2f} %), "
            f"{f['uncounted']:.0f} not counted; interval ms: p50 {f['p50_ms']:.2f}  p99 {f['p99_ms']:.2f}  "
            f"shortest {f['shortest_ms']:.2f}  longest {f['longest_ms']:.2f}"
        )
    bursts = sum(f["bursts"] for f in figures.values())
    uncounted = sum(abs(f["uncounted"]) for f in figures.values())
    print(f"{bursts:.0f} bursts, {uncounted:.0f} missed ticks that were not counted")
    if options.json is not None:
        options.json.write_text(json.dumps({"rate_hz": options.rate, **figures}, indent=1))
    return 1 if bursts or uncounted > 1 else 0


def listen(graph: Any, time_s: float) -> None:
    end_s = time.monotonic() + time_s
    while time.monotonic() < end_s:
        graph.executor.spin_once(timeout_sec=0.01)


def judge(decisions: np.ndarray[Any, Any], period_s: float) -> dict[str, float]:
    """Figures of one stretch: two decisions within a tenth of a period of each other are a burst."""
    times_ns, missed = decisions[:, 0], decisions[1:, 1]
    intervals_ms = np.diff(times_ns) * 1e-6
    periods = (times_ns[-1] - times_ns[0]) * 1e-9 / period_s
    return {
        "ticks": len(decisions),
        "missed": float(missed.sum()),
        "missed_share": float(missed.sum() / periods),
        "uncounted": float(round(periods) - len(intervals_ms) - missed.sum()),
        "bursts": float((intervals_ms < _BURST_SHARE * period_s * 1e3).sum()),
        "p50_ms": float(np.percentile(intervals_ms, 50)),
        "p99_ms": float(np.percentile(intervals_ms, 99)),
        "shortest_ms": float(intervals_ms.min()),
        "longest_ms": float(intervals_ms.max()),
    }


if __name__ == "__main__":
    sys.exit(main())
