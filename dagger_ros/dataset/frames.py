"""Frames: the control ticks of recorded episodes whose observation was whole, with what each camera saw by then."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dagger_ros.contract import NEVER_NS, Contract, Label, RowLayout
from dagger_ros.contract.schema import ImageStream
from dagger_ros.contract.types import MESSAGE_TYPES
from dagger_ros.control import GAP_PERIODS
from dagger_ros.dataset.bag import plant_topics
from dagger_ros.dataset.contents import HEAD, Contents, RecordedMessages, read_contents
from dagger_ros.dataset.episode import BAG, EpisodeInfo, read_episode
from dagger_ros.dataset.origin import recorded_layout
from dagger_ros.dataset.rounds import SPLITS, EpisodeEntry, Round, check_round, episode_folder
from dagger_ros.dataset.rows import Rows, decided_rows, percentiles_s, wanted_for_rows
from dagger_ros.supervisor import ABOUT, Response

__all__ = ["EpisodeFrames", "StreamQuality", "View", "read_frames"]

_Mask = np.ndarray[Any, np.dtype[np.bool_]]
_Integers = np.ndarray[Any, np.dtype[np.int64]]

# The supervisor locked the robot because of what it saw: such a tick is no frame.
_NOT_WHOLE = sum(
    int(reason)
    for reason, about in ABOUT.items()
    if (reason.name or "").startswith("OBSERVATION") and about.response is Response.LOCK
)


class View(str, enum.Enum):
    """Which frames are asked for."""

    LABELS = "labels"
    """Those with an expert's label, and nothing else: what is imitated."""
    FRAMES = "frames"
    """All of them, whoever drove."""


@dataclass(frozen=True)
class StreamQuality:
    """How a stream or a camera came, in an episode or in several.

    Args:
        messages: How many.
        gaps: Times that the next one came later than one and a half periods after the last, by stamp; not where the
            recorder kept nothing, since it keeps only corrections.
        missing: Messages that should have come in those gaps.
        ages_ns: (N,) int64 at the control ticks at which there was something, by stamp, ns.
        stale_ticks: Control ticks at which there was nothing, or nothing fresh.
    """

    COUNTS: ClassVar = ("messages", "gaps", "missing", "stale_ticks")

    messages: int
    gaps: int
    missing: int
    ages_ns: _Integers
    stale_ticks: int

    @classmethod
    def together(cls, parts: Sequence[StreamQuality]) -> StreamQuality:
        """Of several episodes, at least one."""
        counts = {name: sum(getattr(part, name) for part in parts) for name in cls.COUNTS}
        return cls(ages_ns=np.concatenate([part.ages_ns for part in parts]), **counts)

    @property
    def ages_s(self) -> tuple[float, float, float]:
        """The median, the 99th percentile and the largest age, s; NaN: there was never anything."""
        return percentiles_s(self.ages_ns * 1e-9)

    @property
    def counts(self) -> dict[str, int]:
        """Everything but the ages, by name."""
        return {name: getattr(self, name) for name in self.COUNTS}


@dataclass(frozen=True)
class EpisodeFrames:
    """One recorded episode.

    Args:
        round: It belongs to this one.
        entry: Of the round's manifest.
        info: Of its episode.json.
        bag: Where it lies.
        rows: (T,) every control tick.
        whole: (T,) bool, whether everything that the policy and the cameras saw was there and fresh.
        images: For each camera (T,) int64, which message of the bag (its `order`) was the newest; -1: none.
        image_stamps_ns: For each camera (T,) int64, its header stamp, ns; -1: none.
        quality: Of each stream and camera.
    """

    round: Round
    entry: EpisodeEntry
    info: EpisodeInfo
    bag: Path
    rows: Rows
    whole: _Mask
    images: dict[str, _Integers]
    image_stamps_ns: dict[str, _Integers]
    quality: dict[str, StreamQuality]

    def runs(self, view: View) -> list[slice]:
        """Where the frames of a view lie without a break: one control tick after the other, none left out."""
        wanted = self.whole if view is View.FRAMES else self.whole & (self.rows["label_source"] == Label.EXPERT)
        follows = (np.diff(self.rows["tick"]) == 1) & (self.rows["missed_ticks"][1:] == 0)
        begins = wanted.copy()
        begins[1:] &= ~(wanted[:-1] & follows)
        ends = wanted.copy()
        ends[:-1] &= ~(wanted[1:] & follows)
        starts, stops = np.flatnonzero(begins).tolist(), np.flatnonzero(ends).tolist()
        return [slice(a, b + 1) for a, b in zip(starts, stops, strict=True)]


