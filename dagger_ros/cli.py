"""`dagger-ros VERB`: what a person types. Exit code 2 and one message for what the user can mend."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagger_ros import __version__
from dagger_ros.contract import Contract, DaggerError, RowLayout, load_contract
from dagger_ros.supervisor import RULES

if TYPE_CHECKING:
    from rich.console import Console

    from dagger_ros.evaluation import Panel

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing is left behind
    try:
        options.run(options)
    except DaggerError as error:
        print(f"dagger-ros {options.verb}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"dagger-ros {options.verb}: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        if not str(error.name).startswith(("rclpy", "dagger_ros.", "ament_index_python")):
            raise
        print(
            f"dagger-ros {options.verb}: expected ROS 2 and the built messages of this package; there is no module "
            f"{error.name}. Run `make env`, or build with colcon and source install/setup.bash",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except BrokenProcessPool:
        print(
            f"dagger-ros {options.verb}: a process of it was killed (is there enough memory?){_again(options)}",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"dagger-ros {options.verb}: interrupted{_again(options)}", file=sys.stderr)
        raise SystemExit(130) from None


def _again(options: argparse.Namespace) -> str:
    """How to go on with what was cut short."""
    hints = {"run": "; the same command with --resume goes on", "compare": "; the same command goes on"}
    return hints.get(options.verb, "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dagger-ros", description="DAgger on a robot with ROS 2.")
    parser.add_argument("--version", action="version", version=f"dagger_ros {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    check = verbs.add_parser("check", help="check a task contract and show what it says")
    check.add_argument("contract", type=Path, help="YAML file")
    check.set_defaults(run=_check)

    joystick = verbs.add_parser("joystick", help="show live what each axis and button of a pad does under a contract")
    joystick.add_argument("contract", type=Path, help="task contract with a section expert, a YAML file")
    joystick.add_argument(
        "--pad", default="xbox", help="a YAML file, or the name of one in config/joysticks (default: xbox)"
    )
    joystick.add_argument("--topic", default="joy", help="topic of joy_node (default: joy)")
    joystick.add_argument("--pictures", type=int, help="end after so many pictures, ten a second (default: Ctrl-C)")
    joystick.set_defaults(run=_joystick)

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

    inspect = verbs.add_parser("inspect", help="show what is in the rounds of a run: labels, streams, what is new")
    inspect.add_argument("run_folder", metavar="run", type=Path, help="folder with contract.yaml and rounds/")
    inspect.add_argument("--contract", type=Path, help="task contract (default: contract.yaml of the run)")
    inspect.set_defaults(run=_inspect)

    verify = verbs.add_parser("verify", help="read again what a run left, and compare it with its hashes and counts")
    verify.add_argument("run_folder", metavar="run", type=Path, help="folder of the run")
    verify.set_defaults(run=_verify)

    recover = verbs.add_parser("recover", help="make episodes whole whose recorder was killed, in place")
    recover.add_argument("folder", type=Path, help="of a run, or of a round")
    recover.set_defaults(run=_recover)

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
    return parser


def _check(options: argparse.Namespace) -> None:
    contract = load_contract(options.contract)
    if contract.simulation is not None:
        from dagger_ros.sim import load_plant

        load_plant(contract, options.contract)
    _print_contract(contract)


def _print_contract(contract: Contract) -> None:
    console = _console()
    table = _tables(console)
    timing, task, action = contract.timing, contract.task, contract.action
    console.print(f"{contract.name}: {task.description}")
    console.print(f"success: {task.criterion}; horizon {task.horizon_s:g} s = {contract.horizon_ticks} ticks")
    console.print(f"robot: {contract.robot.body}; operator: {contract.operator.source}; licence: {contract.licence}")
    streams = contract.streams.items()
    table(
        "streams",
        "name, values, unit, frame, seen by, topic",
        [(n, len(s.dimensions), s.unit, s.frame, "expert" if s.privileged else "policy", s.topic) for n, s in streams],
    )
    topics = {s.topic: (s.topic, s.type, s.rate_hz, s.max_age_s) for _, s in streams}
    table("topics", "topic, type, rate Hz, largest age s", list(topics.values()))
    if contract.cameras:
        table(
            "cameras",
            "name, topic, type, size, rate Hz, largest age s",
            [
                (n, c.topic, c.type.rpartition("/")[2], f"{c.width}x{c.height}", c.rate_hz, c.max_age_s)
                for n, c in contract.cameras.items()
            ],
        )
    table(
        f"action: {action.type} on {action.topic}; {action.interface.value} interface, stop: {action.stop.value}",
        "name, field, unit, lower, upper, limits",
        [(d.name, d.select, d.unit, d.lower, d.upper, d.limits_words) for d in action.dimensions_],
    )
    if action.workspace:
        table(
            "workspace",
            "stream, unit, lower, upper",
            [(b.stream, contract.streams[b.stream].unit, _listed(b.lower), _listed(b.upper)) for b in action.workspace],
        )
    table(
        "timing",
        "limit, Hz or s",
        [
            ("control rate Hz", timing.control_rate_hz),
            ("latency budget s", timing.latency_budget_s),
            ("oldest policy action s", timing.policy_max_age_s),
            ("oldest expert action s", timing.expert_max_age_s),
            ("future stamp s", timing.future_tolerance_s),
            ("hand-over at most s", action.handover.longest_s),
            ("request for help held after s", timing.help_answer_s or "no rule may ask"),
            ("e-stop heard at least every s", timing.estop_max_age_s or "not missed"),
            ("driver stops by itself after s", timing.driver_timeout_s),
        ],
    )
    metric = task.metric
    table("metric", "name, unit, goal, meaning", [(metric.name, metric.unit, metric.goal.value, metric.description)])
    table("failure labels", "label, meaning", list(task.failure_labels.items()))
    layout = RowLayout(contract)
    console.print(
        f"policy input: {layout.observation_size} values; action: {layout.action_size} values; "
        f"row: {layout.dtype.itemsize} bytes"
    )
    console.print(f"sha256: {contract.sha256}", soft_wrap=True)


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)


def _tables(console: Console | None = None) -> Callable[[str, str, Sequence[Sequence[object]]], None]:
    """Prints tables: a title, columns by name, rows; whatever is a number stands at the right."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    console = console or _console()

    def table(title: str, columns: str, rows: Sequence[Sequence[object]]) -> None:
        result = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD)
        for i, column in enumerate(columns.split(", ")):
            numeric = all(isinstance(row[i], (int, float)) for row in rows)
            result.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            result.add_row(*(f"{cell:g}" if isinstance(cell, float) else escape(str(cell)) for cell in row))
        console.print(result)

    return table


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _joystick(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.live import Live

    from dagger_ros.nodes.joystick_monitor import JoystickMonitor

    if options.pictures is not None and options.pictures < 1:
        raise DaggerError(f"pictures: expected a whole number >= 1, got {options.pictures}")
    monitor = JoystickMonitor(options.contract, options.pad)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        monitor.run(lambda picture: live.update(picture, refresh=True), topic=options.topic, pictures=options.pictures)
    console.print()


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


def _inspect(options: argparse.Namespace) -> None:
    from dagger_ros.dataset import inspect_rounds

    folders = sorted(f for f in (options.run_folder / "rounds").glob("[0-9]*") if f.name.isdigit())
    if not folders:
        raise DaggerError(f"{options.run_folder}: expected the folder of a run, with rounds/000; there is none")
    contract = load_contract(options.contract or options.run_folder / "contract.yaml")
    views = list(inspect_rounds(folders, contract))
    table = _tables()
    table(
        f"{contract.name}: rounds; new: further from every earlier frame than 95 % of those from another episode",
        "round, rule, policy, operator, episodes, succeeded, seconds, frames, new frames",
        [
            (
                f"{v.manifest.round:03d}",
                v.manifest.rule,
                v.manifest.policy or "-",
                v.manifest.operator_id or "-",
                len(v.manifest.episodes),
                sum(e.success for e in v.manifest.episodes),
                round(v.seconds, 1),
                sum(v.labels.values()),
                "-" if v.new_share is None else f"{100 * v.new_share:.0f} %",
            )
            for v in views
        ],
    )
    table(
        "labels",
        "round, of the expert, of the policy, none, takeovers, why, help requests, splits",
        [
            (
                f"{v.manifest.round:03d}",
                *(v.labels[source] for source in ("expert", "policy", "none")),
                v.manifest.takeovers,
                _counted(
                    reason for e in v.manifest.episodes for reason, n in e.takeover_reasons.items() for _ in range(n)
                ),
                v.manifest.help_requests,
                _counted(e.split for e in v.manifest.episodes),
            )
            for v in views
        ],
    )
    streams = []
    for i, stream in enumerate(views[0].streams):
        slowest = min(views, key=lambda v: v.streams[i].rate_hz)
        oldest = max(views, key=lambda v: v.streams[i].ages_s[-1])
        ages = [round(age, 4) for age in oldest.streams[i].ages_s]
        limit = contract.streams[stream.name]
        in_round = f"{slowest.manifest.round:03d}, {oldest.manifest.round:03d}"
        rate = round(slowest.streams[i].rate_hz, 1)
        streams.append((stream.name, in_round, rate, limit.rate_hz, *ages, limit.max_age_s))
    table(
        "streams, in the round where they came slowest and in that where they were oldest at a control tick",
        "stream, rounds, messages Hz, expected Hz, median age s, 99 % age s, largest age s, allowed s",
        streams,
    )


def _verify(options: argparse.Namespace) -> None:
    from dagger_ros.dagger import verify

    problems = []
    for path, problem in verify(options.run_folder):
        print(f"{path}: {'not as it was written' if problem else 'ok'}", flush=True)
        problems.append(problem)
    wrong = list(filter(None, problems))
    print(f"{len(problems) - len(wrong)} of {len(problems)} parts are as they were written")
    if wrong:
        raise DaggerError("\n".join(dict.fromkeys(wrong)))


def _counted(names: Iterable[str]) -> str:
    """How often each name occurs."""
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(names).items())) or "-"


