"""Figures in words, as an engineer and her manager both read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagger_ros.contract import Contract, Goal

__all__ = ["counted", "interval", "listed", "number", "of_paired", "of_trend", "p_value", "percent", "plural", "points"]

_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def percent(share: float) -> str:
    """As in `87 %`; never rounded to all or nothing."""
    rounded = 100 * share
    text = f"{rounded:.0f}"
    if text in ("0", "100") and 0 < share < 1:
        text = f"{rounded:.1f}" if 0.05 <= rounded <= 99.95 else {"0": "<0.1", "100": ">99.9"}[text]
    return f"{text}\N{NO-BREAK SPACE}%"


def interval(bounds: Sequence[float]) -> str:
    """Of a share, as in `70-95 %`."""
    low, high = (f"{100 * b:.0f}" for b in bounds)
    return f"{low}{_DASH}{high}\N{NO-BREAK SPACE}%"


def number(value: float) -> str:
    """Three digits, with a true minus."""
    return f"{value:.3g}".replace("-", _MINUS)


def points(difference: float) -> str:
    """Difference of two shares, as in `+12`, in percentage points."""
    return f"{100 * difference:+.0f}".replace("-", _MINUS)


def p_value(p: float) -> str:
    """As in `p = 0.02`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def plural(count: int, one: str, many: str = "") -> str:
    """As in `1 rollout` or `2 rollouts`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def listed(parts: Sequence[str]) -> str:
    """As in `a, b and c`."""
    return " and ".join(p for p in (", ".join(parts[:-1]), parts[-1]) if p) if parts else ""


def counted(counts: Mapping[str, int]) -> str:
    """As in `3 jammed and 1 not found`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return listed([f"{count} {name.replace('_', ' ')}" for name, count in ordered])


def of_paired(paired: Mapping[str, Any], before: str, now: str, contract: Contract) -> str:
    """What a paired comparison says: `now` beside `before` on the same rollouts.

    Args:
        paired: Fields of `evaluation.Paired`, whose A is `before`.
        before: Name of the one policy.
        now: Name of the other.
        contract: Says what the metric is.
    """
    metric = contract.task.metric
    if paired["better"] or paired["worse"]:
        said = f"credibly {'better' if paired['better'] else 'worse'} than {before}"
    else:
        said = f"no credible difference from {before}"
    low, high = paired["success_ci95"]
    text = (
        f"{said}: on the same {plural(paired['pairs'], 'rollout')} {paired['only_b']} succeeded only with {now} and "
        f"{paired['only_a']} only with {before} (exact McNemar {p_value(paired['p_value'])}); success "
        f"{points(paired['success'])} points, 95\N{NO-BREAK SPACE}% interval {points(low)} to {points(high)}"
    )
    if metric.name != "success":
        low, high = paired["metric_ci95"]
        text += (
            f"; {metric.name.replace('_', ' ')} {number(paired['metric'])} {metric.unit}, interval {number(low)} to "
            f"{number(high)}, {'more' if metric.goal is Goal.MAXIMIZE else 'less'} is better"
        )
    return text


def of_trend(interventions: Mapping[str, Any]) -> str:
    """Whether the operator has less to do on matched rollouts, and the test that says so."""
    verdict = "falling" if interventions["falling"] else "not shown to fall"
    p = interventions["p_value"]
    return f"{verdict} (Page's trend test, {p_value(p)})" if p is not None else verdict
