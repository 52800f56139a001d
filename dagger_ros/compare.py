"""Methods beside each other: the same task, demonstrations, seeds, labels and panels for each, and one table.

<out>/
lazy/seed_0/               a run, see `dagger`; `thrifty_0.05/seed_0` for a budget of 0.05
imitation/seed_0/final/    a policy from outside: only its rollouts
comparison.json            every figure
table.csv                  one line for each run
table.md                   one line for each method: means over the seeds, intervals, the paired difference
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, DaggerError, Goal, load_contract
from dagger_ros.contract.files import write_file
from dagger_ros.dagger import Collect, RoundResult, RunConfig, panel_folder, run
from dagger_ros.evaluation import (
    FEWEST_PAIRS,
    NotFiniteError,
    Paired,
    Panel,
    PanelResult,
    PanelRunner,
    mean_ci95,
    paired,
    same_rollouts,
)

__all__ = ["Method", "Outcome", "Outside", "against_reference", "compare", "methods_of", "table_of"]

_SCHEMA = "dagger_ros.comparison/1"


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
class Outside:
    """A policy that was trained elsewhere.

    Args:
        name: Of the method; several policies of one name are its training seeds, in this order.
        source: What `policy.load_policy` takes.
    """

    name: str
    source: str


@dataclass(frozen=True)
class Outcome:
    """What one run brought, its rounds after the demonstrations taken together. None: not known of an outside policy.

    Args:
        method: Name of the method.
        seed: Of the run.
        judged: The recommended policy on the final panel; None: it is not judged, see `problem`.
        problem: Why there is no result; empty: there is one.
        first_success: Share of the choosing panel that the policy of the demonstrations met.
        labels: Expert labels that were learned from, demonstrations too.
        takeovers: Times that the expert took control.
        context_switches: Times that control went from the policy to the expert or back.
        help_requests: Times that the rule asked for help.
        help_rate: Help requests as a share of the ticks at which the policy could ask.
        human_steps: Ticks that the expert drove.
    """

    method: str
    seed: int
    judged: PanelResult | None
    problem: str = ""
    first_success: float | None = None
    labels: int | None = None
    takeovers: int | None = None
    context_switches: int | None = None
    help_requests: int | None = None
    help_rate: float | None = None
    human_steps: int | None = None

    @staticmethod
    def of(method: Method, result: dict[str, Any], judged: PanelResult) -> Outcome:
        """Reads a run's result."""
        first, *rounds = result["rounds"]
        total = {
            name: sum(r[name] for r in rounds)
            for name in ("takeovers", "context_switches", "help_requests", "expert_ticks", "policy_ticks")
        }
        chances = total["policy_ticks"] + total["help_requests"]
        return Outcome(
            method=method.name,
            seed=result["seed"],
            judged=judged,
            first_success=first["panel"]["success_rate"],
            labels=result["rounds"][-1]["labels_total"],
            takeovers=total["takeovers"],
            context_switches=total["context_switches"],
            help_requests=total["help_requests"],
            help_rate=total["help_requests"] / chances if chances else 0.0,
            human_steps=total["expert_ticks"],
        )

    def line(self) -> dict[str, Any]:
        """Its figures, by name."""
        judged = self.judged
        said = {name: getattr(self, name) for name in Outcome.__dataclass_fields__ if name != "judged"}
        return said | {
            "policy": judged.policy if judged else "",
            "policy_sha256": judged.policy_sha256 if judged else "",
            "success": judged.success_rate if judged else None,
            "metric": judged.metric_mean if judged else None,
        }


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
    final: Panel,
    *,
    config: RunConfig,
    outside: Sequence[Outside] = (),
    collect: Collect,
    jobs: int,
    on_outcome: Callable[[Outcome], object],
) -> list[Outcome]:
    """Runs every method with every seed, and writes the tables. What is in `out` already is gone on with.

    Args:
        methods: What is compared.
        seeds: Of the runs.
        contract_path: The task contract.
        out: Folder of the comparison.
        panel: Held-out rollouts by which each run chooses its policy.
        final: Other rollouts, on which the chosen policies are compared: nothing was chosen on them.
        config: Of every run; rule, budget and seed are those of the method.
        outside: Policies that were trained elsewhere.
        collect: How rounds are recorded.
        jobs: Runs at the same time.
        on_outcome: Called after each run.

    Returns:
        One for each run, method by method. A policy that gives NaN has a `problem` and is in no mean.

    Raises:
        DaggerError: If a run cannot be done, or `out` holds other ones.
    """
    names = [m.name for m in methods] + sorted({o.name for o in outside})
    if not names or len(set(names)) < len(names) or len(set(seeds)) < len(seeds) or (methods and not seeds):
        said = f"methods {', '.join(names) or 'none'}; seeds {', '.join(map(str, seeds)) or 'none'}"
        raise DaggerError(f"compare: expected at least one method and one seed, and each once; got {said}")
    if _overlap(panel, final):
        raise DaggerError(
            f"compare: expected a final panel with other seeds than {panel.name}, by which the policies are chosen; "
            f"{final.name} has some of them"
        )
    contract = load_contract(contract_path)
    # What cannot be run is refused before anything is.
    parts = [(m, replace(config, rule=m.rule, budget=m.budget, seed=s)) for m in methods for s in seeds]
    outcomes: dict[tuple[str, int], Outcome] = {}

    def add(outcome: Outcome) -> None:
        outcomes[outcome.method, outcome.seed] = outcome
        on_outcome(outcome)

    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {
            pool.submit(_run_one, part, m, contract_path, out / m.name / f"seed_{part.seed}", panel, final, collect): m
            for m, part in parts
        }
        try:
            for future in as_completed(futures):
                add(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if outside:
        with PanelRunner(contract_path, workers=jobs) as runner:
            for policy, seed in _numbered(outside):
                add(_judge(runner, final, policy, seed, out / policy.name / f"seed_{seed}" / final.name))
    ordered = [outcomes[m.name, part.seed] for m, part in parts]
    ordered += [outcomes[policy.name, seed] for policy, seed in _numbered(outside)]
    _write(out, contract, panel, final, ordered)
    return ordered


def against_reference(outcomes: Sequence[Outcome], contract: Contract) -> dict[str, Paired]:
    """Each method beside the reference (`bc`, or the first one) on the same rollouts and training seeds.

    A method with other seeds, or one without a result for each, is left out.

    Raises:
        DaggerError: If they were not judged alike.
    """
    maximize = contract.task.metric.goal is Goal.MAXIMIZE
    by_method = {name: [o for o in outcomes if o.method == name] for name in dict.fromkeys(o.method for o in outcomes)}
    reference = by_method.get("bc") or next(iter(by_method.values()))
    same_rollouts([o.judged for o in outcomes if o.judged is not None])

    def table(of: Sequence[Outcome], what: str) -> Any:
        return np.array([getattr(o.judged, what) for o in of])

    result = {}
    for name, of in by_method.items():
        alike = [o.seed for o in of] == [o.seed for o in reference]
        if of is reference or not alike or any(o.judged is None for o in (*of, *reference)):
            continue
        if of[0].judged is None or len(of[0].judged.rollouts) < FEWEST_PAIRS:
            continue
        sides = [table(side, what) for what in ("successes", "metrics") for side in (reference, of)]
        result[name] = paired(*sides, maximize=maximize)
    return result


def table_of(outcomes: Sequence[Outcome], differences: dict[str, Paired]) -> str:
    """One line for each method, in Markdown.

    Args:
        outcomes: Of every run.
        differences: As `against_reference` gives them.
    """
    heads = (
        "method", "seeds", "pi_000", "success", "95 % over seeds", "metric", "labels", "takeovers",
        "context switches", "help requests", "help rate", "human steps",
        "success beside the reference", "only one succeeds", "verdict",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in dict.fromkeys(o.method for o in outcomes):
        of = [o for o in outcomes if o.method == name]
        judged = [o.judged for o in of if o.judged is not None]
        success = [100 * j.success_rate for j in judged]
        spread = mean_ci95(success)
        gain = differences.get(name)
        cells = [
            name,
            str(len(of)) if len(judged) == len(of) else f"{len(judged)} of {len(of)}",
            _mean(of, "first_success", "{:.0f} %", 100),
            f"{fmean(success):.0f} % ({min(success):.0f} to {max(success):.0f})" if success else "not judged",
            f"{max(spread[0], 0):.0f} to {min(spread[1], 100):.0f} %" if spread else "",
            f"{fmean(j.metric_mean for j in judged):.2f}" if judged else "",
            *(_mean(of, field) for field in ("labels", "takeovers", "context_switches", "help_requests")),
            _mean(of, "help_rate", "{:.1f} %", 100) if any(o.help_requests for o in of) else "",
            _mean(of, "human_steps"),
            _difference(gain) if gain else "",
            f"{gain.only_b} here, {gain.only_a} there" if gain else "",
            ("credibly better" if gain.better else "credibly worse" if gain.worse else "not credible") if gain else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference(gain: Paired) -> str:
    low, high = gain.success_ci95
    return f"{100 * gain.success:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f})"


def _mean(of: Sequence[Outcome], field: str, form: str = "{:.0f}", factor: float = 1.0) -> str:
    values = [value for o in of if (value := getattr(o, field)) is not None]
    return form.format(factor * fmean(values)) if values else ""


def _overlap(panel: Panel, final: Panel) -> bool:
    return bool({key.seed for key in panel.rollouts} & {key.seed for key in final.rollouts})


def _numbered(outside: Sequence[Outside]) -> list[tuple[Outside, int]]:
    """Each with its number among those of its name."""
    return [(policy, sum(o.name == policy.name for o in outside[:i])) for i, policy in enumerate(outside)]


def _write(out: Path, contract: Contract, panel: Panel, final: Panel, outcomes: Sequence[Outcome]) -> None:
    differences = against_reference(outcomes, contract) if any(o.judged for o in outcomes) else {}
    lines = [o.line() for o in outcomes]
    content = {
        "schema": _SCHEMA,
        "contract_sha256": contract.sha256,
        "panel_sha256": panel.sha256,
        "final": {"name": final.name, "sha256": final.sha256, "rollouts": len(final.rollouts)},
        "runs": lines,
        "against_reference": {name: asdict(gain) for name, gain in differences.items()},
    }
    write_file(out / "comparison.json", (json.dumps(content, indent=1) + "\n").encode())
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_file(out / "table.csv", buffer.getvalue().encode())
    write_file(out / "table.md", (table_of(outcomes, differences) + "\n").encode())


class _Silent:
    """Progress that nobody sees."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda _steps: None

    def round_done(self, result: RoundResult) -> None:
        pass


def _run_one(
    config: RunConfig, method: Method, contract_path: Path, out: Path, panel: Panel, final: Panel, collect: Collect
) -> Outcome:
    there = out.is_dir() and any(out.iterdir())
    try:
        result = run(
            config,
            contract_path,
            out,
            [panel],
            final,
            collect=collect,
            progress=_Silent(),
            resume=there,
            workers=1,
            pictures=False,
        )
    except NotFiniteError as error:
        return Outcome(method.name, config.seed, None, str(error))
    folder = panel_folder(out, result["recommended"]["round"], final)
    return Outcome.of(method, result, PanelResult.read(folder))


def _judge(runner: PanelRunner, final: Panel, policy: Outside, seed: int, folder: Path) -> Outcome:
    try:
        return Outcome(policy.name, seed, runner.run(final, policy.source, folder))
    except NotFiniteError as error:
        return Outcome(policy.name, seed, None, str(error))
