"""How steadily a control loop in Python keeps its period, against a bare loop that only sleeps to absolute deadlines.

    .venv/bin/python benchmarks/jitter.py [--seconds 10] [--rates 500,1000] [--priority 0] [--others "nice -n 19"]
        [--json FILE]

First, for each rate, in one process: our loop (`nodes/spin.py`) with the whole tick at each deadline (three messages, 5
networks, every check of the gate, the command published by ROS), and the bare loop, in turn, second by second, on the
same core. Per loop: how far each period is from what it should be, and the share of periods in which no tick began.

Then, at the first rate, the supervisor node in a process of its own, which this process sends observations: alone, and
while an aggregator records all of it, one process writes a report again and again, and one loads a policy again and
again; twice in turn. Missed ticks are those that its decisions count. `--others` stands in front of the commands of the
last two: `nice -n 19`, or `setsid`, with which they are in a session of their own, as in another terminal.

`--priority N` asks for SCHED_FIFO for what is measured (both loops, and the supervisor by its parameter
`realtime_priority`), which is what a robot would have.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "test"), str(ROOT / "benchmarks")]

import numpy as np
import rclpy
from loop_latency import Waiter, checkpoint, contract_at, nothing
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64MultiArray
from tick import Ours, messages, network, stamped, task, with_stamp

from conftest import contract_path, next_domain
from dagger_ros.contract import Contract, Mode, RowLayout, load_contract
from dagger_ros.msg import GateDecision
from dagger_ros.nodes.base import message_class
from dagger_ros.nodes.network import stay_on_this_machine
from dagger_ros.nodes.qos import GraphQos
from dagger_ros.nodes.realtime import Ticker, apply_settings
from dagger_ros.nodes.spin import Loop
from dagger_ros.srv import StartEpisode, StopEpisode
from graph import running_graph

QOS = GraphQos(lockstep=False)
_NS = 1_000_000_000
_SEGMENT_S = 1.0
_OBSERVED_NS = _NS // 100
_LOAD = """
import sys
from pathlib import Path
what, contract, source = sys.argv[1:]
print("begins", flush=True)
if what == "reload":
    from dagger_ros.contract import load_contract
    from dagger_ros.policy import load_policy
    contract = load_contract(contract)
    while True:
        load_policy(source, contract)
from dagger_ros.cli import main
while True:
    main(["report", source, "--no-pictures", "--workers", "1"])