def read_frames(folders: Sequence[Path], contract: Contract, splits: Sequence[str] = SPLITS) -> Iterator[EpisodeFrames]:
    """Reads the episodes of finished rounds.

    Args:
        folders: Of the rounds.
        contract: Of all of them.
        splits: Only the episodes of these.

    Raises:
        DaggerError: If a round is not finished or of another contract, or a bag is not the one that its manifest names.
    """
    layout = RowLayout(contract)
    for folder in folders:
        manifest = check_round(folder, contract)
        for entry in manifest.episodes:
            if entry.split in splits:
                yield _episode(manifest, entry, episode_folder(folder, entry.episode), layout)


def _episode(manifest: Round, entry: EpisodeEntry, folder: Path, layout: RowLayout) -> EpisodeFrames:
    info = read_episode(folder)
    layout = recorded_layout(folder / BAG, info.source, layout)
    contract = layout.contract
    contents = read_contents(folder / BAG, partial(_wanted, contract))
    rows, decisions = decided_rows(contents, layout)
    if info.source is not None:
        rows["round"], rows["episode"] = info.round, info.episode  # as the run counts that it lies in
    left_out = np.empty((0, 2), np.int64) if info.keep == "all" else _left_out(rows)
    images: dict[str, _Integers] = {}
    stamps: dict[str, _Integers] = {}
    quality = {}
    for i, (name, stream) in enumerate(contract.streams.items()):
        received = rows["receive_ns"][:, i] != NEVER_NS
        stale = ~received | _is_old(rows["time_ns"] - rows["stamp_ns"][:, i], stream.max_age_s, contract)
        stale |= rows["monotonic_ns"] - rows["receive_ns"][:, i] > round(stream.max_age_s * 1e9)
        times = _times(contents.topics.get(stream.topic), has_header=MESSAGE_TYPES[stream.type].has_header)
        ages = rows["time_ns"] - rows["stamp_ns"][:, i]
        quality[name] = _quality(times, stream.rate_hz, ages[received], stale, left_out)
    whole = (rows["reasons"] & np.uint64(_NOT_WHOLE)) == 0
    for name, camera in contract.cameras.items():
        images[name], stamps[name], quality[name] = _seen(contents, camera, decisions, rows, contract, left_out)
        whole &= ~_is_old(rows["time_ns"] - stamps[name], camera.max_age_s, contract) & (images[name] >= 0)
    return EpisodeFrames(manifest, entry, info, folder / BAG, rows, whole, images, stamps, quality)


def _wanted(contract: Contract, topic: str, type_: str) -> int:
    return HEAD if topic in plant_topics(contract) else wanted_for_rows(topic, type_)


def _seen(
    contents: Contents,
    camera: ImageStream,
    decisions: RecordedMessages,
    rows: Rows,
    contract: Contract,
    left_out: _Integers,
) -> tuple[_Integers, _Integers, StreamQuality]:
    """Which image of a camera had come in before each decision, and its stamp."""
    messages = contents.topics.get(camera.topic)
    if messages is None or not messages.data:
        none = np.full(len(rows), NEVER_NS)
        return none, none, StreamQuality(0, 0, 0, none[:0], len(rows))
    newest = np.searchsorted(messages.order, decisions.order) - 1
    all_stamps = messages.stamps_ns()
    there = newest >= 0
    stamps = np.where(there, all_stamps[newest], NEVER_NS)
    ages = rows["time_ns"] - stamps
    stale = ~there | _is_old(ages, camera.max_age_s, contract)
    quality = _quality(all_stamps, camera.rate_hz, ages[there], stale, left_out)
    return np.where(there, messages.order[newest], NEVER_NS), stamps, quality


def _is_old(ages_ns: _Integers, max_age_s: float, contract: Contract) -> _Mask:
    """Older than a stream may be, or from further ahead than clocks may differ."""
    return (ages_ns > round(max_age_s * 1e9)) | (ages_ns < -round(contract.timing.future_tolerance_s * 1e9))


def _times(messages: RecordedMessages | None, *, has_header: bool) -> _Integers:
    """When the messages were made, ns, as far as they say it."""
    if messages is None:
        return np.empty(0, np.int64)
    return messages.stamps_ns() if has_header else messages.times_ns


def _left_out(rows: Rows) -> _Integers:
    """(N, 2) times between which there are no decisions, ns: the recorder kept nothing."""
    before = np.flatnonzero(np.diff(rows["tick"]) > 1)
    return np.stack([rows["time_ns"][before], rows["time_ns"][before + 1]], axis=1)


def _quality(
    times_ns: _Integers, rate_hz: float, ages_ns: _Integers, stale: _Mask, left_out: _Integers
) -> StreamQuality:
    times_ns = np.sort(times_ns)  # one that came too late is not missing
    periods = np.diff(times_ns) * 1e-9 * rate_hz
    begins, ends = times_ns[:-1, None], times_ns[1:, None]
    kept = ~((begins < left_out[:, 1]) & (ends > left_out[:, 0])).any(axis=1)
    gaps = periods[(periods > GAP_PERIODS) & kept]
    return StreamQuality(len(times_ns), len(gaps), int((gaps.round() - 1).sum()), ages_ns, int(stale.sum()))
