"""Why the failed rollouts of a panel failed: each diagnosed in a worker, and all written beside the rollouts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.dataset import training_episodes
from dagger_ros.evaluation.diagnosis.attribute import attribute
from dagger_ros.evaluation.diagnosis.record import Diagnosis, Reruns, RolloutDiagnosis
from dagger_ros.evaluation.diagnosis.reruns import Laboratory
from dagger_ros.evaluation.diagnosis.taught import Taught, taught_by
from dagger_ros.evaluation.diagnosis.usual import Usual, usual
from dagger_ros.evaluation.diagnosis.worlds import Cause, World
from dagger_ros.evaluation.panel import Panel, PanelResult, RolloutKey, load_panel
from dagger_ros.evaluation.runner import contract_of, make_pool, policy_of, trace_path
from dagger_ros.evaluation.trace import Trace
from dagger_ros.policy import load_policy
from dagger_ros.sim.tasks import TASKS

__all__ = ["Cause", "Diagnosis", "Reruns", "RolloutDiagnosis", "diagnose", "failed_rollouts"]


def failed_rollouts(folder: Path) -> list[RolloutKey]:
    """Those of a panel's result that did not meet the criterion, in its order."""
    return [r.key for r in PanelResult.read(folder).rollouts if not r.success]


def diagnose(
    contract_path: Path,
    policy: str | Path,
    folder: Path,
    *,
    rounds: Sequence[Path] = (),
    keys: Sequence[RolloutKey] | None = None,
    workers: int,
    engine: str = "processes",
    on_rollout: Callable[[], object] = lambda: None,
) -> Diagnosis:
    """Diagnoses the failed rollouts of a panel's result.

    Args:
        contract_path: The task contract, beside which its model lies.
        policy: The one that was judged; what `policy.load_policy` takes.
        folder: Of the result; gets `diagnosis.json`.
        rounds: Folders of what the policy was trained on; empty: not known, and what it was taught is not looked at.
        keys: Only these, and nothing is written; None: all that failed.
        workers: Processes; of a Ray cluster, how many rollouts at a time.
        engine: One of `runner.ENGINES`.
        on_rollout: Called after each.

    Raises:
        DaggerError: If the result is of another contract or policy, is damaged, or a key is not that of a failure.
    """
    contract = load_contract(contract_path)
    result, panel = PanelResult.read(folder), load_panel(folder / "panel.json")
    result.check(panel, contract, folder)
    about, _ = load_policy(policy, contract)
    if about.weights_sha256 != result.policy_sha256:
        raise DaggerError(
            f"{policy}: expected the policy that was judged, {result.policy} ({result.policy_sha256[:12]}), found "
            f"{about.weights_sha256[:12]}; evaluate this one first"
        )
    failed = failed_rollouts(folder)
    strange = [str(key) for key in keys or () if key not in failed]
    if strange:
        there = ", ".join(map(str, failed)) or "none"
        raise DaggerError(f"{folder}: expected rollouts that failed ({there}), got {', '.join(strange)}")
    wanted = list(failed if keys is None else keys)
    found: dict[RolloutKey, RolloutDiagnosis] = {}
    if wanted:
        typical = _typical(result, panel, contract, folder, {key.condition for key in wanted})
        pool = make_pool(workers, engine)
        try:
            job = _Job(
                contract_path.resolve(),
                str(policy),
                result.policy_sha256,
                panel.model_dump_json(),
                folder.resolve(),
                tuple(f.resolve() for f in rounds),
            )
            futures = {pool.submit(_diagnose_one, job, key, typical[key.condition]): key for key in wanted}
            for future in as_completed(futures):
                found[futures[future]] = future.result()
                on_rollout()
        finally:
            pool.close()
    diagnosis = Diagnosis(result.policy, result.panel, contract.sha256, tuple(found[key] for key in wanted))
    if keys is None:
        diagnosis.write(folder)
    return diagnosis


def _typical(
    result: PanelResult, panel: Panel, contract: Contract, folder: Path, conditions: set[str]
) -> dict[str, Usual]:
    """What is usual in each condition."""
    assert contract.simulation is not None
    task = TASKS[contract.simulation.task](contract)
    rows = {r.key: Trace.read(trace_path(folder, r.key)).rows for r in result.rollouts if r.success}
    typical = {}
    for condition in conditions:
        world = World(contract, panel.perturbation(condition))
        same = [values for key, values in rows.items() if key.condition == condition]
        typical[condition] = usual(list(rows.values()), same, contract, task, disturbed=world != world.plain)
    return typical


@dataclass(frozen=True)
class _Job:
    """What all rollouts of a diagnosis have in common, as it goes to a worker."""

    contract_path: Path
    policy: str
    policy_sha256: str
    panel: str
    folder: Path
    rounds: tuple[Path, ...]


def _diagnose_one(job: _Job, key: RolloutKey, typical: Usual) -> RolloutDiagnosis:
    panel, contract = Panel.model_validate_json(job.panel), contract_of(job.contract_path)
    return attribute(
        _laboratory_of(job.contract_path, job.policy, job.policy_sha256, panel.help),
        World(contract, panel.perturbation(key.condition)),
        Trace.read(trace_path(job.folder, key)),
        ticks=panel.ticks(contract),
        usual=typical,
        taught=_taught_of(job.contract_path, job.rounds),
    )


@functools.lru_cache(maxsize=1)
def _laboratory_of(contract_path: Path, policy: str, sha256: str, help: str) -> Laboratory:
    driver = policy_of(contract_path, policy, sha256)
    return Laboratory(contract_of(contract_path), contract_path, driver, help=help)


@functools.lru_cache(maxsize=1)
def _taught_of(contract_path: Path, rounds: tuple[Path, ...]) -> Taught | None:
    contract = contract_of(contract_path)
    if not rounds or contract.simulation is None:
        return None
    return taught_by(training_episodes(rounds, contract), contract, TASKS[contract.simulation.task](contract))
