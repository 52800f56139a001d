"""The first screen of a report: five questions, each answered in a line, with what speaks for the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dagger_ros.contract import Goal
from dagger_ros.evaluation.panel import PanelResult
from dagger_ros.evaluation.report import words
from dagger_ros.evaluation.report.record import Judged, Record, Sheet
from dagger_ros.evaluation.statistics import FEWEST_PAIRS
from dagger_ros.evaluation.stopping import against

__all__ = ["Answer", "answers", "change"]


@dataclass(frozen=True)
class Answer:
    """One question of the first screen.

    Args:
        question: What is asked.
        short: The answer in a few words.
        details: Sentences.
        link: Section of the page that has more, as in `#panels`.
    """

    question: str
    short: str
    details: tuple[str, ...]
    link: str


def change(record: Record) -> str:
    """From what to what, on the panel that chose."""
    first, best = _ends(record)
    metric = record.contract.task.metric
    if metric.name == "success":
        return f"{words.percent(first.success_rate)} \N{RIGHTWARDS ARROW} {words.percent(best.success_rate)} success"
    before, after = words.number(first.metric_mean), words.number(best.metric_mean)
    return f"{before} \N{RIGHTWARDS ARROW} {after} {metric.unit}"


def answers(record: Record) -> list[Answer]:
    """What the first screen says."""
    return [_better(record), _sure(record), _cost(record), _fails(record), _take(record)]


def _ends(record: Record) -> tuple[PanelResult, PanelResult]:
    """How the first and the recommended policy did on the panel that chose."""
    decides = record.sheets[0]
    return decides.judged[0].result, decides.of(record.recommended).result


def _better(record: Record) -> Answer:
    first, best = _ends(record)
    question = "Did it get better?"
    if first.policy == best.policy:
        said = f"No later policy did better than {first.policy}, which learned from demonstrations alone."
        return Answer(question, "No", (said, _did(record, first)), "#rounds")
    short = f"Not shown: {change(record)}"
    if len(best.rollouts) >= FEWEST_PAIRS:
        pair = against(first, best, maximize=record.contract.task.metric.goal is Goal.MAXIMIZE)
        short = f"Yes: {change(record)}" if pair.better else f"{short} may be chance"
    said = f"{_did(record, best)}; {_did(record, first)}, after demonstrations alone."
    return Answer(question, short, (said,), "#rounds")


def _did(record: Record, result: PanelResult) -> str:
    metric = record.contract.task.metric
    count = int(result.successes.sum())
    said = f"{result.policy} succeeded in {count} of {len(result.rollouts)} held-out rollouts"
    if metric.name != "success":
        said += f" ({words.number(result.metric_mean)} {metric.unit})"
    return said


def _sure(record: Record) -> Answer:
    first, best = _ends(record)
    question = "How sure are we?"
    details = []
    summary = best.summary()
    if record.final is not None:
        last = record.result["final"]
        short = f"{_with_interval(last)} on {last['n']} fresh rollouts"
        details.append(f"Nothing was chosen on those. On the {summary['n']} that chose it: {_with_interval(summary)}.")
    else:
        short = f"{_with_interval(summary)} on {summary['n']} rollouts"
        details.append("The policy was chosen on these rollouts, so its figure is a little optimistic.")
    if first.policy != best.policy and len(best.rollouts) >= FEWEST_PAIRS:
        pair = against(first, best, maximize=record.contract.task.metric.goal is Goal.MAXIMIZE)
        said = words.of_paired(asdict(pair), first.policy, best.policy, record.contract)
        details.append(f"{said[0].upper()}{said[1:]}.")
    return Answer(question, short, tuple(details), "#panels")


def _with_interval(summary: Mapping[str, Any]) -> str:
    return f"{words.percent(summary['success_rate'])} ({words.interval(summary['success_ci95'])})"


def _cost(record: Record) -> Answer:
    rounds = record.result["rounds"]
    upto = rounds[: record.result["recommended"]["round"] + 1]
    labels = upto[-1]["labels_total"]
    ticks = sum(r["expert_ticks"] + r["policy_ticks"] for r in upto)
    seconds = sum(r["expert_ticks"] for r in upto) * record.contract.timing.period_ns * 1e-9
    takeovers = sum(r["takeovers"] for r in upto[1:])
    demonstrations = f"{upto[0]['labels_new']} of them demonstrations"
    details = [
        f"{demonstrations}; then {words.plural(takeovers, 'takeover')} in {words.plural(len(upto) - 1, 'round')}. The "
        f"expert drove {words.percent(sum(r['expert_ticks'] for r in upto) / ticks) if ticks else '0 %'} of the time, "
        f"{seconds:.0f} s.",
    ]
    last = rounds[-1]
    if last["round"] != upto[-1]["round"]:
        details.append(f"The whole run, to {last['policy']}: {words.plural(last['labels_total'], 'label')}.")
    interventions = record.result["interventions"]
    if interventions:
        means = {r["policy"]: words.percent(m) for r, m in zip(rounds, interventions["means"], strict=True)}
        first, best = rounds[0]["policy"], record.recommended
        beside = f", {means[best]} with {best}" if first != best else ""
        details.append(
            f"On the same rollouts ({interventions['panel']}) the operator drives {means[first]} of the time with "
            f"{first}{beside}; over all policies {words.of_trend(interventions)}."
        )
    return Answer("What did it cost?", f"{words.plural(labels, 'expert label')}", tuple(details), "#rounds")


def _fails(record: Record) -> Answer:
    question = "What still fails, and why?"
    sheets = [record.sheets[0]] if record.final is None else [record.final, record.sheets[0]]
    further = [s for s in record.sheets[1:] if s.of(record.recommended).failed]
    failed = {s.panel.name: s.of(record.recommended).failed for s in sheets}
    short = "; ".join(
        f"{len(f)} of {len(s.panel.rollouts)} on {s.panel.name}" for s, f in zip(sheets, failed.values(), strict=True)
    )
    details = []
    if not any(failed.values()):
        total = sum(len(s.panel.rollouts) for s in sheets)
        short = f"Nothing in {total} rollouts"
        best = sheets[0].of(record.recommended).result.summary()
        room = words.percent(1 - best["success_ci95"][0])
        details.append(
            f"So far: {best['n']} rollouts of {best['name']} that went well leave room for {room} that do not "
            "(95\N{NO-BREAK SPACE}% Wilson interval)."
        )
        first = record.sheets[0].judged[0]
        if first.failed and first.policy != record.recommended:
            details.append(f"What {first.policy} failed at, {_why(record, record.sheets[0], first)}")
    details += [_why(record, s) for s in sheets if failed[s.panel.name]]
    details += [_why(record, s) for s in further]
    return Answer(question, short, tuple(details), "#failures")


def _why(record: Record, sheet: Sheet, judged: Judged | None = None) -> str:
    judged = judged or sheet.of(record.recommended)
    summary = judged.result.summary()
    said = f"{sheet.panel.name}: {words.counted(summary['failures'])}"
    if judged.causes is None:
        return f"{said}; causes not diagnosed yet."
    causes: dict[str, int] = {}
    for cause in judged.causes.values():
        name = cause.cause or "unknown"
        causes[name] = causes.get(name, 0) + 1
    return f"{said}; caused by {words.counted(causes)}."


def _take(record: Record) -> Answer:
    _, best = _ends(record)
    metric = record.contract.task.metric
    goal = "highest" if metric.goal is Goal.MAXIMIZE else "lowest"
    panel = record.sheets[0].panel.name
    details = (
        f"In policies/{best.policy}, weights {best.policy_sha256[:12]}. Of {len(record.result['rounds'])} policies it "
        f"has the {goal} mean {metric.name.replace('_', ' ')} on panel {panel}; of equals, the one with the fewest "
        "labels is taken, not the last.",
        f"Stopped: {record.result['stop']['reason']}.",
    )
    return Answer("Which policy to take?", best.policy, details, "#provenance")
