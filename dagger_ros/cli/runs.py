"""The verbs that learn, in simulation: `run` and `compare`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.supervisor import RULES

if TYPE_CHECKING:
    from dagger_ros.evaluation import Panel

__all__ = ["add_verbs"]


def add_verbs(verbs: Verbs) -> None:
    """Adds them to the command line."""
    run = verbs.add_parser("run", help="run DAgger in simulation, through the ROS graph")
    run.add_argument("--contract", type=Path, required=True, help="task contract, a YAML file")
    run.add_argument(
        "--rule",
        default="hg",
        help=f"who drives and what is a label: {', '.join(RULES)} (default: hg)",
    )
    run.add_argument("--beta", help="of rule dagger: indicator (default), exponential or linear")
    run.add_argument(
        "--budget", type=float, help="of rule thrifty: share of the policy's ticks at which it may ask (default: 0.01)"
    )
    run.add_argument(
        "--expert-noise",
        type=float,
        help="of rule lazy: noise on what the expert executes, in half bound ranges (default: 0.1)",
    )
    run.add_argument("--rounds", type=int, default=6, help="rounds after the demonstrations (default: 6)")
    run.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    run.add_argument("--out", type=Path, required=True, help="folder of the run; new, empty, or with --resume")
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last finished round in --out, with the options of that run",
    )
    run.add_argument("--demonstrations", type=int, help="episodes of round 0 (default: the contract's)")
    run.add_argument("--episodes", type=int, help="episodes of each further round (default: the contract's)")
    run.add_argument("--max-labels", type=int, help="stop after the round in which so many labels are reached")
    run.add_argument("--panel", type=Path, help="held-out rollouts, a YAML file (default: nominal, 30 rollouts)")
    run.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes for the panel (default: one for each core)"
    )
    run.set_defaults(run=_run)

    rules = verbs.add_parser("compare", help="run several rules with several seeds in simulation, and write one table")
    rules.add_argument("--contract", type=Path, required=True, help="task contract, a YAML file")
    rules.add_argument("--rules", default=",".join(RULES), help=f"comma-separated (default: {','.join(RULES)})")
    rules.add_argument("--seeds", default="0,1,2,3,4", help="comma-separated (default: 0,1,2,3,4)")
    rules.add_argument("--budgets", default="", help="of rule thrifty, comma-separated, one line each (default: 0.01)")
    rules.add_argument("--rounds", type=int, default=6, help="rounds after the demonstrations (default: 6)")
    rules.add_argument("--out", type=Path, required=True, help="folder; what it has of these runs already is kept")
    rules.add_argument("--panel", type=Path, help="held-out rollouts, a YAML file (default: nominal, 30 rollouts)")
    rules.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="runs at the same time (default: one for each core)"
    )
    rules.set_defaults(run=_compare)


def _run(options: argparse.Namespace) -> None:
    from dagger_ros.dagger import RunConfig, run
    from dagger_ros.nodes.lockstep import collect_round

    config = RunConfig(
        rule=options.rule,
        rounds=options.rounds,
        seed=options.seed,
        beta=options.beta,
        budget=options.budget,
        expert_noise=options.expert_noise,
        demonstrations=options.demonstrations,
        episodes=options.episodes,
        max_labels=options.max_labels,
    )
    if options.workers < 1:
        raise DaggerError(f"workers: expected a whole number >= 1, got {options.workers}")
    panel = _panel_of(options)
    progress = _Bars(load_contract(options.contract))
    result = run(
        config,
        options.contract,
        options.out,
        panel,
        collect=collect_round,
        progress=progress,
        resume=options.resume,
        workers=options.workers,
    )
    print(f"\nstopped: {result['stop']['reason']}")
    print(f"recommended: {options.out / 'policies' / result['recommended']['policy']}")
    print(f"report: {options.out / 'report' / 'index.html'}")


def _compare(options: argparse.Namespace) -> None:
    from dagger_ros.compare import Outcome, compare, methods_of, table_of
    from dagger_ros.nodes.lockstep import collect_round

    def told(outcome: Outcome) -> None:
        success = f"{100 * outcome.success:.0f} %"
        print(f"{outcome.method} seed {outcome.seed}: {success}, {outcome.labels} labels", flush=True)

    if options.jobs < 1:
        raise DaggerError(f"jobs: expected a whole number >= 1, got {options.jobs}")
    outcomes = compare(
        methods_of(_listed_as("rules", options.rules, str), _listed_as("budgets", options.budgets, float)),
        _listed_as("seeds", options.seeds, int),
        options.contract,
        options.out,
        _panel_of(options),
        rounds=options.rounds,
        collect=collect_round,
        jobs=options.jobs,
        on_outcome=told,
    )
    print(f"\n{table_of(outcomes)}\n\ntables: {options.out / 'table.md'}, {options.out / 'table.csv'}")


def _listed_as(name: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    """What an option lists, comma-separated."""
    try:
        return [kind(item.strip()) for item in text.split(",") if item.strip()]
    except ValueError as error:
        expected = "numbers" if kind is float else "whole numbers"
        raise DaggerError(f"{name}: expected {expected}, comma-separated, got {text!r}") from error


def _panel_of(options: argparse.Namespace) -> Panel:
    from dagger_ros.evaluation import load_panel
    from dagger_ros.nodes.share import config_file

    return load_panel(options.panel or config_file("panels/nominal.yaml"))


class _Bars:
    """Progress as bars on a terminal, and one line a round everywhere."""

    _COLUMNS = "{:>6}  {:>10}  {:>6}  {:>9}  {:>12}  {:>13}  {:>22}"

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._begun = False

    def _begin(self) -> None:
        """Prints the heading, once there is something to say."""
        if not self._begun:
            metric = f"{self._contract.task.metric.name} (mean)"
            heads = ("policy", "new labels", "labels", "takeovers", "intervention", "panel success", metric)
            print(f"{self._contract.name}: {self._contract.task.description}")
            print(self._COLUMNS.format(*heads), flush=True)
        self._begun = True

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._begin()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bars:
            task = bars.add_task(name, total=total)
            yield lambda steps: bars.advance(task, steps)

    def round_done(self, result: Any) -> None:
        self._begin()
        panel = result.panel
        low, high = panel["success_ci95"]
        print(
            self._COLUMNS.format(
                result.policy,
                result.labels_new,
                result.labels_total,
                result.takeovers,
                f"{100 * result.intervention_rate:.0f} %",
                f"{100 * panel['success_rate']:.0f} % ({100 * low:.0f}-{100 * high:.0f})",
                f"{panel['metric']['mean']:.2f}",
            ),
            flush=True,
        )
