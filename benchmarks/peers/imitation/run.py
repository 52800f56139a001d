"""Our loop beside DAgger of `imitation`: same task, expert, demonstrations, number of labels, panel, machine and run.

    .venv/bin/python benchmarks/peers/imitation/run.py --contract config/contracts/peg.yaml --labels 500 --seeds 0

The first time it makes a virtual environment for the peer (1.9 GB) in build/peers/imitation. docs/peers.md says what
is compared, and what the figures mean.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch: one thread for either side

import argparse
import json
import math
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
sys.path[:0] = [str(HERE), str(ROOT / "benchmarks"), str(ROOT)]

import numpy as np
from figures import Figures, Row, first_good
from job import Job, Stage
from ours import loop
from peer_venv import PeerVenv
from training import measure

from dagger_ros.contract import DaggerError, load_contract
from dagger_ros.dagger import RunConfig, panel_folder
from dagger_ros.dataset import labelled_frames, round_folder, training_episodes
from dagger_ros.evaluation import PanelRunner, load_panel
from dagger_ros.learning import TrainingSettings

BC, SHIPPED = "ours, bc", "imitation DAgger, as it ships"
_ONE = TrainingSettings(members=1, bootstrap=False)
# From the weights of the round before, a quarter of the steps are enough.
_WARM: dict[str, Any] = {"start": "previous", "steps": 1000}
# What the peer is given to be as ours with one network: its size, batches, gradient steps and scales.
_SIZED: dict[str, Any] = {
    "hidden": list(_ONE.hidden),
    "batch": _ONE.batch,
    "training": {"n_batches": _ONE.steps},
    "scaled": True,
}
_ONE_EPISODE = {"rollout_round_min_episodes": 1, "rollout_round_min_timesteps": 1}
_EPOCHS = 4  # the default of the peer's DAgger; its BC has none
_MOST_ROUNDS, _MOST_DEMONSTRATIONS = 60, 60
_SEEDS_PER_RUN = 100_000
_SPARE = 2  # demonstrated episodes, since they differ in length
_TURNS = 3


def main() -> None:
    """Measures, prints, and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contract", type=Path, default=ROOT / "config" / "contracts" / "peg.yaml")
    parser.add_argument("--labels", type=int, default=500, help="of every method, demonstrations too (default: 500)")
    parser.add_argument("--seeds", default="0", help="comma-separated (default: 0)")
    parser.add_argument("--panel", type=Path, default=ROOT / "config" / "panels" / "nominal.yaml")
    parser.add_argument(
        "--peer-labels", type=int, default=16_000, help="where the peer as it ships stops at last (default: 16000)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes for the panels")
    parser.add_argument("--steps", type=int, default=1000, help="of the comparison of BC's speed (default: 1000)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers" / "imitation", help="for all it makes")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    try:
        with _Comparison(options) as comparison:
            figures = comparison.figures()
    except DaggerError as error:
        print(f"run.py: {error}", file=sys.stderr)
        sys.exit(2)
    print("", figures.text(), sep="\n")
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")


