"""A bag as rows: what the supervisor decided, tick by tick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import DURATIONS, NEVER_NS, Act, DaggerError, Mode, RowLayout
from dagger_ros.dataset.acts import undo
from dagger_ros.dataset.bag import ACT, DECISION, typestore_of
from dagger_ros.dataset.cdr import fields_of, read_messages
from dagger_ros.dataset.contents import WHOLE, Contents, RecordedMessages, read_contents

__all__ = ["STAGES", "Rows", "decided_rows", "percentiles_s", "read_rows", "timing", "wanted_for_rows"]

Rows = np.ndarray[Any, np.dtype[Any]]
_NS_PER_S = 1_000_000_000
STAGES = {
    "inference": "the policy's answer, of the newest proposal at each tick",
    "late": "begin of a tick after its deadline; below 0: before it, since the proposal was there",
    "gate": "from then to the decision",
    "command": "from then until the command was handed over",
    "total": "from the stamp of what the driver acted on until then",
}


def read_rows(path: Path, layout: RowLayout) -> Rows:
    """The rows of a bag.

    Args:
        path: A rosbag2 folder.
        layout: Row of the contract that the bag was recorded under.

    Returns:
        (T,) rows in the order of recording, without the labels that the operator took back.

    Raises:
        DaggerError: If it is not a whole bag, holds no decisions, or is of another contract.
    """
    return decided_rows(read_contents(path, wanted_for_rows), layout)[0]


def wanted_for_rows(_topic: str, type_: str) -> int:
    """What `decided_rows` needs of a bag, for `read_contents`."""
    return WHOLE if type_ in (DECISION, ACT) else 0


def decided_rows(contents: Contents, layout: RowLayout, *, obeys_undo: bool = True) -> tuple[Rows, RecordedMessages]:
    """The same of a bag that was read as `wanted_for_rows` says.

    Args:
        contents: Of the bag.
        layout: As for `read_rows`.
        obeys_undo: False: as the supervisor decided them, with the labels that the operator took back later.

    Returns:
        (T,) rows, and the messages that they were made of.
    """
    decisions, acts = contents.of_type(DECISION), contents.of_type(ACT)
    if decisions is None:
        topics = ", ".join(f"/{topic}" for topic in sorted(contents.counts)) or "nothing"
        raise DaggerError(f"{contents.path}: expected a topic of type {DECISION} in the bag; it has {topics}")
    rows = _rows(contents.path, decisions, layout)
    if obeys_undo and acts is not None:
        typestore = typestore_of(((ACT, acts.definition),))
        undone = [
            order
            for order, data in zip(acts.order.tolist(), acts.data, strict=True)
            if typestore.deserialize_cdr(data, ACT).act == Act.UNDO  # type: ignore[attr-defined]
        ]
        undo(rows, np.searchsorted(decisions.order, undone).tolist())
    return rows, decisions


def _rows(path: Path, decisions: RecordedMessages, layout: RowLayout) -> Rows:
    fields = fields_of(typestore_of(((DECISION, decisions.definition),)), DECISION)
    rows = layout.new(len(decisions.data))
    known = {field.name for field in fields}
    # Bags of earlier versions do not say what took how long.
    names = [n for n in layout.dtype.names or () if n != "time_ns" and (n in known or n not in DURATIONS)]
    contract = layout.contract
    try:
        for index, values in read_messages(decisions.data, fields):
            first = values[0]["contract_sha256"].decode("ascii", "replace")
            if first != contract.sha256:
                raise DaggerError(
                    f"{path}: expected decisions under contract {contract.sha256[:12]} ({contract.name}), "
                    f"found {first[:12]}; frames of different contracts do not mix"
                )
            if (values["contract_sha256"] != values[0]["contract_sha256"]).any():
                raise DaggerError(f"{path}: expected decisions under one contract, found two of them in one bag")
            rows["time_ns"][index] = values["header.stamp.sec"].astype(np.int64) * _NS_PER_S
            rows["time_ns"][index] += values["header.stamp.nanosec"]
            for name in names:
                if values[name].shape[1:] != rows[name].shape[1:]:
                    raise DaggerError(
                        f"{path}: decision {index[0]} has a {name} of another size than its contract says"
                    )
                rows[name][index] = values[name]
    except (ValueError, KeyError) as error:
        raise DaggerError(
            f"{path}: expected messages of type {DECISION} as this version knows it; decision {error}"
        ) from error
    return rows


def timing(rows: Rows) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """What took how long at each tick, by the names of `STAGES`: (T,) float64 each, s; NaN: not measured.

    Nothing is measured in lockstep, nor in bags from elsewhere; `total` is known where somebody drove. It begins on the
    robot's clock, which under `use_sim_time` goes in steps.
    """
    times = {name.removesuffix("_s"): rows[name] for name in DURATIONS}
    stamps_ns = np.select(
        [rows["mode"] == Mode.POLICY, rows["mode"] == Mode.EXPERT],
        [rows["policy_stamp_ns"], rows["expert_stamp_ns"]],
        NEVER_NS,
    )
    age_s = np.where(stamps_ns == NEVER_NS, np.nan, (rows["time_ns"] - stamps_ns) * 1e-9)
    return times | {"total": age_s + times["gate"] + times["command"]}


def percentiles_s(values_s: np.ndarray[Any, np.dtype[np.floating[Any]]]) -> tuple[float, float, float]:
    """The median, the 99th percentile and the largest of what is known; NaN where there is nothing.

    Args:
        values_s: (N,) float64, s; NaN: not known.
    """
    known = values_s[~np.isnan(values_s)]
    if not len(known):
        return np.nan, np.nan, np.nan
    p50, p99, worst = np.percentile(known, [50, 99, 100]).tolist()
    return p50, p99, worst
