"""Rules beside each other: what is counted, and the table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from conftest import contract_path

pytest.importorskip("rclpy")
pytest.importorskip("torch")
from dagger_ros.compare import Method, Outcome, compare, methods_of, table_of
from dagger_ros.evaluation import Panel
from dagger_ros.learning import TrainingSettings
from dagger_ros.nodes.lockstep import collect_round

PANEL = Panel(name="small", first_seed=1_000_000_000, count=2, perturbation={})
QUICK = TrainingSettings(members=2, hidden=(32,), steps=100, bootstrap=True)


def round_(index: int, rate: float, **counts: int) -> dict[str, Any]:
    names = ("takeovers", "context_switches", "help_requests", "expert_ticks", "policy_ticks")
    panel = {"success_rate": rate, "metric": {"mean": rate / 2}}
    return dict.fromkeys(names, 0) | {"policy": f"pi_{index}", "labels_total": 10 * index, "panel": panel} | counts


def outcome(seed: int, rate: float) -> Outcome:
    counts = {"takeovers": 2, "context_switches": 3, "help_requests": 4, "expert_ticks": 50, "policy_ticks": 36}
    rounds = [round_(0, 0.1, expert_ticks=999), round_(1, rate, **counts), round_(2, 0.2, **counts)]
    result = {"seed": seed, "rounds": rounds, "recommended": {"policy": "pi_1"}}
    return Outcome.of(Method("thrifty", 0.05), result)


def test_outcome_counts_the_rounds_after_the_demonstrations_and_judges_the_recommended_policy() -> None:
    assert outcome(3, 0.9) == Outcome(
        method="thrifty_0.05",
        seed=3,
        first_success=0.1,
        success=0.9,
        metric=0.45,
        labels=20,
        takeovers=4,
        context_switches=6,
        help_requests=8,
        help_rate=0.1,
        human_steps=100,
    )


def test_table_has_a_line_for_each_method_with_means_and_the_range_of_success() -> None:
    lines = table_of([outcome(0, 0.9), outcome(1, 1.0)]).splitlines()
    assert len(lines) == 3
    assert {line.count("|") for line in lines} == {12}
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    expected = ["thrifty_0.05", "2", "10 %", "95 % (90 to 100)", "0.47", "20", "4", "6", "8", "10.0 %", "100"]
    assert cells == expected


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
            rounds=1,
            collect=collect_round,
            jobs=2,
            on_outcome=seen.append,
            training=QUICK,
        )

    seen: list[Outcome] = []
    outcomes = run()
    assert [(o.method, o.seed) for o in outcomes] == [("bc", 1), ("lazy", 1)]
    assert sorted(seen, key=lambda o: o.method) == outcomes
    assert (outcomes[0].context_switches, outcomes[0].help_requests) == (0, 0)
    assert outcomes[0].human_steps > 100
    assert outcomes[1].help_requests > 0
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["method"] for row in rows] == ["bc", "lazy"]
    assert float(rows[1]["help_rate"]) == outcomes[1].help_rate
    assert (tmp_path / "table.md").read_text() == table_of(outcomes) + "\n"
    bag = tmp_path / "lazy/seed_1/rounds/001/episodes/000000/bag/bag.mcap"
    before = bag.stat().st_mtime_ns
    assert run() == outcomes
    assert bag.stat().st_mtime_ns == before
