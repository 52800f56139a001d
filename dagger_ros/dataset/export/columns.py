"""Frames as named columns with units: the one home of what stands in every export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, InterventionReason, Label, Mode, RowLayout, Scores
from dagger_ros.dataset.frames import EpisodeFrames
from dagger_ros.dataset.rows import Rows, timing
from dagger_ros.supervisor import Reason

__all__ = ["ACTION", "STATE", "Column", "frame_columns"]

STATE, ACTION = "observation.state", "action"
_Values = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Column:
    """One value, or one vector, of every frame.

    Args:
        name: As in `dagger.executed_action`; those of this project begin with `dagger.`.
        values: (T,) or (T, n); text is numpy's str.
        names: Of the n values of a vector; empty: a single value.
        units: SI unit of each value, "1": a number without one; "-": no number.
    """

    name: str
    values: _Values
    names: tuple[str, ...]
    units: tuple[str, ...]

    def of(self, frames: slice | _Values) -> Column:
        """The same for some of the frames."""
        return Column(self.name, self.values[frames], self.names, self.units)


def frame_columns(episode: EpisodeFrames, layout: RowLayout) -> list[Column]:
    """Everything that is known of each tick of an episode.

    `observation.state` and `action` are float32, as learning libraries take them; what the project adds is as it was
    recorded. `action` is what is to be imitated: the expert's action where there is a label of it, elsewhere what was
    sent to the actuators, which is no label (`dagger.label_source`).
    """
    rows, contract = episode.rows, layout.contract
    streams = contract.streams.items()
    seen, privileged = (
        (
            tuple(f"{name}.{d}" for name, s in streams if s.privileged is secret for d in s.dimensions),
            tuple(s.unit for _, s in streams if s.privileged is secret for _ in s.dimensions),
        )
        for secret in (False, True)
    )
    action = (contract.action.dimensions, tuple(d.unit for d in contract.action.dimensions_))
    labelled = (rows["label_source"] == Label.EXPERT)[:, None]
    imitated = np.where(labelled, rows["expert_action"], rows["executed_action"]).astype(np.float32)
    columns = [
        Column(STATE, rows["observation"].astype(np.float32), *seen),
        Column(ACTION, imitated, *action),
    ]
    if privileged[0]:
        columns.append(Column("dagger.privileged", rows["privileged"], *privileged))
    for source in ("executed", "requested", "policy", "expert"):
        columns.append(Column(f"dagger.{source}_action", rows[f"{source}_action"], *action))
    ages = {name: rows["time_ns"] - rows["stamp_ns"][:, i] for i, name in enumerate(layout.streams)}
    known = {name: rows["stamp_ns"][:, i] != NEVER_NS for i, name in enumerate(layout.streams)}
    ages |= {name: rows["time_ns"] - stamps for name, stamps in episode.image_stamps_ns.items()}
    known |= {name: stamps != NEVER_NS for name, stamps in episode.image_stamps_ns.items()}
    times = timing(rows)
    age_s = np.stack([np.where(known[name], age * 1e-9, np.nan) for name, age in ages.items()], axis=1)
    columns.append(Column("dagger.age", age_s, tuple(ages), ("s",) * len(ages)))
    columns += [
        Column("dagger.timing", np.stack([*times.values()], axis=1), tuple(times), ("s",) * len(times)),
        Column("dagger.label_source", rows["label_source"].astype(np.int64), (), ("1",)),
        Column("dagger.mode", _words(rows["mode"], {m: m.name for m in Mode}), (), ("-",)),
        Column("dagger.reasons", _reasons(rows), (), ("-",)),
        Column("dagger.intervention", rows["intervention"].astype(np.int64), (), ("1",)),
        Column(
            "dagger.intervention_reason",
            _words(rows["intervention_reason"], {r: r.name for r in InterventionReason}),
            (),
            ("-",),
        ),
        *(Column(f"dagger.{name}", rows[name], (), ("1",)) for name in Scores._fields),
        Column("dagger.help", rows["help"], (), ("-",)),
        *(
            Column(f"dagger.{name}", _words(rows[name], {}), (), ("-",))
            for name in ("policy", "policy_sha256", "operator_id")
        ),
        *(
            Column(f"dagger.{name}", rows[name].astype(np.int64), (), ("1",))
            for name in ("policy_round", "round", "episode", "seed", "tick", "missed_ticks")
        ),
        Column("dagger.time_ns", rows["time_ns"], (), ("ns",)),
    ]
    return columns


def _words(values: _Values, names: dict[Any, str]) -> _Values:
    """(T,) text for each value: its name in lower case, or the text that it is."""
    found, index = np.unique(values, return_inverse=True)
    texts = [names[v].lower() if v in names else _text(v) for v in found.tolist()]
    return np.array(texts, dtype=np.str_)[index]


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _reasons(rows: Rows) -> _Values:
    found, index = np.unique(rows["reasons"], return_inverse=True)
    return np.array([Reason(int(bits)).words() for bits in found], dtype=np.str_)[index]
