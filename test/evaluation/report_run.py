"""A small run on disk for the tests of the report: two policies of `peg`, three panels, without recorded rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from conftest import contract_path, small_panel
from dagger_ros.contract import Contract, RowLayout, Scores
from dagger_ros.contract.files import write_file
from dagger_ros.evaluation import Panel, PanelResult, RolloutResult, Trace, run_rollout, trace_path, trend
from dagger_ros.evaluation.panel import RolloutKey
from dagger_ros.evaluation.stopping import against
from dagger_ros.policy import Checkpoint
from dagger_ros.sim import load_plant
from dagger_ros.sim.tasks.peg import PegExpert

__all__ = ["COUNT", "ONSET", "Rollouts", "make_run", "simulate", "write_diagnosis"]

COUNT = 6
ONSET = 17
# One rollout of each kind, and where everything stood in it.
Rollouts = dict[str, tuple[RolloutResult, Any, Any]]


class _Policy:
    """Does what the expert would do with what a policy sees, or nothing."""

    def __init__(self, contract: Contract, *, good: bool) -> None:
        self._expert = PegExpert(contract) if good else None

    def start_episode(self) -> None:
        pass

    def act(self, observation: Any, out: Any, stamp_ns: int) -> Scores:
        out[:] = 0.0
        if self._expert is not None:
            self._expert.act(observation[:3], out)
        return Scores(doubt=0.1, novelty=0.5 if self._expert else 2.0)


def simulate(contract: Contract) -> Rollouts:
    """A success, a failure, and a failure that the operator prevents."""
    plant = load_plant(contract, contract_path("peg"))
    about = Checkpoint("pi", 0, contract.sha256, 0, RowLayout(contract).columns(), contract.action.dimensions, (), {})
    key = RolloutKey("plain", 1_000_000_000)
    kinds = {"good": (True, "none"), "bad": (False, "none"), "helped": (False, "operator")}
    return {
        name: run_rollout(contract, plant, (about, _Policy(contract, good=good)), key, ticks=120, help=help)
        for name, (good, help) in kinds.items()
    }


def make_run(out: Path, contract: Contract, rollouts: Rollouts, *, rule: str = "hg") -> dict[str, Any]:
    """Writes the run, and gives what stands in its result.json."""
    panels = [small_panel(COUNT, "nominal"), small_panel(COUNT, "assisted", help="operator")]
    final = small_panel(COUNT, "final", first_seed=2_000_000_000)
    kinds = {
        ("pi_000", "nominal"): ["good", *["bad"] * (COUNT - 1)],
        ("pi_001", "nominal"): [*["good"] * (COUNT - 1), "bad"],
        ("pi_000", "assisted"): ["good", *["helped"] * (COUNT - 1)],
        ("pi_001", "assisted"): [*["good"] * (COUNT - 1), "helped"],
        ("pi_001", "final"): [*["good"] * (COUNT - 1), "bad"],
    }
    judged = {
        (policy, name): _write_panel(out, contract, policy, panel, kinds[policy, name], rollouts)
        for panel in [*panels, final]
        for policy in ("pi_000", "pi_001")
        if (name := panel.name) and (policy, name) in kinds
    }
    fall = trend(np.array([judged[p, "assisted"].interventions for p in ("pi_000", "pi_001")]))
    before, now = judged["pi_000", "nominal"], judged["pi_001", "nominal"]
    pair = {"policy": "pi_000"} | asdict(against(before, now, maximize=True))
    result = {
        "schema": "dagger_ros.result/2",
        "task": contract.name,
        "rule": rule,
        "seed": 0,
        "contract_sha256": contract.sha256,
        "rounds": [
            {
                "round": k,
                "policy": policy,
                "labels_new": 100,
                "labels_total": 100 * (k + 1),
                "takeovers": 3,
                "context_switches": 5,
                "help_requests": 0,
                "expert_ticks": 100,
                "policy_ticks": 300 * k,
                "intervention_rate": 0.25 if k else 1.0,
                "panel": judged[policy, "nominal"].summary(),
                "panels": {"assisted": judged[policy, "assisted"].summary()},
                "against_best": pair if k else None,
                "shift": {"auc": 0.7, "covered": 0.9} if k else None,
            }
            for k, policy in enumerate(("pi_000", "pi_001"))
        ],
        "recommended": {"round": 1, "policy": "pi_001"},
        "final": judged["pi_001", "final"].summary(),
        "interventions": {"panel": "assisted"} | asdict(fall) | {"falling": fall.falling},
        "stop": {"reason": "1 of 1 rounds done"},
    }
    write_file(out / "result.json", json.dumps(result).encode())
    write_file(out / "config.yaml", b"rule: hg\n")
    write_file(out / "contract.yaml", contract_path("peg").read_bytes())
    return result


def write_diagnosis(out: Path, contract: Contract, policy: str, panel: str) -> Path:
    """Writes what `dagger-ros diagnose` would have found out about every failure."""
    folder = out / "panels" / policy / panel
    failed = [r for r in PanelResult.read(folder).rollouts if not r.success]
    content = {
        "schema": 1,
        "policy": policy,
        "panel": panel,
        "contract_sha256": contract.sha256,
        "rollouts": [
            {
                "condition": r.condition,
                "seed": r.seed,
                "failure": r.failure,
                "cause": "data_coverage",
                "onset_tick": ONSET,
                "onset_s": ONSET / 20,
                "evidence": ["It stood still where <nobody> had been."],
                "reruns": [{"removed": "timing", "healed": 0, "of": 3}, {"removed": "expert", "healed": 3, "of": 3}],
            }
            for r in failed
        ],
        "causes": {"data_coverage": len(failed)},
    }
    path = folder / "diagnosis.json"
    write_file(path, json.dumps(content).encode())
    return path


def _write_panel(
    out: Path, contract: Contract, policy: str, panel: Panel, kinds: Sequence[str], rollouts: Rollouts
) -> PanelResult:
    folder = out / "panels" / policy / panel.name
    results = []
    for key, kind in zip(panel.rollouts, kinds, strict=True):
        result, rows, scenes = rollouts[kind]
        results.append(replace(result, condition=key.condition, seed=key.seed))
        trace = Trace(results[-1], "1" * 64, panel.sha256, contract.sha256, rows, scenes)
        write_file(trace_path(folder, key), trace.to_bytes())
    judged = PanelResult(
        panel.name, panel.sha256, contract.sha256, policy, "1" * 64, contract.task.metric.name, tuple(results)
    )
    write_file(folder / "rollouts.json", judged.to_json())
    write_file(folder / "panel.json", json.dumps(panel.model_dump(mode="json")).encode())
    return judged
