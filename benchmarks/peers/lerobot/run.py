"""When commands go out, in LeRobot's recording loop and in our graph: driving, at hand-overs, at the end of episodes.

    python3 -m venv build/peers/lerobot && build/peers/lerobot/bin/pip install lerobot==0.4.4
    .venv/bin/python benchmarks/peers/lerobot/run.py [--python build/peers/lerobot/bin/python] [--rate 50] [--json FILE]

The same rate, ensemble (5 networks with 2 layers of 256) and robot (24 numbers in, 12 out, no cameras, no time of its
own); in each episode the policy drives the first half and a hand the second one; every frame is recorded. LeRobot does
all of it in one loop, which ends at a hand-over and stands still while an episode is saved. Ours are three processes
(policy, supervisor, aggregator), and this one is the robot: its commands also take the way through the middleware. One
after the other, on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent.parent
sys.path[:0] = [str(ROOT / "test"), str(ROOT / "benchmarks")]

import numpy as np
from loop_latency import QOS, Robot, checkpoint, contract_at

from conftest import next_domain
from dagger_ros.contract import Mode, load_contract, mode_of, stamp_from_ns
from dagger_ros.msg import ExpertAction
from dagger_ros.nodes.network import stay_on_this_machine
from dagger_ros.srv import StartEpisode, StopEpisode
from graph import running_graph

_AROUND_NS = 500_000_000  # what belongs to a hand-over, or to the end of an episode


def theirs(python: Path, rate_hz: float, episode_s: float, episodes: int) -> dict[str, Any]:
    """Periods and gaps of LeRobot."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        script = Path(__file__).with_name("their_loop.py")
        command = [python, script, rate_hz, episode_s, episodes, out]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        subprocess.run(list(map(str, command)), check=True, env=environment)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def ours(rate_hz: float, episode_s: float, episodes: int) -> dict[str, Any]:
    """The same of our graph."""
    os.environ["ROS_DOMAIN_ID"] = str(domain := next_domain())
    with tempfile.TemporaryDirectory() as name, running_graph(domain, Path(name)) as graph:
        path = contract_at(rate_hz, Path(name))
        contract = load_contract(path)
        policy = checkpoint(contract, Path(name) / "pi_000")
        graph.start("supervisor", contract=path, auto_arm=True)
        graph.start("policy", contract=path, policy=policy)
        graph.start("aggregator", contract=path, out=Path(name) / "round")
        robot = Robot(graph.node, contract)
        expert = graph.node.create_publisher(ExpertAction, "expert/action", QOS.command)
        start, stop = (
            graph.node.create_client(type_, f"aggregator/{verb}_episode")
            for type_, verb in ((StartEpisode, "start"), (StopEpisode, "stop"))
        )
        message = ExpertAction(contract_sha256=contract.sha256, operator_id="hand", tick=-1, unattended=True)
        message.action = [0.0] * len(contract.action.dimensions)
        ticks = round(episode_s * rate_hz)
        handed: list[int] = []
        saved: list[int] = []

        def before(count: int) -> None:
            now_ns = time.time_ns()
            at = count % ticks
            if at in (0, ticks // 2) and count:
                (handed if at else saved).append(now_ns)
            if at == 0 and count:
                stop.call_async(StopEpisode.Request(success=True, metric=1.0))
            if at == 1:
                start.call_async(StartEpisode.Request(seed=count))
            message.takeover = message.label = at >= ticks // 2
            message.sequence += 1
            stamp_from_ns(message.header.stamp, now_ns)
            expert.publish(message)

        graph.wait_for(lambda: graph.has_publishers("supervisor/decision", "policy/action", "episode"))
        robot.run(2.0, rate_hz, lambda _count: before(0))
        handed.clear()
        sent, commands, decisions = robot.run(episode_s * episodes + 1.0, rate_hz, before)
        modes = {mode_of(data) for data in decisions}
        recorded = len(list((Path(name) / "round" / "episodes").glob("*/episode.json")))
        if not {Mode.POLICY, Mode.EXPERT} <= modes or recorded < episodes - 1:
            raise SystemExit(f"expected both to drive, and {episodes} episodes; got modes {modes}, {recorded} episodes")
        offset_ns = sent[0][0] - sent[0][1]  # from the monotonic clock to that of the stamps
    times_ns = np.array([received_ns for received_ns, _ in commands])
    gaps_ms = np.diff(times_ns) * 1e-6

    def longest(events: list[int]) -> list[float]:
        around = [np.abs(times_ns[1:] + offset_ns - event) < _AROUND_NS for event in events]
        return [float(gaps_ms[near].max()) for near in around if near.any()]

    return {"periods_ms": gaps_ms.tolist(), "hand_over_ms": longest(handed), "save_ms": longest(saved)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=ROOT / "build/peers/lerobot/bin/python", help="with lerobot")
    parser.add_argument("--rate", type=float, default=50.0, help="Hz")
    parser.add_argument("--episode-s", type=float, default=6.0)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    stay_on_this_machine()
    common = options.rate, options.episode_s, options.episodes
    sides = {"ours": ours(*common)}
    if options.python.exists():
        sides["lerobot"] = theirs(options.python, *common)
    else:
        print(f"{options.python} is not there: only ours is measured; how to install LeRobot stands above (--help)")
    print(f"{'ms':24}{'period p50':>12}{'p99':>8}{'longest':>9}{'at hand-over':>14}{'at episode save':>17}")
    figures: dict[str, Any] = {}
    for name, found in sides.items():
        p50, p99, longest = np.percentile(found["periods_ms"], [50, 99, 100]).tolist()
        worst = {key: max(found[key], default=float("nan")) for key in ("hand_over_ms", "save_ms")}
        figures[name] = {"p50_ms": p50, "p99_ms": p99, "longest_ms": longest} | worst
        title = f"{name} {found.get('version', '')}"
        print(f"{title:24}{p50:12.1f}{p99:8.1f}{longest:9.1f}{worst['hand_over_ms']:14.1f}{worst['save_ms']:17.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
