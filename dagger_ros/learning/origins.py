"""Where labelled frames come from, as far as that decides how they are learned from."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dagger_ros.contract import InterventionReason, Label, Mode
from dagger_ros.dataset import TrainingEpisode
from dagger_ros.dataset.acts import corrections
from dagger_ros.learning.network import Array

__all__ = ["Kind", "Origins", "origins_of"]


class Kind(enum.IntEnum):
    """Who drove at a labelled frame."""

    DEMONSTRATION = 0
    """The expert, with nothing to correct: round 0, rule bc, or a script that rule dagger's coin gave control."""
    CORRECTION = 1
    """The expert, who had taken over from a policy, or had been asked to."""
    SHADOW = 2
    """The policy, and the expert said what it would have done there: rules dagger and ensemble."""


@dataclass(frozen=True)
class Origins:
    """One entry for each frame of `dataset.labelled_frames`, in its order.

    Args:
        follows: (N,) bool, the frame is of the control tick right after that of the frame before it, of one episode.
        kind: (N,) int, one of `Kind`.
        before_takeover_s: (N,) float64, how long after it the expert took over, where the policy drove; infinite where
            the expert did, or it did not take over any more.
    """

    follows: Array
    kind: Array
    before_takeover_s: Array

    def __getitem__(self, part: slice) -> Origins:
        """Those of some of the frames."""
        return Origins(self.follows[part], self.kind[part], self.before_takeover_s[part])


def origins_of(episodes: Sequence[TrainingEpisode]) -> Origins:
    """Where the labelled frames of some episodes come from.

    Args:
        episodes: As for `dataset.labelled_frames`.
    """
    parts = [_of_episode(episode) for episode in episodes]
    return Origins(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _of_episode(episode: TrainingEpisode) -> tuple[Array, Array, Array]:
    rows = episode.rows
    labelled = rows["label_source"] == Label.EXPERT
    follows = np.zeros(len(rows), bool)
    follows[1:] = labelled[:-1] & (np.diff(rows["tick"]) == 1) & (rows["missed_ticks"][1:] == 0)
    kind = np.where(rows["mode"] == Mode.EXPERT, Kind.DEMONSTRATION, Kind.SHADOW)
    before_s = np.full(len(rows), np.inf)
    for run in [] if episode.demonstration else corrections(rows):
        # Its last frame has the reason that was given in the middle of it.
        if rows["intervention_reason"][run.stop - 1] != InterventionReason.DEMONSTRATION:
            kind[run] = Kind.CORRECTION
            ages_s = (rows["time_ns"][run.start] - rows["time_ns"][: run.start]) * 1e-9
            before_s[: run.start] = np.minimum(before_s[: run.start], ages_s)
    before_s[kind != Kind.SHADOW] = np.inf
    return follows[labelled], kind[labelled], before_s[labelled]
