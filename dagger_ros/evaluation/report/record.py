"""What a run left, read for its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.dataset import RoundView, inspect_rounds, manifest_sha256, round_folders
from dagger_ros.evaluation.panel import Panel, PanelResult, RolloutKey, RolloutResult, load_panel

__all__ = ["RESULT_SCHEMA", "Cause", "Judged", "Record", "Sheet", "read_record", "read_result"]

RESULT_SCHEMA = "dagger_ros.result/2"
_DIAGNOSIS_SCHEMA = 1


@dataclass(frozen=True)
class Cause:
    """Why one rollout failed, as `dagger-ros diagnose` found.

    Args:
        cause: Its name; empty: none could be shown.
        onset_tick: Last tick from which the expert still saves the rollout; -1: none known.
        evidence: Sentences, the most telling first.
        reruns: For each cause that was removed: its name, how many reruns healed, and of how many.
    """

    cause: str
    onset_tick: int
    evidence: tuple[str, ...]
    reruns: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Judged:
    """One policy on one panel.

    Args:
        result: How it did.
        folder: Where its traces lie.
        causes: Of its failures; None: nobody has diagnosed them.
    """

    result: PanelResult
    folder: Path
    causes: Mapping[RolloutKey, Cause] | None

    @property
    def policy(self) -> str:
        """Its name."""
        return self.result.policy

    @property
    def failed(self) -> list[RolloutResult]:
        """The rollouts without success."""
        return [r for r in self.result.rollouts if not r.success]


@dataclass(frozen=True)
class Sheet:
    """One panel with every policy that was judged on it, the first round's first."""

    panel: Panel
    judged: tuple[Judged, ...]

    def of(self, policy: str) -> Judged:
        """What one policy did."""
        return next(j for j in self.judged if j.policy == policy)


@dataclass(frozen=True)
class Record:
    """A run.

    Args:
        out: Its folder.
        contract: Its contract.
        result: What stands in result.json.
        sheets: Panel by panel; the first one chose the policy.
        final: Panel of the recommended policy alone, on which nothing was chosen; None: there was none.
        rounds: What was recorded, round by round; empty: `rounds_problem` says why.
        rounds_problem: Why the rounds could not be read.
        manifests: SHA-256 of each round's manifest.
        config: Text of config.yaml.
    """

    out: Path
    contract: Contract
    result: Mapping[str, Any]
    sheets: tuple[Sheet, ...]
    final: Sheet | None
    rounds: tuple[RoundView, ...]
    rounds_problem: str
    manifests: tuple[str, ...]
    config: str

    @property
    def recommended(self) -> str:
        """Name of the policy to take."""
        name: str = self.result["recommended"]["policy"]
        return name

    @property
    def rollouts(self) -> int:
        """How many there are, of all policies on all panels."""
        return sum(len(j.result.rollouts) for sheet in self.every_sheet for j in sheet.judged)

    @property
    def every_sheet(self) -> tuple[Sheet, ...]:
        """All panels, the final one last."""
        return self.sheets if self.final is None else (*self.sheets, self.final)


def read_result(out: Path) -> dict[str, Any]:
    """What stands in result.json of a run.

    Raises:
        DaggerError: If it is missing, damaged or of another format.
    """
    path = out / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        schema = result["schema"]
    except OSError as error:
        raise DaggerError(f"{path}: expected the result of a run here; {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DaggerError(f"{path}: expected the result of a run ({RESULT_SCHEMA}); it is damaged: {error}") from error
    if schema != RESULT_SCHEMA:
        raise DaggerError(
            f"{path}: expected a result of format {RESULT_SCHEMA}, found {schema}; run it again, or make its report "
            "with the version that wrote it"
        )
    return dict(result)


def read_record(out: Path, contract: Contract, result: Mapping[str, Any]) -> Record:
    """Reads the rollouts, diagnoses and rounds of a run.

    Args:
        out: Folder of the run.
        contract: Of the run.
        result: What stands in result.json.

    Raises:
        DaggerError: If parts do not belong together, or a panel's result is missing or damaged. Rounds that cannot
            be read are no error: a run may be kept without its recordings.
    """
    if result["contract_sha256"] != contract.sha256:
        raise DaggerError(
            f"{out / 'result.json'}: expected a result under contract {contract.name} ({contract.sha256[:12]}), found "
            f"one under {str(result['contract_sha256'])[:12]}; give the contract of the run"
        )
    rounds = result["rounds"]
    names = [rounds[0]["panel"]["name"], *rounds[0]["panels"]]
    policies = [r["policy"] for r in rounds]
    final = None
    if result["final"] is not None:
        final = _read_sheet(out, contract, result["final"]["name"], [result["recommended"]["policy"]])
    views, manifests, problem = _read_rounds(out, contract)
    config = out / "config.yaml"
    return Record(
        out=out,
        contract=contract,
        result=result,
        sheets=tuple(_read_sheet(out, contract, name, policies) for name in names),
        final=final,
        rounds=views,
        rounds_problem=problem,
        manifests=manifests,
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
    )


def _read_sheet(out: Path, contract: Contract, panel_name: str, policies: list[str]) -> Sheet:
    judged = []
    for policy in policies:
        folder = out / "panels" / policy / panel_name
        result, panel = PanelResult.read(folder), load_panel(folder / "panel.json")
        result.check(panel, contract, folder)
        judged.append(Judged(result, folder, _read_causes(folder)))
    return Sheet(panel, tuple(judged))


def _read_causes(folder: Path) -> dict[RolloutKey, Cause] | None:
    path = folder / "diagnosis.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != _DIAGNOSIS_SCHEMA:
            raise ValueError(f"schema {content['schema']}")
        return {
            RolloutKey(r["condition"], r["seed"]): Cause(
                cause=r["cause"],
                onset_tick=r["onset_tick"],
                evidence=tuple(r["evidence"]),
                reruns=tuple((t["removed"], t["healed"], t["of"]) for t in r["reruns"]),
            )
            for r in content["rollouts"]
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DaggerError(
            f"{path}: expected what dagger-ros diagnose writes (schema {_DIAGNOSIS_SCHEMA}); {error}. "
            "Diagnose again, or remove it"
        ) from error


def _read_rounds(out: Path, contract: Contract) -> tuple[tuple[RoundView, ...], tuple[str, ...], str]:
    try:
        folders = round_folders(out)
        return tuple(inspect_rounds(folders, contract)), tuple(manifest_sha256(f) for f in folders), ""
    except DaggerError as error:
        return (), (), str(error).replace(str(out), "RUN")  # the report says the same wherever the run lies
