"""What the page's script opens: every rollout with its trace and its pictures, as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagger_ros.contract import Contract
from dagger_ros.evaluation.panel import RolloutKey
from dagger_ros.evaluation.report.pictures import Strip
from dagger_ros.evaluation.report.record import Judged, Record
from dagger_ros.evaluation.report.traces import channels_of, compact_trace, most_points
from dagger_ros.evaluation.runner import trace_path
from dagger_ros.evaluation.trace import Trace
from dagger_ros.expert import Expert
from dagger_ros.sim.tasks import TASKS
from dagger_ros.supervisor import ABOUT

__all__ = ["cell_id", "data_url", "script_data"]


def script_data(record: Record, strips: Mapping[Path, Strip]) -> str:
    """What the page's script opens, as JSON that ends no script element.

    Args:
        record: The run.
        strips: Pictures by file of the trace.
    """
    contract = record.contract
    expert = _expert(contract)
    points = most_points(record.rollouts)
    films: list[dict[str, Any]] = []
    known: dict[Strip, int] = {}
    rollouts: dict[str, Any] = {}
    for sheet in record.every_sheet:
        for judged in sheet.judged:
            for result in judged.result.rollouts:
                path = trace_path(judged.folder, result.key)
                strip = strips.get(path)
                if strip is not None and strip not in known:
                    known[strip] = len(films)
                    near, whole = data_url(strip.near), data_url(strip.whole)
                    films.append({"ticks": strip.ticks, "near": near, "whole": whole})
                rollouts[cell_id(judged, result.key)] = {
                    "panel": sheet.panel.name,
                    "policy": judged.policy,
                    "rollout": str(result.key),
                    "success": result.success,
                    "failure": result.failure,
                    "metric": result.metric,
                    "ticks": result.ticks,
                    "driven": result.driven,
                    "clamped": result.clamped,
                    "takeovers": result.takeovers,
                    "cause": _cause(judged, result.key),
                    "film": known[strip] if strip is not None else -1,
                    "trace": compact_trace(contract, Trace.read(path).rows, expert, points=points),
                }
    content = {
        "period_s": contract.timing.period_ns * 1e-9,
        "metric": [contract.task.metric.name, contract.task.metric.unit],
        "bounds": {f"action {d.name}": [d.lower, d.upper] for d in contract.action.dimensions_},
        "channels": channels_of(contract, progress=expert is not None),
        "reasons": {str(reason.name): about.words for reason, about in ABOUT.items()},
        "failures": contract.task.failure_labels,
        "films": films,
        "rollouts": rollouts,
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def cell_id(judged: Judged, key: RolloutKey) -> str:
    """Of a rollout on the page; what its address ends with."""
    return f"{judged.result.panel}/{judged.policy}/{key}"


def data_url(webp: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def _cause(judged: Judged, key: RolloutKey) -> dict[str, Any] | None:
    cause = (judged.causes or {}).get(key)
    if cause is None:
        return None
    return {"cause": cause.cause, "onset": cause.onset_tick, "evidence": cause.evidence, "reruns": cause.reruns}


def _expert(contract: Contract) -> Expert | None:
    """Who says how far the task is: the scripted expert of a simulated task."""
    if contract.simulation is None or contract.simulation.task not in TASKS:
        return None
    return TASKS[contract.simulation.task](contract).expert
