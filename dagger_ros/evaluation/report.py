"""The report of a run: one HTML file with everything inside."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from dagger_ros.contract import Contract, Goal
from dagger_ros.contract.files import write_file

__all__ = ["write_report"]


def write_report(out: Path, contract: Contract, result: Mapping[str, Any]) -> Path:
    """Writes `report/index.html`.

    Args:
        out: Folder of the run.
        contract: Of the run.
        result: What stands in result.json.

    Returns:
        The file.
    """
    template = resources.files("dagger_ros.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    labels = [r["labels_total"] for r in result["rounds"]]
    figures = [
        _curve(labels, result["rounds"], "success_rate", "panel success", limits=(0, 1)),
    ]
    if contract.task.metric.name != "success":
        figures.append(_curve(labels, result["rounds"], "metric", contract.task.metric.unit, limits=(0, None)))
    html = environment.from_string(template).render(
        contract=contract,
        result=result,
        figures=figures,
        better="larger" if contract.task.metric.goal is Goal.MAXIMIZE else "smaller",
    )
    path = out / "report" / "index.html"
    write_file(path, html.encode())
    return path


def _curve(
    labels: list[int], rounds: list[dict[str, Any]], what: str, title: str, limits: tuple[float, float | None]
) -> str:
    """One figure over cumulative expert labels, as SVG text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = [r["panel"] for r in rounds]
    values = [p["metric"]["mean"] if what == "metric" else p[what] for p in panels]
    # The same run gives the same file: no date, no random ids; text stays text.
    with mpl.rc_context({"svg.hashsalt": "dagger_ros", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.add_subplot()
        if what == "success_rate":
            low = [v - p["success_ci95"][0] for v, p in zip(values, panels, strict=True)]
            high = [p["success_ci95"][1] - v for v, p in zip(values, panels, strict=True)]
            axes.errorbar(labels, values, yerr=[low, high], fmt="o-", color="#0b5394", capsize=3)
        else:
            axes.plot(labels, values, "o-", color="#0b5394")
        offset = (5, -12) if what == "success_rate" else (5, 5)
        for label, value, round_ in zip(labels, values, rounds, strict=True):
            if labels.index(label) == round_["round"]:  # rounds without new labels would write over each other
                axes.annotate(round_["policy"], (label, value), offset, textcoords="offset points", fontsize=8)
        axes.margins(x=0.12)
        axes.set(xlabel="expert labels, all rounds", ylabel=title)
        axes.set_ylim(limits[0] - 0.03, limits[1] + 0.05 if limits[1] is not None else None)
        axes.grid(alpha=0.3)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