"""

Times = list[int]


def bare(period_ns: int, end_ns: int) -> Times:
    """When a loop wakes up that does nothing but sleep to one deadline after the other."""
    times, due_ns = [], time.monotonic_ns()
    while due_ns < end_ns:
        left_ns = due_ns - time.monotonic_ns()
        if left_ns > 0:
            time.sleep(left_ns * 1e-9)
        now_ns = time.monotonic_ns()
        times.append(now_ns)
        due_ns += ((now_ns - due_ns) // period_ns + 1) * period_ns
    return times


class InProcess:
    """Our loop with the whole tick in it."""

    def __init__(self) -> None:
        os.environ["ROS_DOMAIN_ID"] = str(next_domain())
        rclpy.init()
        self._node = rclpy.create_node("jitter")
        self._node.changes = 0  # nothing of it goes while it runs
        contract = task()
        layout = RowLayout(contract)
        self._tick = Ours(contract, network(layout.observation_size, layout.action_size))
        self._source = stamped(messages(), contract.timing.period_ns)
        self._publisher = self._node.create_publisher(Float64MultiArray, "command", QOS.command)
        self._times: Times = []

    def __call__(self, period_ns: int, end_ns: int) -> Times:
        """When its ticks began."""
        self._times = []
        self._node.ticker = Ticker(period_ns, self._on_period)
        loop = Loop(self._node)
        loop.run(lambda: time.monotonic_ns() >= end_ns)
        loop.close()
        return self._times

    def _on_period(self, now_ns: int, _missed: int) -> None:
        self._times.append(now_ns)
        self._publisher.publish(self._tick(*next(self._source)))


def judge(segments: list[Times], period_ns: int) -> dict[str, float]:
    """Of all segments: how far periods are from the right one, us, and the share of periods without a tick."""
    off_us, missed, periods = [], 0, 0
    for times in segments:
        counts = np.rint(np.diff(times) / period_ns).astype(int)
        off_us.append(np.abs(np.diff(times) - period_ns) * 1e-3)
        missed += int(np.maximum(counts - 1, 0).sum())
        periods += int(np.maximum(counts, 1).sum())
    p50, p99, worst = np.percentile(np.concatenate(off_us), [50, 99, 100]).tolist()
    return {"p50_us": p50, "p99_us": p99, "max_us": worst, "missed_share": missed / periods}


def in_process(rates_hz: list[float], seconds: float) -> dict[str, Any]:
    """The bare loop and ours in turn, at each rate."""
    ours, found = InProcess(), {}
    gc.collect()
    gc.freeze()
    gc.disable()
    for rate_hz in rates_hz:
        period_ns = round(_NS / rate_hz)
        loops: dict[str, Callable[[int, int], Times]] = {"bare": bare, "ours": ours}
        segments: dict[str, list[Times]] = {name: [] for name in loops}
        ours(period_ns, time.monotonic_ns() + _NS // 5)  # warm
        for _ in range(max(1, round(seconds / _SEGMENT_S))):
            for name, loop in loops.items():
                segments[name].append(loop(period_ns, time.monotonic_ns() + round(_SEGMENT_S * _NS)))
                gc.collect()
        found[f"{rate_hz:g} Hz"] = {name: judge(parts, period_ns) for name, parts in segments.items()}
    gc.enable()
    return found


def small_run(folder: Path) -> Path:
    """A run that a report can be written of."""
    panel = folder / "few.yaml"
    panel.write_text("name: few\ndescription: few\nfirst_seed: 1000000000\ncount: 3\nconditions: {nominal: {}}\n")
    command = [sys.executable, "-m", "dagger_ros.cli", "run", "--contract", contract_path("lane")]
    command += [
        "--out",
        folder / "run",
        "--rule",
        "bc",
        "--rounds",
        "1",
        "--demonstrations",
        "1",
        "--episodes",
        "1",
        "--steps",
        "50",
    ]
    command += ["--members", "2", "--patience", "0", "--panel", panel, "--also", "", "--final", ""]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return folder / "run"


@contextmanager
def load(path: Path, policy: Path, run: Path, others: list[str]) -> Iterator[None]:
    """Processes that write reports and load policies."""
    started = []
    try:
        for what, source in (("reload", policy), ("report", run)):
            command = [*others, sys.executable, "-c", _LOAD, what, str(path), str(source)]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


class Listener:
    """Sends observations to a supervisor, and notes its decisions."""

    def __init__(self, node: Any, contract: Contract) -> None:
        streams = contract.streams.values()
        self._writers = [node.create_publisher(message_class(s.type), s.topic, QOS.sensor_writer) for s in streams]
        decision = node.create_subscription(GateDecision, "supervisor/decision", nothing, QOS.record, raw=True)
        self._waiter = Waiter(node, [decision])
        self._made = messages()[0]

    def run(self, seconds: float) -> list[Any]:
        """Time (monotonic, ns), missed ticks and mode of each decision."""
        decisions, due_ns = [], time.monotonic_ns()
        end_ns = due_ns + round(seconds * _NS)
        while due_ns < end_ns:
            for writer, data in zip(self._writers, self._made, strict=True):
                writer.publish(with_stamp(data, time.time_ns()))
            due_ns += _OBSERVED_NS
            while (left_ns := due_ns - time.monotonic_ns()) > 0:
                decisions += [data for _, data in self._waiter.wait(left_ns)]
        found = [deserialize_message(data, GateDecision) for data in decisions]
        return [(d.monotonic_ns, d.missed_ticks, d.mode) for d in found]


def graph_alone_and_loaded(rate_hz: float, seconds: float, priority: int, others: list[str]) -> dict[str, Any]:
    """Periods and missed ticks of a supervisor process, by its own decisions, without and with others at work."""
    found: dict[str, list[Any]] = {"alone": [], "loaded": []}
    os.environ["ROS_DOMAIN_ID"] = str(domain := next_domain())
    with tempfile.TemporaryDirectory() as name, running_graph(domain, Path(name)) as graph:
        folder = Path(name)
        path = contract_at(rate_hz, folder)
        contract = load_contract(path)
        policy, run = checkpoint(contract, folder / "pi_000"), small_run(folder)
        listener = Listener(graph.node, contract)
        graph.start("supervisor", contract=path, auto_arm=True, needs_expert=False, realtime_priority=priority)
        graph.start("aggregator", contract=path, out=folder / "round")
        graph.wait_for(lambda: graph.has_publishers("supervisor/decision", "episode"))
        while not any(mode != Mode.LOCKED for *_, mode in listener.run(0.5)):
            pass
        for _ in range(2):
            found["alone"] += listener.run(seconds / 2)
            with load(path, policy, run, others):
                # Refused until observations come again: nothing was sent while the processes started.
                while not graph.ask(StartEpisode, "aggregator/start_episode", StartEpisode.Request()).success:
                    listener.run(0.5)
                found["loaded"] += listener.run(seconds / 2)
                graph.ask(StopEpisode, "aggregator/stop_episode", StopEpisode.Request(discard=True))
    return {name: judge_decisions(decisions, round(_NS / rate_hz)) for name, decisions in found.items()}


def judge_decisions(decisions: list[Any], period_ns: int) -> dict[str, float]:
    """As `judge`."""
    times, missed, _ = np.array(decisions).T
    off_us = np.abs(np.diff(times) - period_ns) * 1e-3
    off_us = off_us[np.diff(times) < _NS]  # not from one part to the next
    p50, p99, worst = np.percentile(off_us, [50, 99, 100]).tolist()
    share = float(missed[1:].sum() / (len(times) + missed[1:].sum()))
    return {"p50_us": p50, "p99_us": p99, "max_us": worst, "missed_share": share}


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    """Prints one comparison."""
    print(f"{title:24}{'p50 us':>9}{'p99 us':>9}{'max us':>9}{'missed':>11}")
    for name, values in table.items():
        shown = "".join(f"{values[key]:9.0f}" for key in ("p50_us", "p99_us", "max_us"))
        print(f"  {name:22}{shown}{100 * values['missed_share']:9.3f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each loop at each rate")
    parser.add_argument("--rates", default="500,1000", help="Hz")
    parser.add_argument("--priority", type=int, default=0, help="SCHED_FIFO priority of what is measured; 0: none")
    parser.add_argument("--others", default="", help="in front of the commands of the other processes")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="of the loops in one process")
    parser.add_argument("--no-load", action="store_true", help="leave the part with other processes out")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    stay_on_this_machine()
    rates_hz = [float(rate) for rate in options.rates.split(",")]
    figures: dict[str, Any] = {"seconds": options.seconds, "priority": options.priority, "others": options.others}
    if not options.no_load:
        table = graph_alone_and_loaded(rates_hz[0], options.seconds, options.priority, options.others.split())
        figures["graph"] = table
        show(f"supervisor, {rates_hz[0]:g} Hz", table)
    for words in apply_settings(priority=options.priority, cores={options.core}, lock_memory=options.priority > 0):
        print(words)
    figures["in_process"] = in_process(rates_hz, options.seconds)
    for rate, table in figures["in_process"].items():
        show(rate, table)
        bare_, ours = table["bare"], table["ours"]
        more = 100 * (ours["missed_share"] - bare_["missed_share"])
        figures[f"ratio_p99 {rate}"] = ratio = ours["p99_us"] / bare_["p99_us"]
        print(f"  ours / bare: p99 {ratio:.2f}; {more:+.3f} % missed")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
