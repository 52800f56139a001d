"""Which frames are learned from, what is to be learned of each, and the order in which they come."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from dagger_ros.contract import DaggerError
from dagger_ros.learning.descent import LeastSquares
from dagger_ros.learning.network import Array
from dagger_ros.learning.origins import Kind, Origins
from dagger_ros.learning.settings import TrainingSettings

__all__ = ["Batches", "chunk_targets", "learned_frames"]


def learned_frames(count: int, origins: Origins | None, settings: TrainingSettings) -> tuple[Array, int]:
    """Which of N labelled frames are learned from, and how many of them come first in each batch.

    Args:
        count: N.
        origins: Of the frames; None: not known.
        settings: Of the training.

    Returns:
        (K,) int, where the frames lie; and how many of them are corrections that make up half of each batch, and
        stand first: 0 where batches are uniform, or there are only corrections, or none.

    Raises:
        DaggerError: If settings need origins that are not known, or nothing is left to learn from.
    """
    if origins is None:
        needed = {
            "horizon": settings.horizon > 1,
            "correction_weight": settings.correction_weight != 1,
            "batches": settings.batches == "iwr",
            "leave_out_before_takeover_s": settings.leave_out_before_takeover_s > 0,
        }
        for name in (name for name, needs in needed.items() if needs):
            raise DaggerError(f"{name}: expected to be told where the frames come from (origins), which it depends on")
        return np.arange(count), 0
    left_out = (origins.kind == Kind.SHADOW) & (origins.before_takeover_s <= settings.leave_out_before_takeover_s)
    learned = np.flatnonzero(~left_out)
    if not len(learned):
        raise DaggerError(
            f"leave_out_before_takeover_s: expected to leave some frame to learn from; all {count} lie within "
            f"{settings.leave_out_before_takeover_s:g} s of a takeover"
        )
    corrections = origins.kind[learned] == Kind.CORRECTION
    if settings.batches == "uniform" or corrections.all():
        return learned, 0
    return np.concatenate([learned[corrections], learned[~corrections]]), int(corrections.sum())


def chunk_targets(labels: Array, follows: Array, horizon: int) -> tuple[Array, Array]:
    """What the expert did at the tick of each frame and at the next ones, as long as it labelled every tick.

    Args:
        labels: (N, A) of the frames in the order of recording.
        follows: (N,) bool, as in `Origins`.
        horizon: H.

    Returns:
        (N, H, A) labels, and (N, H) bool, which of them there are; the others are 0.
    """
    targets = np.zeros((len(labels), horizon, labels.shape[1]))
    there = np.zeros((len(labels), horizon), bool)
    targets[:, 0], there[:, 0] = labels, True
    for k in range(1, min(horizon, len(labels))):
        there[:-k, k] = there[1 : len(labels) - k + 1, k - 1] & follows[1 : len(labels) - k + 1]
        targets[:-k, k] = np.where(there[:-k, k, None], labels[k:], 0.0)
    return targets, there


class Batches:
    """Draws batches for an ensemble, each member its own.

    Args:
        inputs: (K, I) float32, normalised.
        targets: (K, J) float32, normalised.
        weights: (K, J) float32 of the squared errors; None: all the same.
        first: The first so many frames make up half of each batch; 0: all are drawn alike.
        noise: (I,) float32, standard deviation of noise on the inputs.
        settings: Of the training.
        generator: Draws, on the device of the tensors.

    Attributes:
        drawn: (M, K) int, the frames that each member sees, with replacement; None: all of them.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None,
        *,
        first: int,
        noise: torch.Tensor,
        settings: TrainingSettings,
        generator: torch.Generator,
    ) -> None:
        self._inputs, self._targets, self._weights = inputs, targets, weights
        self._noise = noise if settings.input_noise else None
        self._generator = generator
        self._members = settings.members
        edges = sorted({0, first, len(inputs)})
        self._parts = list(pairwise(edges))
        half = settings.batch // 2
        self._shares = [half, settings.batch - half] if first else [settings.batch]
        self.drawn = None
        if settings.bootstrap:
            self.drawn = self._draw([end - start for start, end in self._parts])

    def fill(self, fit: LeastSquares) -> None:
        """Writes the next batch into the inputs, targets and weights of a fit."""
        index = self._draw(self._shares)
        if self.drawn is not None:
            index = self.drawn.gather(1, index)
        flat = index.view(-1)
        torch.index_select(self._inputs, 0, flat, out=fit.inputs.view(len(flat), -1))
        torch.index_select(self._targets, 0, flat, out=fit.targets.view(len(flat), -1))
        if self._weights is not None and fit.weights is not None:
            torch.index_select(self._weights, 0, flat, out=fit.weights.view(len(flat), -1))
        if self._noise is not None:
            noise = torch.randn(fit.inputs.shape, generator=self._generator, device=self._inputs.device)
            fit.inputs.add_(noise.mul_(self._noise))

    def _draw(self, counts: list[int]) -> torch.Tensor:
        """(M, sum of counts) int64: so many frames of each part for each member."""
        parts = [
            torch.randint(start, end, (self._members, count), generator=self._generator, device=self._inputs.device)
            for (start, end), count in zip(self._parts, counts, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
