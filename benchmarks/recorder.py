"""kill -9 of the aggregator at random moments: what is left of the episode that it was recording.

    .venv/bin/python benchmarks/recorder.py [--kills 50] [--seed 0] [--json FILE]

Each aggregator finishes one episode and is killed at a random decision of the next, in a running graph in real time;
`recover` then makes the bag whole. Prints how much of the open episode was lost, on the robot's clock. Exit status 1 if
that is more than a second, or a finished episode is not whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test"))

import numpy as np
from rich.progress import track

from conftest import next_domain
from recorder_kills import LARGEST_LOSS_S, kill_recorders


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(domain := next_domain())
    with tempfile.TemporaryDirectory() as folder:
        found = kill_recorders(domain, Path(folder), kills=options.kills, seed=options.seed)
        kills = list(track(found, total=options.kills, disable=not sys.stdout.isatty()))
    losses = np.array([kill.loss_s for kill in kills])
    lost = sum(kill.finished != i + 1 for i, kill in enumerate(kills))
    print(
        f"{len(kills)} kills: {lost} finished episodes lost; of the open one at the median "
        f"{np.median(losses):.2f} s, at worst {losses.max():.2f} s (at most {LARGEST_LOSS_S:g} s)"
    )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(kill) for kill in kills], indent=1))
    return 0 if lost == 0 and losses.max() <= LARGEST_LOSS_S else 1


if __name__ == "__main__":
    sys.exit(main())
