"""Rules beside each other: what is counted, and the table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import contract_path, small_panel

pytest.importorskip("rclpy")
pytest.importorskip("torch")
from dagger_ros.compare import Method, Outcome, Outside, against_reference, compare, methods_of, table_of
from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.dagger import RunConfig
from dagger_ros.evaluation import PanelResult, RolloutResult
from dagger_ros.learning import TrainingSettings
from dagger_ros.nodes.lockstep import collect_round

PANEL, FINAL = small_panel(2), small_panel(6, name="final", first_seed=2_000_000_000)
QUICK = TrainingSettings(members=2, hidden=(32,), steps=100, bootstrap=True)


def round_(index: int, rate: float, **counts: int) -> dict[str, Any]:
    names = ("takeovers", "context_switches", "help_requests", "expert_ticks", "policy_ticks")
    panel = {"success_rate": rate, "metric": {"mean": rate / 2}}
    return dict.fromkeys(names, 0) | {"policy": f"pi_{index}", "labels_total": 10 * index, "panel": panel} | counts


def judged(rate: float) -> PanelResult:
    rollouts = tuple(
        RolloutResult("plain", i, i < 10 * rate, "", (i < 10 * rate) / 2, 10, 1.0, 0.0, 0.0, 0, 0) for i in range(10)
    )
    return PanelResult("final", "0", "1", "pi_1", "2", "success", rollouts)


def outcome(seed: int, rate: float) -> Outcome:
    counts = {"takeovers": 2, "context_switches": 3, "help_requests": 4, "expert_ticks": 50, "policy_ticks": 36}
    rounds = [round_(0, 0.1, expert_ticks=999), round_(1, rate, **counts), round_(2, 0.2, **counts)]
    result = {"seed": seed, "rounds": rounds, "recommended": {"policy": "pi_1"}}
    return Outcome.of(Method("thrifty", 0.05), result, judged(rate))


def test_outcome_counts_the_rounds_after_the_demonstrations_and_judges_the_recommended_policy() -> None:
    assert outcome(3, 0.9) == Outcome(
        method="thrifty_0.05",
        seed=3,
        judged=judged(0.9),
        first_success=0.1,
        labels=20,
        takeovers=4,
        context_switches=6,
        help_requests=8,
        help_rate=0.1,
        human_steps=100,
    )


def test_table_has_a_line_for_each_method_with_means_the_range_and_the_paired_difference(peg: Contract) -> None:
    low = [replace(outcome(seed, 0.2), method="bc") for seed in (0, 1)]
    outcomes = [outcome(0, 0.9), outcome(1, 1.0), *low]
    lines = table_of(outcomes, against_reference(outcomes, peg)).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:12] == [
        "thrifty_0.05", "2", "10 %", "95 % (90 to 100)", "31 to 100 %", "0.47", "20", "4", "6", "8", "10.0 %", "100",
    ]  # fmt: skip
    assert cells[12].startswith("+75 points (+")
    assert cells[13:] == ["15 here, 0 there", "credibly better"]
    assert [cell.strip() for cell in lines[3].strip("|").split("|")][12:] == ["", "", ""]


def test_policy_that_gave_nan_is_in_the_table_and_in_no_mean(peg: Contract) -> None:
    outcomes = [outcome(0, 0.9), Outcome("thrifty_0.05", 1, None, "pi_3: NaN"), Outcome("sick", 0, None, "pi_0: NaN")]
    lines = table_of(outcomes, against_reference(outcomes, peg)).splitlines()
    assert lines[2].startswith("| thrifty_0.05 | 1 of 2 | 10 % | 90 % (90 to 90) |")
    assert lines[3].startswith("| sick | 0 of 1 |  | not judged |")


def test_final_panel_with_seeds_of_the_choosing_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DaggerError, match="expected a final panel with other seeds than small"):
        compare(
            methods_of(["bc"], []), [0], contract_path("peg"), tmp_path, PANEL, PANEL,
            config=RunConfig(rule="bc", rounds=1, seed=0), collect=collect_round, jobs=1, on_outcome=print,
        )  # fmt: skip


def test_thrifty_has_a_line_for_each_budget_and_other_rules_one() -> None:
    assert [m.name for m in methods_of(["hg", "thrifty"], [0.05, 0.1])] == ["hg", "thrifty_0.05", "thrifty_0.1"]
    assert [m.name for m in methods_of(["hg", "thrifty"], [])] == ["hg", "thrifty"]


@pytest.mark.ros
@pytest.mark.mujoco
@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.usefixtures("ros_domain")
def test_comparison_runs_each_method_once_and_goes_on_where_it_was(tmp_path: Path) -> None:
    def run() -> list[Outcome]:
        return compare(
            methods_of(["bc", "lazy"], []),
            [1],
            contract_path("peg"),
            tmp_path,
            PANEL,
            FINAL,
            config=RunConfig(rule="bc", rounds=1, seed=0, training=QUICK, patience=0),
            outside=outside,
            collect=collect_round,
            jobs=2,
            on_outcome=seen.append,
        )

    seen: list[Outcome] = []
    outside: list[Outside] = []
    outcomes = run()
    assert [(o.method, o.seed) for o in outcomes] == [("bc", 1), ("lazy", 1)]
    assert sorted(seen, key=lambda o: o.method) == outcomes
    assert (outcomes[0].context_switches, outcomes[0].help_requests) == (0, 0)
    assert outcomes[0].human_steps > 100
    assert outcomes[1].help_requests > 0
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["method"] for row in rows] == ["bc", "lazy"]
    assert float(rows[1]["help_rate"]) == outcomes[1].help_rate
    differences = against_reference(outcomes, load_contract(contract_path("peg")))
    assert (tmp_path / "table.md").read_text() == table_of(outcomes, differences) + "\n"
    assert list(differences) == ["lazy"]
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert [(r["method"], r["success"]) for r in content["runs"]] == [
        (o.method, o.judged.success_rate) for o in outcomes if o.judged
    ]
    bag = tmp_path / "lazy/seed_1/rounds/001/episodes/000000/bag/bag.mcap"
    before = bag.stat().st_mtime_ns
    assert run() == outcomes
    assert bag.stat().st_mtime_ns == before
    outside.append(Outside("theirs", str(tmp_path / "bc/seed_1/policies/pi_001")))
    *same, theirs = run()
    assert same == outcomes
    assert (theirs.method, theirs.seed, theirs.labels) == ("theirs", 0, None)
    assert theirs.judged is not None
    assert theirs.judged.panel == "final"