class _Comparison:
    """Everything that is made anew: runs, policies, panels.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._contract, self._panel = load_contract(options.contract), load_panel(options.panel)
        self._peer, self._runs = PeerVenv(options.folder, ROOT), options.folder.resolve() / "runs"
        shutil.rmtree(self._runs, ignore_errors=True)
        self._rows: list[Row] = []
        self._runner = PanelRunner(options.contract, workers=options.workers)

    def __enter__(self) -> _Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def figures(self) -> Figures:
        """Measures all of it."""
        options, contract = self._options, self._contract
        demonstrations = contract.collection.demonstrations
        for seed in map(int, options.seeds.split(",")):
            for method, config in _ours(options.labels, seed).items():
                stages = self._do_ours(method, config)
            # All in one round: as many episodes as the labels need.
            needed = math.ceil(options.labels * demonstrations / stages[0].labels) + _SPARE
            self._do_ours(BC, RunConfig("bc", 1, seed, demonstrations=needed, max_labels=options.labels, patience=0))
            for method, job in _theirs(options, seed, demonstrations).items():
                self._do_theirs(method, job)
        episodes = training_episodes([round_folder(self._folder(BC, seed), 0)], contract)
        return Figures(
            contract=contract.name,
            panel=self._panel.name,
            machine=f"{platform.machine()}, {os.cpu_count()} cores",
            labels=options.labels,
            rows=tuple(self._rows),
            bc_samples_per_s=self._speeds(*labelled_frames(episodes)),
        )

    def _do_ours(self, method: str, config: RunConfig) -> list[Stage]:
        options, folder = self._options, self._folder(method, config.seed)
        stages = loop(config, options.contract, folder, self._panel, workers=options.workers)
        for k, stage in enumerate(stages):
            self._judge(method, config.seed, stage, panel_folder(folder, k, self._panel))
        return stages

    def _do_theirs(self, method: str, job: Job) -> None:
        folder = self._folder(method, job.seed)
        stages = self._peer.stages(replace(job, out=str(folder)), folder)

        def success(stage: Stage) -> float:
            return self._judge(method, job.seed, stage, folder / "panels" / Path(stage.policy).stem)

        if method == SHIPPED:
            enough = [stage for stage in stages if stage.labels >= self._options.labels]
            success(enough[0])
            first_good(enough, success)
        else:
            for stage in stages:
                success(stage)

    def _judge(self, method: str, seed: int, stage: Stage, folder: Path) -> float:
        summary = self._runner.run(self._panel, stage.policy, folder).summary()
        row = Row(method, seed, stage, summary["n"], summary["success_rate"], tuple(summary["success_ci95"]))
        if row not in self._rows:  # a bisection comes back to where it began
            self._rows.append(row)
            print(row, flush=True)
        return row.success

    def _speeds(self, observations: Any, labels: Any) -> dict[str, float]:
        """Samples per second of either side on the same frames; the best of some turns, taken in turn."""
        options, data = self._options, self._runs / "frames.npz"
        np.savez(data, observations=observations, labels=labels)
        contract = str(options.contract.resolve())
        job = Job("speed", contract, 0, hidden=[256, 256], batch=256, data=str(data), steps=options.steps)
        ours = partial(measure, observations, labels, contract=self._contract)
        ways: dict[str, Callable[[], float]] = {
            "imitation BC": lambda: self._peer.run(job, self._runs / "speed"),
            "ours, one network": lambda: ours(options.steps),
            "ours, five networks": lambda: ours(max(1, options.steps // 5), members=5),
        }
        turns = [{name: way() for name, way in ways.items()} for _ in range(_TURNS)]
        return {name: max(turn[name] for turn in turns) for name in ways}

    def _folder(self, method: str, seed: int) -> Path:
        return self._runs / method.replace(",", "").replace(" ", "_") / str(seed)


def _ours(labels: int, seed: int) -> dict[str, RunConfig]:
    common: dict[str, Any] = {"seed": seed, "max_labels": labels, "patience": 0, "rounds": _MOST_ROUNDS}
    one = common | {"training": _ONE}
    return {
        "ours, hg": RunConfig("hg", **common),
        "ours, hg, warm": RunConfig("hg", training=TrainingSettings(**_WARM), **common),
        "ours, hg, one network": RunConfig("hg", **one),
        "ours, hg, one network, warm": RunConfig("hg", training=replace(_ONE, **_WARM), **common),
        "ours, dagger": RunConfig("dagger", episodes=1, **common),
        "ours, dagger, one network": RunConfig("dagger", episodes=1, **one),
    }


def _theirs(options: argparse.Namespace, seed: int, demonstrations: int) -> dict[str, Job]:
    contract, labels = str(options.contract.resolve()), options.labels
    # As `dagger.run` numbers the episodes of a run: both sides have the same demonstrations.
    first = _SEEDS_PER_RUN * (seed + 1)
    dagger = Job("dagger", contract, seed, labels, list(range(first, first + demonstrations)))
    bc = Job("bc", contract, seed, labels, list(range(first, first + _MOST_DEMONSTRATIONS)))
    sized = replace(dagger, policy_drives=True, rounds=_ONE_EPISODE, **_SIZED)
    return {
        SHIPPED: replace(dagger, labels=max(labels, options.peer_labels)),
        "imitation DAgger, sized as ours": sized,
        "imitation DAgger, sized as ours, a quarter of the steps": replace(
            sized, training={"n_batches": _WARM["steps"]}
        ),
        "imitation BC, as it ships": replace(bc, training={"n_epochs": _EPOCHS}),
        "imitation BC, sized as ours": replace(bc, **_SIZED),
    }


if __name__ == "__main__":
    main()
