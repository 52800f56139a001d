"""How fast the simulation runs through the ROS graph: lockstep, one process, recording on.

    .venv/bin/python benchmarks/lockstep.py [--task peg] [--episodes 20] [--json FILE]

Prints simulated seconds per second of wall time, with every topic real and every message in a bag, beside the same
episodes without ROS in the same run. A ratio above 1 is faster than real time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from dagger_ros.contract import RowLayout, load_contract
from dagger_ros.control import ControlTick
from dagger_ros.nodes.lockstep import LockstepGraph
from dagger_ros.sim import load_plant, rollout
from dagger_ros.sim.experts import make_labeller
from dagger_ros.supervisor import Gate, make_rule

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="peg", help="peg or lane")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    path = ROOT / "config" / "contracts" / f"{options.task}.yaml"
    contract = load_contract(path)
    period_s = contract.timing.period_ns * 1e-9
    plant = load_plant(contract, path)
    gate = Gate(contract, make_rule("bc", round_index=0), auto_arm=True)
    layout = RowLayout(contract)
    control = ControlTick(layout, gate, make_labeller("scripted", contract), None)
    seconds = {"ROS graph, recorded": 0.0, "without ROS": 0.0}
    ticks = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        LockstepGraph(path, rule="bc", round_index=0, out=Path(folder) / "round") as graph,
    ):
        graph.run_episode(0)  # warm up: connections, caches
        rollout(plant, control, layout, seed=0, ticks=contract.horizon_ticks)
        for seed in range(1, options.episodes + 1):  # interleaved, so that both meet the same disturbances
            start = time.perf_counter()
            graph.run_episode(seed)
            middle = time.perf_counter()
            rows, _ = rollout(plant, control, layout, seed=seed, ticks=contract.horizon_ticks)
            seconds["ROS graph, recorded"] += middle - start
            seconds["without ROS"] += time.perf_counter() - middle
            ticks += len(rows)
    figures = {name: ticks * period_s / value for name, value in seconds.items()}
    print(f"{options.task}: {options.episodes} episodes, {ticks} ticks of {period_s:g} s")
    for name, value in figures.items():
        print(f"{name:22} {value:7.1f} x real time   {1e6 * seconds[name] / ticks:7.0f} us a tick")
    if options.json is not None:
        options.json.write_text(json.dumps({"task": options.task, "ticks": ticks, "x_real_time": figures}, indent=1))


if __name__ == "__main__":
    main()
