"""Rules beside each other: the same task, rounds, seeds and panel for each, and one table.

<out>/
lazy/seed_0/               a run, see `dagger`; `thrifty_0.05/seed_0` for a budget of 0.05
table.csv                  one line for each run
table.md                   one line for each rule: means over the seeds, and the range of the panel's results
"""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dagger_ros.contract import DaggerError, load_contract
from dagger_ros.contract.files import write_file
from dagger_ros.dagger import Collect, RoundResult, RunConfig, run
from dagger_ros.evaluation import Panel
from dagger_ros.learning import TrainingSettings

__all__ = ["Method", "Outcome", "compare", "methods_of", "table_of"]


@dataclass(frozen=True)
class Method:
    """A rule with its options.

    Args:
        rule: One of `supervisor.RULES`.
        budget: Of `thrifty`; None: the default, and for every other rule.
    """

    rule: str
    budget: float | None = None

    @property
    def name(self) -> str:
        """As it stands in the table, and names a folder."""
        return self.rule if self.budget is None else f"{self.rule}_{self.budget:g}"


@dataclass(frozen=True)
class Outcome:
    """What one run brought, its rounds after the demonstrations taken together.

    Args:
        method: Name of the method.
        seed: Of the run.
        first_success: Share of the panel that the policy of the demonstrations met.
        success: The same of the recommended policy.
        metric: Mean of the contract's metric of the recommended policy.
        labels: Expert labels of all rounds, demonstrations too.
        takeovers: Times that the expert took control.
        context_switches: Times that control went from the policy to the expert or back.
        help_requests: Times that the rule asked for help.
        help_rate: Help requests as a share of the ticks at which the policy could ask.
        human_steps: Ticks that the expert drove.
    """

    method: str
    seed: int
    first_success: float
    success: float
    metric: float
    labels: int
    takeovers: int
    context_switches: int
    help_requests: int
    help_rate: float
    human_steps: int

    @staticmethod
    def of(method: Method, result: dict[str, Any]) -> Outcome:
        """Reads a run's result."""
        first, *rounds = result["rounds"]
        best = next(r for r in result["rounds"] if r["policy"] == result["recommended"]["policy"])
        total = {
            name: sum(r[name] for r in rounds)
            for name in ("takeovers", "context_switches", "help_requests", "expert_ticks", "policy_ticks")
        }
        chances = total["policy_ticks"] + total["help_requests"]
        return Outcome(
            method=method.name,
            seed=result["seed"],
            first_success=first["panel"]["success_rate"],
            success=best["panel"]["success_rate"],
            metric=best["panel"]["metric"]["mean"],
            labels=result["rounds"][-1]["labels_total"],
            takeovers=total["takeovers"],
            context_switches=total["context_switches"],
            help_requests=total["help_requests"],
            help_rate=total["help_requests"] / chances if chances else 0.0,
            human_steps=total["expert_ticks"],
        )


def methods_of(rules: Sequence[str], budgets: Sequence[float]) -> list[Method]:
    """Each rule once, `thrifty` once for each budget."""
    return [
        method
        for rule in rules
        for method in ([Method(rule, b) for b in budgets] if rule == "thrifty" and budgets else [Method(rule)])
    ]


def compare(
    methods: Sequence[Method],
    seeds: Sequence[int],
    contract_path: Path,
    out: Path,
    panel: Panel,
    *,
    rounds: int,
    collect: Collect,
    jobs: int,
    on_outcome: Callable[[Outcome], object],
    training: TrainingSettings | None = None,
) -> list[Outcome]:
    """Runs every method with every seed, and writes the tables. What is in `out` already is gone on with.

    Args:
        methods: What is compared.
        seeds: Of the runs.
        contract_path: The task contract.
        out: Folder of the comparison.
        panel: Held-out rollouts that every policy of every run is judged on.
        rounds: After the demonstrations.
        collect: How rounds are recorded.
        jobs: Runs at the same time.
        on_outcome: Called after each run.
        training: How each policy is trained; None: by default.

    Returns:
        One for each run, method by method.

    Raises:
        DaggerError: If a run cannot be done, or `out` holds other ones.
    """
    if not (methods and seeds) or len(set(methods)) < len(methods) or len(set(seeds)) < len(seeds):
        names = f"rules {', '.join(m.name for m in methods) or 'none'}; seeds {', '.join(map(str, seeds)) or 'none'}"
        raise DaggerError(f"compare: expected at least one rule and one seed, and each once; got {names}")
    load_contract(contract_path)
    # What cannot be run is refused before anything is.
    parts = [
        (m, RunConfig(rule=m.rule, rounds=rounds, seed=s, budget=m.budget, training=training or TrainingSettings()))
        for m in methods
        for s in seeds
    ]
    outcomes: dict[tuple[str, int], Outcome] = {}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {
            pool.submit(_run_one, config, contract_path, out / m.name / f"seed_{config.seed}", panel, collect): m
            for m, config in parts
        }
        try:
            for future in as_completed(futures):
                outcome = Outcome.of(futures[future], future.result())
                outcomes[outcome.method, outcome.seed] = outcome
                on_outcome(outcome)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    ordered = [outcomes[m.name, config.seed] for m, config in parts]
    write_file(out / "table.csv", _csv(ordered).encode())
    write_file(out / "table.md", (table_of(ordered) + "\n").encode())
    return ordered


def table_of(outcomes: Sequence[Outcome]) -> str:
    """One line for each method, in Markdown: means over its seeds, and from where to where the panel's results lie."""
    lines = [
        "| rule | seeds | pi_000 | panel success | metric | labels | takeovers | context switches | help requests "
        "| help rate | human steps |",
        "|---" * 11 + "|",
    ]
    for name in dict.fromkeys(o.method for o in outcomes):
        of = [o for o in outcomes if o.method == name]
        success = [100 * o.success for o in of]
        cells = [
            name,
            str(len(of)),
            f"{100 * fmean(o.first_success for o in of):.0f} %",
            f"{fmean(success):.0f} % ({min(success):.0f} to {max(success):.0f})",
            f"{fmean(o.metric for o in of):.2f}",
            *(f"{fmean(getattr(o, field) for o in of):.0f}" for field in ("labels", "takeovers", "context_switches")),
            f"{fmean(o.help_requests for o in of):.0f}",
            f"{100 * fmean(o.help_rate for o in of):.1f} %" if any(o.help_requests for o in of) else "",
            f"{fmean(o.human_steps for o in of):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _csv(outcomes: Sequence[Outcome]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(Outcome.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(o) for o in outcomes)
    return buffer.getvalue()


class _Silent:
    """Progress that nobody sees."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda _steps: None

    def round_done(self, result: RoundResult) -> None:
        pass


def _run_one(config: RunConfig, contract_path: Path, out: Path, panel: Panel, collect: Collect) -> dict[str, Any]:
    there = out.is_dir() and any(out.iterdir())
    return run(config, contract_path, out, panel, collect=collect, progress=_Silent(), resume=there, workers=1)
