"""What a kill -9 of one node does to the others: how fast the plant stops, who says why, who starts again.

    .venv/bin/python benchmarks/chaos.py [--kills 50] [--seed 0] [--json FILE]

A graph of `peg` in real time, each node a process. A person (this script) arms it and gives control to a policy that
keeps the arm moving at full speed; after a random time a random node is killed. Within the largest of the contract's
age limits plus 2 ticks another node must say why, and the tool must be at rest; and once the node is there again nobody
may drive and nothing may move before the person arms and resumes.

At rest: from then on the tool comes no further than the contract's resolution of its position. Of the bridge nothing
is left that moves: there it is the time until the supervisor is locked and sends no motion.

Exits with 1 if any of that does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "test"))

from conftest import next_domain
from dagger_ros.contract import Mode
from graph import GraphError
from kills import EXPECTED, NODES, Kill, KillRig, killing

# From the first tick in which the arm moves to the kill: more than one round of the tool, and no reset yet.
_LATEST_S = 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="draws nodes, times and episodes")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the graph is ended
    rng = np.random.default_rng(options.seed)
    os.environ["ROS_DOMAIN_ID"] = str(domain := next_domain())
    kills: list[Kill] = []
    violations: list[str] = []
    bound_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        try:
            with killing(domain, Path(folder)) as rig:
                bound_s = rig.bound_s
                for number in range(options.kills):
                    node, after_s = str(rng.choice(NODES)), float(rng.uniform(0.0, _LATEST_S))
                    kill = rig.kill(node, seed=int(rng.integers(1000)), after_s=after_s)
                    kills.append(kill)
                    found = _violations(kill, rig)
                    violations += [f"kill {number}, {node} at tick {kill.tick}: {words}" for words in found]
                rig.drive()
        except GraphError as error:
            violations.append(f"after kill {len(kills)}: {error}")
    if kills:
        _print_table(kills, bound_s)
    for violation in violations:
        print(violation)
    if options.json is not None:
        figures: dict[str, Any] = {"kills": len(kills), "violations": violations, "bound_s": bound_s}
        figures["each"] = [asdict(kill) | {"mode": _name(kill.mode)} for kill in kills]
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{len(kills)} kills, {len(violations)} violations")
    sys.exit(1 if violations else 0)


def _violations(kill: Kill, rig: KillRig) -> list[str]:
    found = []
    for what, time_s in (("at rest", kill.stop_s), ("said why", kill.report_s)):
        if time_s > rig.bound_s:
            found.append(f"{what} after {1e3 * time_s:.0f} ms, bound {1e3 * rig.bound_s:.0f} ms")
    expected = EXPECTED.get(kill.node, (None,))[0]
    if kill.mode is not expected:
        found.append(f"expected {_name(expected)}, got {_name(kill.mode)} for {'|'.join(kill.reasons)}")
    if kill.driven:
        found.append(f"drove in {kill.driven} ticks before a person armed")
    if kill.moved_m > rig.rest_m:
        found.append(f"moved {1e3 * kill.moved_m:.1f} mm before a person armed")
    return found


def _name(mode: Mode | None) -> str | None:
    return None if mode is None else mode.name


def _print_table(kills: list[Kill], bound_s: float) -> None:
    print(f"bound {1e3 * bound_s:.0f} ms")
    print(f"{'killed':14} kills  at rest: median worst  why: worst  (ms)  what was objected to")
    for node in NODES:
        mine = [kill for kill in kills if kill.node == node]
        if not mine:
            continue
        stops_ms = [1e3 * kill.stop_s for kill in mine]
        counts = Counter(reason for kill in mine for reason in kill.reasons or ("driver_stopped",))
        print(
            f"{node:14} {len(mine):5}  {statistics.median(stops_ms):15.0f} {max(stops_ms):5.0f} "
            f"{1e3 * max(k.report_s for k in mine):11.0f}        "
            + ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        )


if __name__ == "__main__":
    main()
