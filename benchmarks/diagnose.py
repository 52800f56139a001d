"""How often `diagnose` finds the cause of failures that were planted: the confusion matrix of docs/diagnose.md.

    .venv/bin/python benchmarks/diagnose.py [--task peg] [--count 10] [--seed 1004000000] [--json FILE] [--verbose]

Trains the policies first (3 minutes for `peg`; `--policies DIR` keeps them), then plants each fault of test/planted.py,
each time with something harmless of another cause beside it, until each cause has `--count` failed rollouts, and
diagnoses them on one core.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "test"))

import numpy as np

from conftest import contract_path
from dagger_ros.contract import load_contract
from dagger_ros.dataset import TrainingEpisode
from dagger_ros.evaluation import RolloutKey, run_rollout
from dagger_ros.evaluation.diagnosis.attribute import attribute
from dagger_ros.evaluation.diagnosis.reruns import Laboratory
from dagger_ros.evaluation.diagnosis.taught import taught_by
from dagger_ros.evaluation.diagnosis.usual import Usual, usual
from dagger_ros.evaluation.diagnosis.worlds import Cause, World
from dagger_ros.policy import load_checkpoint
from dagger_ros.sim import load_plant
from dagger_ros.sim.tasks import TASKS
from planted import FAULTS, TEACHING, harmless_beside, plant_fault, teach

# Rollouts of a policy without a fault, from which it is known what is usual.
_PANEL = 20
_SEEDS_PER_FAULT, _PANEL_SEEDS = 1_000, 900_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="peg", help="peg or lane")
    parser.add_argument("--count", type=int, default=10, help="failures of each cause (default: 10)")
    parser.add_argument("--seed", type=int, default=1_004_000_000, help="first seed of the rollouts")
    parser.add_argument("--training-seed", type=int, default=3, help="of the policies")
    parser.add_argument("--policies", type=Path, help="where the policies are kept, or are from an earlier call")
    parser.add_argument("--causes", default="", help="only these, comma-separated")
    parser.add_argument("--json", type=Path, help="write the matrix here too")
    parser.add_argument("--verbose", action="store_true", help="the evidence of each that was taken for another")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        policies = options.policies or Path(scratch)
        for name in TEACHING[options.task]:
            if not (policies / name).exists():
                teach(options.task, name, policies, seed=options.training_seed)
        wanted = [c for c in Cause if not options.causes or c.value in options.causes.split(",")]
        start = time.perf_counter()
        matrix = {cause.value: _plant_and_find(options, cause, policies, Path(scratch)) for cause in wanted}
        seconds = time.perf_counter() - start
    right, count = sum(found[cause] for cause, found in matrix.items()), sum(f.total() for f in matrix.values())
    print(f"\n{_table(matrix)}\n\n{options.task}: {right} of {count} right, {seconds / count:.1f} s each")
    if options.json is not None:
        content = {"task": options.task, "seed": options.seed, "right": right, "of": count, "matrix": matrix}
        options.json.write_text(json.dumps(content, indent=1))


def _plant_and_find(options: argparse.Namespace, cause: Cause, policies: Path, scratch: Path) -> Counter[str]:
    """Plants the faults of one cause in turn, and gives what they were taken for."""
    contract = load_contract(contract_path(options.task))
    faults = [fault for fault in FAULTS[options.task] if fault.cause is cause]
    shares = [len(range(i, options.count, len(faults))) for i in range(len(faults))]
    found: Counter[str] = Counter()
    for number, (fault, share) in enumerate(zip(faults, shares, strict=True)):
        of_fault: Counter[str] = Counter()
        policy = load_checkpoint(policies / fault.policy, contract)
        episode = TrainingEpisode(np.load(policies / f"{fault.policy}.npy"), success=True, demonstration=False)
        taught = taught_by([episode], contract, TASKS[options.task](contract))
        for index in range(share):
            harmless = harmless_beside(options.task, fault, index + number)
            planted = plant_fault(options.task, fault, policy, scratch, harmless)
            seed = options.seed + _SEEDS_PER_FAULT * (number * options.count + index)
            laboratory = Laboratory(planted.contract, contract_path(options.task), policy)
            world = World(planted.contract, planted.perturbation)
            for trace in planted.failures(seed, 1):
                typical = _usual(options.task, policies / fault.policy, options.seed + _PANEL_SEEDS)
                said = attribute(laboratory, world, trace, ticks=planted.ticks, usual=typical, taught=taught)
                of_fault[said.cause or "unknown"] += 1
                if options.verbose and said.cause != cause.value:
                    print(f"  {fault.name} beside {harmless}: {said.key} taken for {said.cause or 'unknown'}")
                    print("    " + "\n    ".join([*said.evidence, *map(str, said.reruns)]))
        print(f"{cause.value:17} {fault.name:45} {dict(of_fault)}", flush=True)
        found += of_fault
    return found


@functools.cache
def _usual(task: str, policy: Path, first_seed: int) -> Usual:
    """As a panel of a policy without a fault tells it."""
    contract = load_contract(contract_path(task))
    plant, driver = load_plant(contract, contract_path(task)), load_checkpoint(policy, contract)
    rollouts = []
    for seed in range(first_seed, first_seed + _PANEL):
        result, rows, _ = run_rollout(
            contract, plant, driver, RolloutKey("nominal", seed), ticks=contract.horizon_ticks
        )
        rollouts += [rows] if result.success else []
    return usual(rollouts, rollouts, contract, plant.task, disturbed=False)


def _table(matrix: dict[str, Counter[str]]) -> str:
    columns = [cause.value for cause in Cause]
    if any(found["unknown"] for found in matrix.values()):
        columns.append("unknown")
    lines = ["| planted, then found | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for cause, found in matrix.items():
        lines.append(f"| {cause} | " + " | ".join(str(found[c] or "") for c in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
