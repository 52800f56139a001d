"""The verb `evaluate`, and what other verbs that run panels take from it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import DaggerError, Goal, load_contract

if TYPE_CHECKING:
    from dagger_ros.evaluation import Panel, PanelResult

__all__ = ["add_engine", "add_verbs", "bar", "check_engine", "listed_as", "panel_of"]


def add_verbs(verbs: Verbs) -> None:
    """Adds it to the command line."""
    evaluate = verbs.add_parser("evaluate", help="judge a policy on a panel of held-out rollouts")
    evaluate.add_argument("policy", help="folder of a policy, or a model from outside")
    evaluate.add_argument("--contract", type=Path, required=True, help="task contract, a YAML file")
    evaluate.add_argument(
        "--panel", default="nominal", help="a name in config/panels/, or a YAML file (default: nominal)"
    )
    evaluate.add_argument(
        "--out", type=Path, required=True, help="folder for rollouts and traces; what was cut short is gone on with"
    )
    evaluate.add_argument("--against", type=Path, help="--out of another policy on the same panel, to compare with")
    add_engine(evaluate)
    evaluate.set_defaults(run=_evaluate)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds where panels run."""
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="rollouts at a time (default: one for each core)"
    )
    parser.add_argument(
        "--engine",
        default="processes",
        help="processes: on this machine; ray: on a Ray cluster, where Ray is installed (default: processes)",
    )


def check_engine(options: argparse.Namespace) -> None:
    """Refuses what cannot be.

    Raises:
        DaggerError: For less than one worker.
    """
    if options.workers < 1:
        raise DaggerError(f"workers: expected a whole number >= 1, got {options.workers}")


def panel_of(text: str) -> Panel:
    """A panel by its name in config/panels/, or by its file.

    Raises:
        DaggerError: If there is none, or it is not valid.
    """
    from dagger_ros.evaluation import load_panel
    from dagger_ros.nodes.share import config_file

    path = Path(text)
    if path.suffix or path.exists():
        return load_panel(path)
    shipped = config_file(f"panels/{text}.yaml")
    if not shipped.is_file():
        names = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.yaml")))
        raise DaggerError(f"panel: expected one of {names}, or a YAML file; got {text}")
    return load_panel(shipped)


def listed_as(name: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    """What an option lists, comma-separated.

    Raises:
        DaggerError: For what is not of the kind.
    """
    try:
        return [kind(item.strip()) for item in text.split(",") if item.strip()]
    except ValueError as error:
        expected = "numbers" if kind is float else "whole numbers"
        raise DaggerError(f"{name}: expected {expected}, comma-separated, got {text!r}") from error


@contextmanager
def bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bars:
        task = bars.add_task(name, total=total)
        yield lambda steps: bars.advance(task, steps)


def _evaluate(options: argparse.Namespace) -> None:
    from dagger_ros.evaluation import PanelResult, PanelRunner

    check_engine(options)
    contract, panel = load_contract(options.contract), panel_of(options.panel)
    other = PanelResult.read(options.against) if options.against else None
    if other is not None:
        other.check(panel, contract, options.against)
    with (
        PanelRunner(options.contract, workers=options.workers, engine=options.engine) as runner,
        bar(f"panel {panel.name}", len(panel.rollouts)) as advance,
    ):
        result = runner.run(panel, options.policy, options.out, lambda: advance(1))
    said = result.summary()
    print(f"{result.policy} on panel {panel.name} ({panel.sha256[:12]}), {said['n']} rollouts: {_share(said)}")
    print(f"{said['metric']['name']}: {said['metric']['mean']:.3g} {contract.task.metric.unit} (mean)")
    if panel.help != "none":
        print(f"operator: drove {100 * said['intervention_rate']:.1f} % of the ticks, {said['takeovers']} takeovers")
    if len(said["conditions"]) > 1:
        for name, condition in said["conditions"].items():
            print(f"  {name}: {_share(condition)}")
    if said["failures"]:
        print("failures: " + ", ".join(f"{count} {name}" for name, count in said["failures"].items()))
    if other is not None:
        print(_beside(other, result, maximize=contract.task.metric.goal is Goal.MAXIMIZE))
    print(f"rollouts: {options.out}")


def _share(said: dict[str, Any]) -> str:
    low, high = said["success_ci95"]
    return f"success {100 * said['success_rate']:.0f} % ({100 * low:.0f}-{100 * high:.0f})"


def _beside(other: PanelResult, result: PanelResult, *, maximize: bool) -> str:
    from dagger_ros.evaluation import against

    gain = against(other, result, maximize=maximize)
    low, high = gain.success_ci95
    verdict = "credibly better" if gain.better else "credibly worse" if gain.worse else "no credible difference"
    return (
        f"beside {other.policy} on the same {gain.pairs} rollouts: success {100 * gain.success:+.0f} points "
        f"({100 * low:+.0f} to {100 * high:+.0f}), only here {gain.only_b}, only there {gain.only_a}, exact McNemar "
        f"p = {gain.p_value:.2g}; {result.metric_name} {gain.metric:+.3g} ({gain.metric_ci95[0]:+.3g} to "
        f"{gain.metric_ci95[1]:+.3g}): {verdict}"
    )
