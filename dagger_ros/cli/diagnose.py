"""The verb `diagnose`: why rollouts failed, each run again with one cause removed at a time."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dagger_ros.cli.evaluate import add_engine, bar, check_engine
from dagger_ros.cli.report import contract_file
from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import Contract, DaggerError, load_contract

if TYPE_CHECKING:
    from dagger_ros.evaluation.diagnose import Diagnosis, RolloutDiagnosis
    from dagger_ros.evaluation.panel import RolloutKey

__all__ = ["add_verbs"]


def add_verbs(verbs: Verbs) -> None:
    """Adds it to the command line."""
    diagnose = verbs.add_parser("diagnose", help="why rollouts failed: run again with one cause removed at a time")
    diagnose.add_argument(
        "folder",
        metavar="run",
        type=Path,
        help="folder of a run, or what `evaluate` wrote (needs --policy, --contract)",
    )
    diagnose.add_argument("--policy", help="of a run its name (default: the recommended one), else what was judged")
    diagnose.add_argument("--panel", help="of a run, a name (default: every panel with failures)")
    diagnose.add_argument(
        "--rollout", action="append", default=[], help="CONDITION-SEED; only this one, and nothing is written"
    )
    diagnose.add_argument(
        "--contract",
        type=Path,
        help="the contract file beside which the model lies (default: the one in config/contracts/ that is the run's)",
    )
    add_engine(diagnose)
    diagnose.set_defaults(run=_diagnose)


@dataclass(frozen=True)
class _Judged:
    """What is diagnosed: the result of a panel, the policy that was judged, the contract, what it was trained on."""

    folder: Path
    policy: str
    contract: Path
    rounds: tuple[Path, ...] = ()


def _diagnose(options: argparse.Namespace) -> None:
    from dagger_ros.evaluation.diagnose import diagnose, failed_rollouts

    check_engine(options)
    written = False
    for judged in _results(options):
        failed = failed_rollouts(judged.folder)
        keys = [_key(text) for text in options.rollout] or None
        count = len(failed if keys is None else keys)
        with bar(f"{judged.folder.name}: {count} failed rollouts", count) as advance:
            found = diagnose(
                judged.contract,
                judged.policy,
                judged.folder,
                rounds=judged.rounds,
                keys=keys,
                workers=options.workers,
                engine=options.engine,
                on_rollout=partial(advance, 1),
            )
        _show(found, in_full=keys is not None)
        if keys is None:
            print(f"diagnosis: {judged.folder / 'diagnosis.json'}")
            written = True
    if written and not (options.folder / "rollouts.json").exists():
        print(f"into the report: dagger-ros report {options.folder}")


def _results(options: argparse.Namespace) -> list[_Judged]:
    """The results of panels that were asked for."""
    run: Path = options.folder
    if (run / "rollouts.json").exists():
        if options.policy is None or options.contract is None:
            raise DaggerError(
                f"{run}: expected --policy, what was judged, and --contract, since this is the result of one panel"
            )
        if options.panel is not None:
            raise DaggerError(f"panel: expected only with the folder of a run; {run} is the result of one panel")
        return [_Judged(run, options.policy, options.contract)]
    from dagger_ros.evaluation.report import read_result

    result = read_result(run)
    policy = options.policy or result["recommended"]["policy"]
    panels = run / "panels"
    if not (panels / policy).is_dir():
        there = ", ".join(sorted(p.name for p in panels.glob("*") if p.is_dir())) or "none"
        raise DaggerError(f"policy: expected one that was judged in {panels} ({there}), got {policy}")
    names = sorted(p.parent.name for p in (panels / policy).glob("*/rollouts.json"))
    if options.panel is not None and options.panel not in names:
        raise DaggerError(
            f"panel: expected one of {', '.join(names) or 'none'} in {panels / policy}, got {options.panel}"
        )
    return _with_failures(options, policy, [options.panel] if options.panel else names)


def _with_failures(options: argparse.Namespace, policy: str, names: list[str]) -> list[_Judged]:
    from dagger_ros.evaluation.diagnose import failed_rollouts

    run: Path = options.folder
    contract = load_contract(run / "contract.yaml")
    path = contract_file(options.contract, contract)
    if path is None:
        raise DaggerError(
            f"{run}: expected the contract file beside which the model lies; give it with --contract, since none in "
            f"config/contracts/ is contract {contract.name} ({contract.sha256[:12]}) of this run"
        )
    folders = [run / "panels" / policy / name for name in names]
    failed = [folder for folder in folders if options.rollout or failed_rollouts(folder)]
    for folder in folders:
        if folder not in failed:
            print(f"{policy} on panel {folder.name}: no rollout failed")
    if options.rollout and len(failed) > 1:
        raise DaggerError(f"rollout: expected --panel beside it, one of {', '.join(names)}")
    source = run / "policies" / policy
    rounds = _rounds(run, source, contract) if failed else ()
    return [_Judged(folder, str(source), path, rounds) for folder in failed]


def _rounds(run: Path, policy: Path, contract: Contract) -> tuple[Path, ...]:
    """Folders of what a policy was trained on; empty, if not all of them are there."""
    from dagger_ros.dataset import round_folder
    from dagger_ros.policy import load_checkpoint

    rounds = tuple(
        round_folder(run, int(source["round"])) for source in load_checkpoint(policy, contract)[0].trained_on
    )
    return rounds if all(folder.is_dir() for folder in rounds) else ()


def _key(text: str) -> RolloutKey:
    from dagger_ros.evaluation.panel import RolloutKey

    condition, _, seed = text.rpartition("-")
    if not condition or not seed.isdecimal():
        raise DaggerError(f"rollout: expected CONDITION-SEED, as in nominal-1000000004, got {text!r}")
    return RolloutKey(condition, int(seed))


def _show(diagnosis: Diagnosis, *, in_full: bool) -> None:
    print(f"{diagnosis.policy} on panel {diagnosis.panel}: {len(diagnosis.rollouts)} failed rollouts")
    for rollout in diagnosis.rollouts:
        print(f"  {_line(rollout)}")
        if in_full:
            for sentence in rollout.evidence[1:]:
                print(f"    {sentence}")
            for tried in rollout.reruns:
                healed = f"{tried.healed} of {tried.of} succeed" if tried.of else "not tested"
                print(f"    {tried.words}: {healed}")
    counts = ", ".join(f"{count} {cause}" for cause, count in diagnosis.causes.items())
    conditions = Counter(r.condition for r in diagnosis.rollouts)
    print(f"causes: {counts or 'none'}")
    if len(conditions) > 1:
        for condition in conditions:
            causes = Counter(r.cause or "unknown" for r in diagnosis.rollouts if r.condition == condition)
            print(f"  {condition}: " + ", ".join(f"{count} {cause}" for cause, count in causes.most_common()))


def _line(rollout: RolloutDiagnosis) -> str:
    onset = f"onset {rollout.onset_s:.2f} s" if rollout.onset_tick >= 0 else "no onset"
    said = rollout.evidence[0] if rollout.evidence else ""
    return f"{rollout.key}  {rollout.failure}  {rollout.cause or 'unknown'}  {onset}  {said}"
