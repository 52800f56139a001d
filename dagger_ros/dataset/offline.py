"""Writes an episode from rows that were decided without a graph: aligned or labelled anew from recorded messages."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

from dagger_ros.contract import DaggerError, DecisionWriter, RowLayout
from dagger_ros.contract.files import sync_folder
from dagger_ros.dataset.bag import DECISION, BagWriter, RecordedTopic, part_of, typestore_of
from dagger_ros.dataset.episode import BAG, EpisodeInfo, write_episode
from dagger_ros.supervisor import Reason

__all__ = ["DECISION_TOPIC", "write_rows"]

DECISION_TOPIC = "supervisor/decision"


def write_rows(
    folder: Path,
    rows: np.ndarray[Any, np.dtype[Any]],
    layout: RowLayout,
    messages: Iterable[tuple[str, int, bytes]],
    topics: Mapping[str, RecordedTopic],
    info: EpisodeInfo,
    *,
    contract_text: str,
    definitions: Mapping[str, str],
    recorded_ns: Sequence[int] | None = None,
    about: Mapping[str, str] | None = None,
) -> EpisodeInfo:
    """Writes the folder of one episode, whole or not at all: its bag and episode.json, as a recorder leaves them.

    `read_rows` gives the same rows back, bit for bit, unless `messages` have an OperatorAct that takes a correction
    back, which it obeys. What the new rows decided already should not be decided again: leave such a topic out.

    Args:
        folder: Of the episode, as `episode_folder` gives it; must not exist.
        rows: (T,) decided rows, T >= 1; with the round, episode, seed and operator_id that `info` says.
        layout: Of the rows.
        messages: (topic, when it was received in ns, serialized message), in order of time; written as they are.
            Without decisions: those are made from the rows. One received at the time of a tick stands before its
            decision.
        topics: Every topic of `messages`, by its name without a leading slash.
        info: What stands in episode.json; `messages` is counted here.
        contract_text: The contract's file, which stands in the bag.
        definitions: Text of the .msg file of every type that is not a standard one, GateDecision among them: from
            `nodes.share.message_definition`, or a bag's `connection.msgdef.data`.
        recorded_ns: When each decision counts as recorded, ns, none before the last; None: the time of its tick.
        about: What else the metadata record inside the bag says, by name.

    Returns:
        What stands in episode.json.

    Raises:
        DaggerError: If the folder is there already, there are no rows, times go back, or the disk does not take it.
    """
    times_ns: list[int] = rows["time_ns"].tolist() if recorded_ns is None else list(recorded_ns)
    if not len(rows) or len(times_ns) != len(rows) or (np.diff(times_ns) < 0).any():
        raise DaggerError(f"{folder}: expected rows, each with a time not before the last one's, got {len(rows)} rows")
    if folder.exists():
        raise DaggerError(f"{folder}: expected no episode of this number yet; there is one, and it is left as it is")
    part = part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    said = {
        "contract": contract_text,
        "round": str(info.round),
        "episode": str(info.episode),
        "seed": str(info.seed),
        "rule": info.rule,
        "started_ns": str(info.started_ns),
    }
    recorded = {**topics, DECISION_TOPIC: RecordedTopic(DECISION, reliable=True, latched=False)}
    bag = None
    try:
        bag = BagWriter(part / BAG, recorded, definitions, said | dict(about or {}))
        decisions = zip([DECISION_TOPIC] * len(rows), times_ns, _serialized(rows, layout, definitions), strict=True)
        for topic, time_ns, data in heapq.merge(messages, decisions, key=itemgetter(1)):
            bag.write(topic, time_ns, data)
        bag.close()
        written = replace(info, messages=bag.counts)
        write_episode(part, written)
        part.replace(folder)
        sync_folder(folder.parent)
    except BaseException as error:
        if bag is not None:
            bag.discard()
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise DaggerError(f"{folder}: expected a disk that takes the episode; {error.strerror}") from error
        raise
    return written


def _serialized(
    rows: np.ndarray[Any, np.dtype[Any]], layout: RowLayout, definitions: Mapping[str, str]
) -> Iterable[bytes]:
    """The decision of each row as bytes."""
    typestore = typestore_of(tuple(sorted(definitions.items())))
    writer = DecisionWriter(_empty(typestore, DECISION), rows[0], layout.contract.sha256)
    for row in rows:
        message = writer.fill(row, Reason(int(row["reasons"])).words())
        yield bytes(typestore.serialize_cdr(message, DECISION))


def _empty(typestore: Typestore, type_: str) -> Any:
    """A message in which nothing is said, for types without fixed-size arrays."""
    fields: dict[str, Any] = {}
    for name, (kind, what) in typestore.fielddefs[type_][1]:
        if kind == Nodetype.NAME:
            fields[name] = _empty(typestore, str(what))
        elif kind == Nodetype.SEQUENCE:
            fields[name] = np.empty(0)
        else:
            fields[name] = "" if what[0] == "string" else 0
    return typestore.types[type_](**fields)
