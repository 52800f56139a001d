"""What stands on the page: each section as data for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from dagger_ros.contract import Contract, Goal
from dagger_ros.evaluation.panel import RolloutKey, RolloutResult
from dagger_ros.evaluation.report import words
from dagger_ros.evaluation.report.data import cell_id, data_url, script_data
from dagger_ros.evaluation.report.figures import Point, bars, curve
from dagger_ros.evaluation.report.pictures import Strip
from dagger_ros.evaluation.report.record import Judged, Record, Sheet
from dagger_ros.evaluation.report.verdict import answers, change
from dagger_ros.evaluation.runner import trace_path

__all__ = ["make_page"]

# Failures of the recommended policy that are seen without being opened, and so in print.
_SHOWN_FAILURES = 6
_PICTURES_OF_A_SHOWN = 6


def make_page(record: Record, strips: Mapping[Path, Strip], pictures_note: str) -> str:
    """The whole page.

    Args:
        record: The run.
        strips: Pictures by file of the trace.
        pictures_note: Which rollouts have pictures, or why none has.
    """
    files = resources.files("dagger_ros.evaluation.report")
    style, script, template = (files.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in _KINDS)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": words.percent,
        "interval": words.interval,
        "plain": lambda name: name.replace("_", " "),
    }
    letters = _letters(record)
    return environment.from_string(template).render(
        record=record,
        contract=record.contract,
        result=record.result,
        change=change(record),
        answers=answers(record),
        figures=_figures(record),
        rounds=_rounds(record),
        letters=letters,
        failures=_failures(record),
        undiagnosed=_undiagnosed(record),
        shown=_shown(record, strips),
        sheets=[_grid(record, sheet, letters) for sheet in record.every_sheet],
        provenance=_provenance(record),
        software=record.rounds[-1].manifest.software if record.rounds else {},
        pictures_note=pictures_note,
        style=style,
        script=script,
        data=script_data(record, strips),
        better="larger" if record.contract.task.metric.goal is Goal.MAXIMIZE else "smaller",
    )


_KINDS = ("css", "js", "html")


def _figures(record: Record) -> list[dict[str, str]]:
    rounds, task = record.result["rounds"], record.contract.task
    chosen = record.recommended
    shares = [_point(r, chosen) for r in rounds]
    decides = record.sheets[0].panel
    label = "expert labels, all rounds"
    figures = [
        {
            "svg": curve(shares, x_label=label, y_label="success", top=1.0, percent=True),
            "text": f"Success on panel {decides.name}, {len(decides.rollouts)} rollouts that are the same for every "
            "policy. Lines up and down: 95\N{NO-BREAK SPACE}% Wilson intervals. Large: recommended.",
        }
    ]
    if task.metric.name != "success":
        means = [
            Point(r["policy"], r["labels_total"], r["panel"]["metric"]["mean"], chosen=r["policy"] == chosen)
            for r in rounds
        ]
        figures.append(
            {
                "svg": curve(means, x_label=label, y_label=task.metric.unit, top=None, percent=False),
                "text": f"{task.metric.name.replace('_', ' ').capitalize()}, mean on the same rollouts; "
                f"{'more' if task.metric.goal is Goal.MAXIMIZE else 'less'} is better.",
            }
        )
    interventions = record.result["interventions"]
    if interventions:
        drawn = [
            Point(r["policy"], 0, mean, chosen=r["policy"] == chosen)
            for r, mean in zip(rounds, interventions["means"], strict=True)
        ]
        figures.append(
            {
                "svg": bars(drawn, y_label="driven by the operator", percent=True),
                "text": f"Share of the ticks of panel {interventions['panel']} that the simulated operator drove: the "
                f"same rollouts for every policy. Over the policies {words.of_trend(interventions)}.",
            }
        )
    return figures


def _point(round_: Mapping[str, Any], chosen: str) -> Point:
    low, high = round_["panel"]["success_ci95"]
    return Point(
        name=round_["policy"],
        x=round_["labels_total"],
        y=round_["panel"]["success_rate"],
        low=low,
        high=high,
        chosen=round_["policy"] == chosen,
    )


def _rounds(record: Record) -> list[dict[str, Any]]:
    views = {v.manifest.round: v for v in record.rounds}
    rows = []
    for r in record.result["rounds"]:
        view = views.get(r["round"])
        before = r["against_best"]
        rows.append(
            {
                **r,
                "recommended": r["policy"] == record.recommended,
                "labels": view.labels if view else None,
                "new_share": view.new_share if view else None,
                "episodes": len(view.manifest.episodes) if view else None,
                "paired": words.of_paired(before, before["policy"], r["policy"], record.contract) if before else "",
                "verdict": _verdict(before),
            }
        )
    return rows


def _verdict(before: Mapping[str, Any] | None) -> str:
    if before is None:
        return ""
    if before["better"]:
        return f"\N{BLACK UP-POINTING TRIANGLE} better than {before['policy']}"
    if before["worse"]:
        return f"\N{BLACK DOWN-POINTING TRIANGLE} worse than {before['policy']}"
    return f"= not told apart from {before['policy']}"


def _letters(record: Record) -> dict[str, str]:
    """A letter for each failure label: its first that no other one has."""
    labels = [*record.contract.task.failure_labels]
    labels += sorted({r.failure for s in record.every_sheet for j in s.judged for r in j.failed} - set(labels))
    letters: dict[str, str] = {}
    for label in labels:
        free = [c for c in label.upper() + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c.isalpha() and c not in letters.values()]
        letters[label] = free[0] if free else "?"
    return letters


def _failures(record: Record) -> list[dict[str, Any]]:
    """How often each policy failed in which way, and why, panel by panel."""
    tables = []
    for sheet in record.every_sheet:
        rows = []
        for judged in sheet.judged:
            causes = "not diagnosed" if judged.failed else ""
            if judged.causes is not None:
                causes = words.counted(Counter(c.cause or "unknown" for c in judged.causes.values()))
            ways = words.counted(Counter(r.failure for r in judged.failed))
            rows.append({"policy": judged.policy, "failed": len(judged.failed), "ways": ways, "causes": causes})
        if any(row["failed"] for row in rows):
            tables.append({"panel": sheet.panel.name, "count": len(sheet.panel.rollouts), "rows": rows})
    return tables


def _undiagnosed(record: Record) -> str:
    """Which failures of which policies nobody has diagnosed; empty: none."""
    left = [
        f"{len(judged.failed)} of {judged.policy} on {sheet.panel.name}"
        for sheet in record.every_sheet
        for judged in sheet.judged
        if judged.causes is None and judged.failed
    ]
    return words.listed([*left[:3], f"{len(left) - 3} more"] if len(left) > 4 else left)


def _shown(record: Record, strips: Mapping[Path, Strip]) -> list[dict[str, Any]]:
    """Rollouts that are seen without being opened: one before and after, and what the recommended policy failed at."""
    decides = record.sheets[0]
    first, best = decides.judged[0], decides.of(record.recommended)
    pairs = zip(first.result.rollouts, best.result.rollouts, strict=True)
    healed = next((r.key for r, now in pairs if now.success and not r.success), None)
    wanted = [] if healed is None else [(first, healed), (best, healed)]
    failed = [(j, r.key) for s in record.every_sheet for j in [s.of(record.recommended)] for r in j.failed]
    drawn = [(j, key) for j, key in failed if trace_path(j.folder, key) in strips]
    wanted += drawn[:_SHOWN_FAILURES]
    return [
        _strip_of(record.contract, judged, key, strip)
        for judged, key in wanted
        if (strip := strips.get(trace_path(judged.folder, key))) is not None
    ]


def _strip_of(contract: Contract, judged: Judged, key: RolloutKey, strip: Strip) -> dict[str, Any]:
    cause = (judged.causes or {}).get(key)
    result = next(r for r in judged.result.rollouts if r.key == key)
    return {
        "id": cell_id(judged, key),
        "name": f"{judged.policy}, {key} of {judged.result.panel}",
        "outcome": "success" if result.success else result.failure,
        "success": result.success,
        "cause": cause,
        "pictures": _chosen(strip, contract, cause.onset_tick if cause else -1),
        "strip": data_url(strip.near),
        "count": len(strip.ticks),
    }


def _chosen(strip: Strip, contract: Contract, onset: int) -> list[dict[str, Any]]:
    last = len(strip.ticks) - 1
    places = sorted({round(last * i / (_PICTURES_OF_A_SHOWN - 1)) for i in range(_PICTURES_OF_A_SHOWN)})
    if onset in strip.ticks:
        mark = strip.ticks.index(onset)
        nearest = min(places[1:-1] or places, key=lambda p: abs(p - mark))
        places = sorted({*places, mark} - ({nearest} - {mark}))
    period_s = contract.timing.period_ns * 1e-9
    return [
        {"place": p, "time_s": f"{strip.ticks[p] * period_s:.2f}", "onset": strip.ticks[p] == onset, "end": p == last}
        for p in places
    ]


def _grid(record: Record, sheet: Sheet, letters: Mapping[str, str]) -> dict[str, Any]:
    conditions = []
    for name in sheet.panel.conditions:
        rows = []
        for judged in sheet.judged:
            cells = [_cell(judged, r, letters) for r in judged.result.rollouts if r.condition == name]
            rows.append(
                {
                    "policy": judged.policy,
                    "recommended": judged.policy == record.recommended,
                    "cells": cells,
                    "succeeded": sum(c["kind"] != "failed" for c in cells),
                }
            )
        settings = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in sheet.panel.conditions[name].items())
        conditions.append({"name": name, "settings": settings, "rows": rows})
    return {"panel": sheet.panel, "conditions": conditions, "final": sheet is record.final}


def _cell(judged: Judged, result: RolloutResult, letters: Mapping[str, str]) -> dict[str, str]:
    if not result.success:
        kind, sign, said = "failed", letters[result.failure], result.failure.replace("_", " ")
    elif result.takeovers:
        kind, sign, said = "helped", "+", "success with the operator's help"
    else:
        kind, sign, said = "ok", "\N{MIDDLE DOT}", "success"
    return {"id": cell_id(judged, result.key), "kind": kind, "sign": sign, "said": f"{result.key}: {said}"}


def _provenance(record: Record) -> list[tuple[str, str, str]]:
    """What, where, and its SHA-256."""
    rows = [("contract", "contract.yaml", record.contract.sha256)]
    for sheet in record.every_sheet:
        seeds = f"seeds {sheet.panel.first_seed} to {sheet.panel.first_seed + sheet.panel.count - 1}"
        rows.append((f"panel {sheet.panel.name}", f"panels/*/{sheet.panel.name}, {seeds}", sheet.panel.sha256))
    for view, manifest in zip(record.rounds, record.manifests, strict=True):
        recorded = [e.seed for e in view.manifest.episodes]
        where = f"rounds/{view.manifest.round:03d}/manifest.json, seeds {min(recorded)} to {max(recorded)}"
        rows.append((f"round {view.manifest.round}", where, manifest))
    for judged in record.sheets[0].judged:
        where = f"policies/{judged.policy}/weights.safetensors"
        rows.append((f"policy {judged.policy}", where, judged.result.policy_sha256))
    return rows
