"""A trace as the page draws it: small numbers as text, changes of mode and reasons as spans."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, Mode, RowLayout
from dagger_ros.expert import Expert
from dagger_ros.supervisor import Reason

__all__ = ["channels_of", "compact_trace", "most_points"]

# Points of a curve: about as many as a phone has pixels for; fewer where more than so many rollouts share the page.
_MOST_POINTS, _FEWEST_POINTS = 200, 40
_MANY_ROLLOUTS = 600
_LARGEST = 65534
_UNKNOWN = 65535

Values = np.ndarray[Any, np.dtype[np.float64]]


def channels_of(contract: Contract, *, progress: bool) -> list[dict[str, Any]]:
    """What `compact_trace` has a curve of, in its order: name, plot, and how it is drawn.

    Args:
        contract: Of the traces.
        progress: Whether an expert says how far it is.
    """
    channels: list[dict[str, Any]] = []
    for kind in ("executed", "policy", "expert"):
        for d in contract.action.dimensions_:
            channels.append({"name": kind, "plot": f"action {d.name}", "unit": d.unit})
    if progress:
        channels.append({"name": "progress", "plot": "progress, as the expert of the task sees it", "unit": ""})
    for name, stream in contract.streams.items():
        if stream.privileged:
            short = [d.rpartition(".")[2] for d in stream.dimensions]
            channels += [{"name": d, "plot": f"{name} (hidden from the policy)", "unit": stream.unit} for d in short]
    channels.append({"name": "doubt", "plot": "doubt of the policy", "unit": "half bound ranges"})
    channels.append({"name": "novelty", "plot": "novelty: above 1 the policy has hardly seen this", "unit": "multiple"})
    return channels


def most_points(rollouts: int) -> int:
    """Of a curve, where so many rollouts share a page."""
    return max(_FEWEST_POINTS, min(_MOST_POINTS, _MOST_POINTS * _MANY_ROLLOUTS // max(1, rollouts)))


def compact_trace(
    contract: Contract, rows: np.ndarray[Any, np.dtype[Any]], expert: Expert | None, *, points: int = _MOST_POINTS
) -> dict[str, Any]:
    """One trace.

    Args:
        contract: Of the trace.
        rows: (T,) decided rows.
        expert: Says how far the task is; None: nobody does.
        points: At most so many of each curve.

    Returns:
        `stride`: every how manieth tick is there; `points`: how many; `modes` and `reasons`: spans `[what, first tick,
        tick after the last]`; `channels`: indices into `channels_of`, `ranges`: lowest and highest value of each, and
        `values`: them as base64 of little-endian uint16, channel by channel, 65535 for unknown.
    """
    stride = -(-len(rows) // points)
    drawn = rows[::stride]
    layers = [drawn[f"{kind}_action"] for kind in ("executed", "policy", "expert")]
    if expert is not None:
        layers.append(_progress(expert, drawn["privileged"]))
    privileged = [i for i, seen in enumerate(RowLayout(contract).seen_by_policy) if not seen]
    if privileged:
        layers.append(drawn["privileged"])
    layers += [drawn["doubt"][:, None], drawn["novelty"][:, None]]
    values = np.concatenate(layers, axis=1).T
    known = [i for i, v in enumerate(values) if np.isfinite(v).any()]
    packed, ranges = zip(*(_packed(values[i]) for i in known), strict=True) if known else ((), ())
    return {
        "stride": stride,
        "points": len(drawn),
        "modes": _spans([Mode(m).name.lower() for m in rows["mode"].tolist()]),
        "reasons": _spans([Reason(r).words() for r in _reasons(rows).tolist()], leave_out=""),
        "channels": known,
        "ranges": list(ranges),
        "values": base64.b64encode(b"".join(packed)).decode(),
    }


def _reasons(rows: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Without the one that says at every tick that there was no expert: there was to be none."""
    reasons: np.ndarray[Any, np.dtype[np.uint64]] = rows["reasons"]
    nobody = np.uint64(Reason.EXPERT_NEVER)
    return reasons & ~nobody if (reasons & nobody).all() else reasons


def _progress(expert: Expert, privileged: Values) -> Values:
    said = [expert.progress(p) if np.isfinite(p).all() else np.nan for p in privileged]
    return np.array(said, dtype=float)[:, None]


def _packed(values: Values) -> tuple[bytes, list[float]]:
    finite = np.isfinite(values)
    low, high = float(values[finite].min()), float(values[finite].max())
    scale = _LARGEST / (high - low) if high > low else 0.0
    steps = np.full(len(values), _UNKNOWN, np.dtype("<u2"))
    steps[finite] = np.round((values[finite] - low) * scale)
    return steps.tobytes(), [float(f"{low:.6g}"), float(f"{high:.6g}")]


def _spans(said: Sequence[str], leave_out: str | None = None) -> list[list[Any]]:
    """Runs of equal words, but for those that are left out."""
    spans: list[list[Any]] = []
    for tick, word in enumerate(said):
        if spans and spans[-1][0] == word:
            spans[-1][2] = tick + 1
        else:
            spans.append([word, tick, tick + 1])
    return [s for s in spans if s[0] != leave_out]