def _recover(options: argparse.Namespace) -> None:
    from dagger_ros.dataset import finish_round, manifest_sha256, recover_episode, unfinished_episodes

    if not options.folder.is_dir():
        raise DaggerError(f"{options.folder}: expected the folder of a run or a round; there is none")
    if not any(options.folder.rglob("episodes")):
        raise DaggerError(f"{options.folder}: expected the folder of a run or a round, with episodes; there are none")
    unfinished = unfinished_episodes(options.folder)
    rounds: dict[Path, Contract] = {}
    problems = []
    for folder in unfinished:
        try:
            done = recover_episode(folder)
        except (DaggerError, OSError) as error:
            problems.append(str(error))
            continue
        rounds[folder.parent.parent] = done.contract
        lost = f"; {done.lost_bytes} bytes behind byte {done.whole_bytes} are lost" if done.lost_bytes else ""
        print(f"{folder}: {sum(done.info.messages.values())} messages, {done.seconds:.1f} s{lost}")
    for folder, contract in rounds.items():
        trained = (
            "; a policy that was trained on the manifest before does not know of them"
            if manifest_sha256(folder)
            else ""
        )
        print(f"{folder}: {len(finish_round(folder, contract).episodes)} episodes in its manifest{trained}")
    if not unfinished:
        print(
            f"{options.folder}: nothing to recover, every episode has its episode.json; `dagger-ros verify` reads more"
        )
    if problems:
        raise DaggerError("\n".join(problems))


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


if __name__ == "__main__":
    main()
