"""The verbs that learn: `run` and `compare`, in simulation, and `train`, from what a robot recorded."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagger_ros.cli.evaluate import add_engine, bar, check_engine, listed_as, panel_of
from dagger_ros.cli.training import add_training_options, training_of
from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.supervisor import RULES

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
    run.add_argument(
        "--start-from",
        type=Path,
        metavar="RUN",
        help="take round 0 of this run: bags that were imported, or recorded on a robot",
    )
    run.add_argument("--episodes", type=int, help="episodes of each further round (default: the contract's)")
    run.add_argument("--max-labels", type=int, help="learn from so many labels, and stop when they are reached")
    run.add_argument(
        "--patience",
        type=int,
        default=2,
        help="stop after so many rounds without a credible improvement on the panel; 0: never (default: 2)",
    )
    run.add_argument(
        "--panel",
        default="nominal",
        help="held-out rollouts by which the best policy is chosen: a name in config/panels/, or a YAML file "
        "(default: nominal)",
    )
    run.add_argument(
        "--also", default="assisted", help="further panels for every policy, comma-separated (default: assisted)"
    )
    run.add_argument(
        "--final", default="final", help="panel of the last word on the best policy; empty: none (default: final)"
    )
    add_engine(run)
    add_training_options(run)
    run.set_defaults(run=_run)

    compare = verbs.add_parser("compare", help="run several methods with several seeds, and write one table")
    compare.add_argument("--contract", type=Path, required=True, help="task contract, a YAML file")
    compare.add_argument("--rules", default=",".join(RULES), help=f"comma-separated (default: {','.join(RULES)})")
    compare.add_argument("--seeds", default="0,1,2,3,4", help="comma-separated (default: 0,1,2,3,4)")
    compare.add_argument("--budgets", default="", help="of rule thrifty, comma-separated, a line each (default: 0.01)")
    compare.add_argument("--rounds", type=int, help="rounds after the demonstrations (default: 6; with --labels: 60)")
    compare.add_argument("--labels", type=int, help="every method learns from the first so many labels")
    compare.add_argument("--episodes", type=int, help="episodes of each further round (default: the contract's)")
    compare.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="a policy from outside, judged on the same final panel; again with the same name for more seeds of it",
    )
    compare.add_argument("--out", type=Path, required=True, help="folder; what it has of these runs already is kept")
    compare.add_argument(
        "--panel", default="nominal", help="by which each run chooses its policy, as of run (default: nominal)"
    )
    compare.add_argument(
        "--final", default="final", help="on which the chosen policies are compared, as of run (default: final)"
    )
    compare.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="runs at the same time (default: one for each core)"
    )
    add_training_options(compare)
    compare.set_defaults(run=_compare)

    train = verbs.add_parser("train", help="train the next policy on every round that was recorded in a run")
    train.add_argument("run_folder", metavar="run", type=Path, help="folder with rounds/; it gets policies/pi_NNN")
    train.add_argument(
        "--contract",
        type=Path,
        help="task contract (default: contract.yaml of the run); put into the run where there is none",
    )
    train.add_argument(
        "--rule",
        choices=tuple(RULES),
        help="that it is to drive under next; of safe, lazy, ensemble and thrifty the limits are fitted for it "
        "(default: that of the last round)",
    )
    train.add_argument(
        "--budget", type=float, help="of rule thrifty: share of the policy's ticks at which it may ask (default: 0.01)"
    )
    train.add_argument("--max-labels", type=int, help="learn from the first so many labels (default: from all)")
    train.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    add_training_options(train)
    train.set_defaults(run=_train)


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
        start_from=options.start_from,
        episodes=options.episodes,
        max_labels=options.max_labels,
        patience=options.patience,
        training=training_of(options),
    )
    check_engine(options)
    panels = [panel_of(name) for name in [options.panel, *listed_as("also", options.also, str)]]
    final = panel_of(options.final) if options.final else None
    progress = _Bars(load_contract(options.contract))
    result = run(
        config,
        options.contract,
        options.out,
        panels,
        final,
        collect=collect_round,
        progress=progress,
        resume=options.resume,
        workers=options.workers,
        engine=options.engine,
    )
    print(f"\nstopped: {result['stop']['reason']}")
    said = result["interventions"]
    if said:
        shares = ", ".join(f"{100 * mean:.1f}" for mean in said["means"])
        verdict = "falling" if said["falling"] else "not credibly falling"
        p_value = f", p = {said['p_value']:.2g}" if said["p_value"] is not None else ""
        print(f"operator drives on the same rollouts ({said['panel']}), % by policy: {shares}: {verdict}{p_value}")
    print(f"recommended: {options.out / 'policies' / result['recommended']['policy']}{_last_word(result['final'])}")
    print(f"report: {options.out / 'report' / 'index.html'}")


def _last_word(final: Any) -> str:
    if final is None:
        return ""
    low, high = final["success_ci95"]
    return (
        f", success {100 * final['success_rate']:.0f} % ({100 * low:.0f}-{100 * high:.0f}) on {final['n']} rollouts "
        "that nothing was chosen on"
    )


def _compare(options: argparse.Namespace) -> None:
    from dagger_ros.compare import Outcome, Outside, against_reference, compare, methods_of, table_of
    from dagger_ros.dagger import RunConfig
    from dagger_ros.nodes.lockstep import collect_round

    def told(outcome: Outcome) -> None:
        judged = outcome.judged
        said = f"{100 * judged.success_rate:.0f} %" if judged else outcome.problem
        labels = f", {outcome.labels} labels" if outcome.labels is not None else ""
        print(f"{outcome.method} seed {outcome.seed}: {said}{labels}", flush=True)

    if options.jobs < 1:
        raise DaggerError(f"jobs: expected a whole number >= 1, got {options.jobs}")
    contract = load_contract(options.contract)
    methods = methods_of(listed_as("rules", options.rules, str), listed_as("budgets", options.budgets, float))
    rounds = options.rounds if options.rounds is not None else 6 if options.labels is None else 60
    outcomes = compare(
        methods,
        listed_as("seeds", options.seeds, int),
        options.contract,
        options.out,
        panel_of(options.panel),
        panel_of(options.final),
        config=RunConfig(
            rule="bc",
            rounds=rounds,
            seed=0,
            episodes=options.episodes,
            max_labels=options.labels,
            patience=0,
            training=training_of(options),
        ),
        outside=[Outside(*_named(text)) for text in options.policy],
        collect=collect_round,
        jobs=options.jobs,
        on_outcome=told,
    )
    print(f"\n{table_of(outcomes, against_reference(outcomes, contract))}")
    print(f"\ntables: {options.out / 'table.md'}, {options.out / 'table.csv'}, {options.out / 'comparison.json'}")


def _train(options: argparse.Namespace) -> None:
    from dagger_ros.dagger import policy_folder, train_policy
    from dagger_ros.dataset import keep_contract, load_round, round_folder, round_folders, unlisted_episodes
    from dagger_ros.policy import read_checkpoint
    from dagger_ros.supervisor import ROBOT_GATED, RuleOptions

    run, training = options.run_folder, training_of(options)
    rounds = round_folders(run)
    path = options.contract or run / "contract.yaml"
    if not path.exists():
        raise DaggerError(f"{path}: expected the contract of the run; there is none. Give it with --contract FILE")
    contract = load_contract(path)
    training.check(contract)
    for name, least in (("max_labels", 1), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise DaggerError(f"{name}: expected a whole number >= {least}, got {value}")
    rule = options.rule or load_round(rounds[-1], contract).rule
    if options.budget is not None and rule != "thrifty":
        raise DaggerError(f"budget: expected only with rule thrifty, got {options.budget} with rule {rule}")
    rule_options = RuleOptions() if options.budget is None else RuleOptions(budget=options.budget)
    for folder in rounds:
        if unlisted := unlisted_episodes(folder):
            raise DaggerError(
                f"{folder}: expected every finished episode in its manifest; {', '.join(map(str, unlisted))} not in "
                f"it. End the recorder, which writes it, or run `dagger-ros recover {run}`"
            )
    policy = policy_folder(run, int(rounds[-1].name))
    if policy.exists():
        raise DaggerError(
            f"{policy}: expected a round that no policy was trained after yet; this one was. Record the next round "
            "with it, or move it away if it never drove"
        )
    keep_contract(rounds[-1], contract, path.read_text(encoding="utf-8"))
    train_policy(
        run,
        contract,
        rounds,
        training,
        rule=rule,
        budget=rule_options.budget,
        seed=options.seed,
        max_labels=options.max_labels,
        stage=bar,
    )
    about, _ = read_checkpoint(policy, contract)
    said = about.training
    count = f"{said['frames']['learned']} labels" + (f" ({n} left out)" if (n := said["frames"]["left_out"]) else "")
    episodes = sum(source["episodes"] for source in about.trained_on)
    numbers = ", ".join(folder.name for folder in rounds)
    print(f"{contract.name} {about.name}: learned from {count}; rounds {numbers}, with {episodes} episodes")
    held = said["validation_frames"]
    print(
        f"loss {said['loss']:.4g}"
        + (f"; on {held} labels of the validation split {said['validation_loss']:.4g}" if held else "")
    )
    if rule in ROBOT_GATED:
        print(f"limits of rule {rule}: {', '.join(f'{name} {x:.4g}' for name, x in about.limits['ask'].items())}")
    print(f"policy: {policy}")
    print(
        f"next round: ros2 launch dagger_ros robot.launch.py contract:={path} policy:={policy} rule:={rule} "
        f"out:={round_folder(run, about.round + 1)}"
    )


def _named(text: str) -> tuple[str, str]:
    name, separator, source = text.partition("=")
    if not (separator and source and name.replace("_", "").replace("-", "").isalnum()):
        raise DaggerError(f"policy: expected NAME=SOURCE, with a name of letters, digits, - and _; got {text!r}")
    return name, source


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
        self._begin()
        with bar(name, total) as advance:
            yield advance

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
