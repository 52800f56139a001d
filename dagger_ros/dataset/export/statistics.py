"""Statistics of features as LeRobotDataset v3.0 keeps them: of an episode, and of all episodes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["QUANTILES", "ImageStatistics", "combined", "statistics_of"]

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Statistics = dict[str, np.ndarray[Any, np.dtype[Any]]]
_CHANNELS, _LEVELS = 3, 256


def statistics_of(values: np.ndarray[Any, np.dtype[Any]]) -> Statistics:
    """Statistics of one feature in one episode, by name.

    Args:
        values: (T,) or (T, n) numbers; those that are not finite are left out, where there are no others all are NaN.

    Returns:
        (n,) float64 each; the smallest and the largest of whole numbers and of bools as they are; `count`, T.
    """
    table = values.reshape(len(values), -1)
    numbers = np.where(np.isfinite(table), table, np.nan)
    empty = np.isnan(numbers).all(axis=0)
    numbers[:, empty] = 0.0  # numpy warns where there is nothing
    result = {
        "min": np.nanmin(numbers, axis=0),
        "max": np.nanmax(numbers, axis=0),
        "mean": np.nanmean(numbers, axis=0),
        "std": np.nanstd(numbers, axis=0),
        **dict(zip(QUANTILES, np.nanquantile(numbers, list(QUANTILES.values()), axis=0), strict=True)),
    }
    for statistic in result.values():
        statistic[empty] = np.nan
    if table.dtype.kind != "f":
        result |= {"min": table.min(axis=0), "max": table.max(axis=0)}
    return result | {"count": np.array([len(values)])}


class ImageStatistics:
    """Statistics of the pixels of one camera in one episode, channel by channel, from 0 to 1."""

    def __init__(self) -> None:
        self._histogram = np.zeros((_CHANNELS, _LEVELS), np.int64)
        self._count = 0

    def add(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Takes one (height, width, 3) picture."""
        self._count += 1
        for channel, histogram in enumerate(self._histogram):
            histogram += np.bincount(pixels[:, :, channel].ravel(), minlength=_LEVELS)

    def result(self) -> Statistics:
        """(3, 1, 1) float64 each; `count`, the pictures taken."""
        levels = np.arange(_LEVELS) / (_LEVELS - 1)
        pixels = self._histogram[0].sum()
        shares = self._histogram / pixels
        below = shares.cumsum(axis=1)
        mean = shares @ levels
        result = {
            "min": np.array([levels[h > 0][0] for h in self._histogram]),
            "max": np.array([levels[h > 0][-1] for h in self._histogram]),
            "mean": mean,
            "std": np.sqrt(((levels - mean[:, None]) ** 2 * shares).sum(axis=1)),
        }
        for name, quantile in QUANTILES.items():
            result[name] = np.array([levels[np.searchsorted(b, quantile - 1e-12)] for b in below])
        return {name: values.reshape(-1, 1, 1) for name, values in result.items()} | {"count": np.array([self._count])}


def combined(episodes: Sequence[Statistics]) -> Statistics:
    """Statistics of one feature in all episodes, from those of each.

    Exact but for the quantiles, which are the mean of those of the episodes by the number of their frames, as LeRobot
    does it. An episode without a finite value does not count.
    """
    counts = np.array([e["count"][0] for e in episodes], np.float64)
    mean, std = (np.stack([e[name] for e in episodes]).astype(np.float64) for name in ("mean", "std"))
    weights = counts.reshape(-1, *(1 for _ in mean.shape[1:])) * np.isfinite(mean)
    total = weights.sum(axis=0)

    def average(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        sums = (np.where(np.isfinite(values), values, 0.0) * weights).sum(axis=0)
        return np.where(total > 0, sums / np.maximum(total, 1.0), np.nan)

    overall = average(mean)
    result = {
        "min": np.fmin.reduce([e["min"] for e in episodes]),
        "max": np.fmax.reduce([e["max"] for e in episodes]),
        "mean": overall,
        "std": np.sqrt(average(std**2 + (mean - overall) ** 2)),
    }
    for name in QUANTILES:
        result[name] = average(np.stack([e[name] for e in episodes]).astype(np.float64))
    return result | {"count": np.array([int(counts.sum())])}
