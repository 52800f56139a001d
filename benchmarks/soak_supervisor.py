"""Millions of ticks full of faults through the gate, judged by a referee that does not know the gate's code.

    .venv/bin/python benchmarks/soak_supervisor.py [--ticks 500000] [--seed 0] [--workers 2] [--json FILE]

Arms commanded by velocity, position and effort, with and without jerk limits, rules `hg`, `dagger`, `lazy` and
`thrifty`, with more or fewer faults: late and early ticks, clock jumps, missing, stale, future and broken observations
and proposals, wild requests, deadman and services at random. The last line reads `N ticks, K violations`; K must be 0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test"))

from rich.progress import track

from referee import Mix, contract_of, rules, violations

_EPISODE = 5000  # ticks
_KINDS = (("velocity", False), ("position", False), ("velocity", True), ("position", True), ("effort", False))
_MIXES = (Mix(), Mix(0.2, 0.1, 0.2, 0.3, 0.3, 0.2), Mix(0.02, 0.002, 0.005, 0.05, 0.3, 0.02))


def run(part: tuple[int, int]) -> tuple[list[str], dict[int, int]]:
    """One episode: its seed, which also chooses the robot, the rule and the faults, and its ticks."""
    seed, ticks = part
    contract = contract_of(_KINDS[seed % 5][0], jerk=_KINDS[seed % 5][1])
    found, modes = violations(contract, seed, ticks, _MIXES[seed // 5 % 3], rules()[seed // 15 % len(rules())])
    return [f"seed {seed}: {text}" for text in found], modes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    if options.ticks < 1:
        parser.error(f"--ticks: expected a number > 0, got {options.ticks}")
    starts = range(0, options.ticks, _EPISODE)
    parts = [(options.seed + i, min(_EPISODE, options.ticks - start)) for i, start in enumerate(starts)]
    found: list[str] = []
    modes: dict[int, int] = {}
    began = time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        results = pool.map(run, parts, chunksize=4)
        for texts, counts in track(results, "soak", len(parts), disable=not sys.stderr.isatty()):
            found += texts
            modes = {mode: modes.get(mode, 0) + count for mode, count in counts.items()}
    shares = ", ".join(f"{getattr(mode, 'name', mode)} {100 * n / options.ticks:.0f} %" for mode, n in modes.items())
    print(f"{time.monotonic() - began:.0f} s on {options.workers} workers; ticks in {shares}")
    for text in found[:20]:
        print(text)
    if options.json is not None:
        figures = {"ticks": options.ticks, "violations": len(found), "modes": {int(m): n for m, n in modes.items()}}
        options.json.write_text(json.dumps(figures, indent=1))
    print(f"{options.ticks} ticks, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
