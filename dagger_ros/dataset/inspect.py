"""What is in finished rounds: labels, streams, and how much of it no earlier round has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, Label, RowLayout
from dagger_ros.dataset.frames import StreamQuality, read_frames
from dagger_ros.dataset.rounds import Round
from dagger_ros.dataset.rows import STAGES, timing

__all__ = ["RoundView", "StreamView", "inspect_rounds", "new_share"]

# Frames of earlier rounds that others are compared with, evenly chosen.
_MOST = 4096
# Share of earlier frames that are not new: they have a neighbour in another episode within the distance that counts.
_KNOWN = 0.95
_Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class StreamView:
    """How one stream or camera came, in a round.

    Args:
        name: In the contract.
        rate_hz: Messages in a second, of the time of which there are control ticks.
        quality: Of all episodes together.
    """

    name: str
    rate_hz: float
    quality: StreamQuality

    @property
    def ages_s(self) -> tuple[float, float, float]:
        """As in `quality`."""
        return self.quality.ages_s


@dataclass(frozen=True)
class RoundView:
    """What is in one round.

    Args:
        manifest: As it was written.
        seconds: Of all episodes, on the robot's clock.
        labels: Ticks by whose action labels them.
        frames: Ticks that are frames: everything that the policy and the cameras saw was there and fresh.
        streams: In the contract's order, cameras behind them.
        timing: What took how long at each tick of all episodes, as `rows.timing` gives it.
        new_share: Of the observations, that no earlier round has seen; None: there is no earlier one.
    """

    manifest: Round
    seconds: float
    labels: dict[str, int]
    frames: int
    streams: tuple[StreamView, ...]
    timing: dict[str, _Array]
    new_share: float | None


def inspect_rounds(folders: Sequence[Path], contract: Contract) -> Iterator[RoundView]:
    """Looks into finished rounds, in order.

    Args:
        folders: Of the rounds, the earliest first.
        contract: Of all of them.

    Raises:
        DaggerError: If a round is not finished or of another contract, or a bag is not the one that its manifest names.
    """
    resolution, period_s = RowLayout(contract).resolution(), contract.timing.period_ns * 1e-9
    before: list[_Array] = []
    for folder in folders:
        episodes = list(read_frames([folder], contract))
        infos = [episode.info for episode in episodes]
        sources = np.concatenate([episode.rows["label_source"] for episode in episodes])
        seconds = sum(info.finished_ns - info.started_ns for info in infos) * 1e-9
        took = [timing(episode.rows) for episode in episodes]
        observations = [episode.rows["observation"] for episode in episodes]
        covered_s = sum(len(e.rows) + int(e.rows["missed_ticks"].sum()) for e in episodes) * period_s
        qualities = {
            name: StreamQuality.together([episode.quality[name] for episode in episodes])
            for name in (*contract.streams, *contract.cameras)
        }
        yield RoundView(
            manifest=episodes[0].round,
            seconds=seconds,
            labels={label.name.lower(): int((sources == label).sum()) for label in Label},
            frames=sum(int(episode.whole.sum()) for episode in episodes),
            streams=tuple(
                StreamView(name, quality.messages / covered_s if covered_s else 0.0, quality)
                for name, quality in qualities.items()
            ),
            timing={stage: np.concatenate([times[stage] for times in took]) for stage in STAGES},
            new_share=new_share(before, observations, resolution) if before else None,
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
