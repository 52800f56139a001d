"""What is in finished rounds: labels, streams, and how much of it no earlier round has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, Contract, Label, RowLayout
from dagger_ros.dataset.episode import BAG, read_episode
from dagger_ros.dataset.rounds import Round, check_round, episode_folder
from dagger_ros.dataset.rows import Rows, ages_s, read_rows

__all__ = ["RoundView", "StreamView", "inspect_rounds", "new_share"]

# Frames of earlier rounds that others are compared with, evenly chosen.
_MOST = 4096
# Share of earlier frames that are not new: they have a neighbour in another episode within the distance that counts.
_KNOWN = 0.95
_Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class StreamView:
    """How one stream came, in a round.

    Args:
        name: In the contract.
        rate_hz: Messages in a second of the episodes.
        ages_s: At the control ticks, by header stamp: the median, the 99th percentile and the largest, s.
    """

    name: str
    rate_hz: float
    ages_s: tuple[float, float, float]


@dataclass(frozen=True)
class RoundView:
    """What is in one round.

    Args:
        manifest: As it was written.
        seconds: Of all episodes, on the robot's clock.
        labels: Ticks by whose action labels them.
        streams: In the contract's order.
        new_share: Of the observations, that no earlier round has seen; None: there is no earlier one.
    """

    manifest: Round
    seconds: float
    labels: dict[str, int]
    streams: tuple[StreamView, ...]
    new_share: float | None


def inspect_rounds(folders: Sequence[Path], contract: Contract) -> Iterator[RoundView]:
    """Looks into finished rounds, in order.

    Args:
        folders: Of the rounds, the earliest first.
        contract: Of all of them.

    Raises:
        DaggerError: If a round is not finished or of another contract, or a bag is not the one that its manifest names.
    """
    layout = RowLayout(contract)
    before: list[_Array] = []
    for folder in folders:
        manifest = check_round(folder, contract)
        places = [episode_folder(folder, e.episode) for e in manifest.episodes]
        episodes = [read_rows(place / BAG, layout) for place in places]
        infos = [read_episode(place) for place in places]
        rows = np.concatenate(episodes)
        seconds = sum(info.finished_ns - info.started_ns for info in infos) * 1e-9
        observations = [episode["observation"] for episode in episodes]
        yield RoundView(
            manifest=manifest,
            seconds=seconds,
            labels={label.name.lower(): int((rows["label_source"] == label).sum()) for label in Label},
            streams=tuple(
                StreamView(
                    name,
                    sum(info.messages[contract.streams[name].topic] for info in infos) / seconds if seconds else 0.0,
                    _stamp_ages_s(rows, i),
                )
                for i, name in enumerate(layout.streams)
            ),
            new_share=new_share(before, observations, layout.resolution()) if before else None,
        )
        before += observations


def new_share(before: Sequence[_Array], now: Sequence[_Array], resolution: _Array) -> float:
    """Share of frames that lie further from every earlier one than 95 % of those lie from one of another episode.

    Frames of one episode are close to each other in any case. With a single earlier episode its own frames, other than
    the frame itself, are what there is to compare with.

    Args:
        before: For each earlier episode (T, O) observations.
        now: For each episode in question.
        resolution: (O,) smallest change that means something; added to the spread that values are divided by.

    Returns:
        Between 0 and 1; frames with values that are not finite are left out.
    """
    known = np.concatenate(before)
    episode = np.repeat(np.arange(len(before)), [len(b) for b in before])
    usable = np.isfinite(known).all(axis=1)
    known, episode = known[usable], episode[usable]
    chosen = np.linspace(0, len(known) - 1, min(len(known), _MOST)).round().astype(int)
    known, episode = known[chosen], episode[chosen]
    seen = np.concatenate(now)
    seen = seen[np.isfinite(seen).all(axis=1)]
    if not len(known) or not len(seen):
        return 0.0
    scale = known.std(axis=0) + resolution
    own = episode if len(set(episode.tolist())) > 1 else np.arange(len(known))
    limit = np.quantile(_nearest(known / scale, known / scale, own), _KNOWN)
    return float((_nearest(seen / scale, known / scale) > limit).mean())


def _nearest(frames: _Array, others: _Array, same: np.ndarray[Any, np.dtype[np.int64]] | None = None) -> _Array:
    """(N,) distance of each frame to the nearest of others, which is not of the `same` group."""
    norms = (others**2).sum(axis=1)
    result = np.empty(len(frames))
    for begin in range(0, len(frames), 1024):
        part = slice(begin, begin + 1024)
        squared = (frames[part] ** 2).sum(axis=1)[:, None] - 2 * (frames[part] @ others.T) + norms
        if same is not None:
            squared[same[part][:, None] == same] = np.inf
        result[part] = np.sqrt(np.maximum(squared.min(axis=1), 0.0))
    return result


def _stamp_ages_s(rows: Rows, stream: int) -> tuple[float, float, float]:
    received = rows["receive_ns"][:, stream] != NEVER_NS
    return ages_s((rows["time_ns"] - rows["stamp_ns"][:, stream])[received])
