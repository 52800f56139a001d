"""Action chunks at run time: which action of which chunk is proposed for a tick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dagger_ros.contract import NEVER_NS, Contract, DaggerError
from dagger_ros.policy.mlp import Array

__all__ = ["LONGEST_HORIZON", "ChunkMemory", "ChunkSettings"]

LONGEST_HORIZON = 16
# Of a period: proposals whose stamps are further apart have a tick between them for which there was none.
_GAP_PERIODS = 1.5


@dataclass(frozen=True)
class ChunkSettings:
    """How a chunk, the actions for this tick and the next ones, becomes the action of each tick.

    Args:
        horizon: Actions in a chunk, H, from 1 to 16.
        use: `ensembled`: the mean over all chunks that reach to the tick. `plain`: a chunk is followed to its end, then
            the next one begins.
        decay: Of `ensembled`: the i-th oldest of n chunks, i from 0, weighs exp(-decay i); 0: all the same. Source:
            Zhao et al. (2023), arXiv 2304.13705, m.

    Raises:
        DaggerError: If one of them cannot be.
    """

    horizon: int = 1
    use: str = "ensembled"
    decay: float = 0.01

    def __post_init__(self) -> None:
        if not isinstance(self.horizon, int) or not 1 <= self.horizon <= LONGEST_HORIZON:
            raise DaggerError(f"horizon: expected a whole number from 1 to {LONGEST_HORIZON}, got {self.horizon}")
        if self.use not in ("ensembled", "plain"):
            raise DaggerError(f"chunk use: expected ensembled or plain, got {self.use!r}")
        if not 0 <= self.decay < np.inf:
            raise DaggerError(f"chunk decay: expected a number >= 0, got {self.decay}")


class ChunkMemory:
    """The chunks that reach to the present tick. Which tick that is follows from the stamps of the observations alone.

    So a rollout, the graph and a replay remember the same. Nothing is remembered over a tick without an observation,
    a stamp that goes back, or a chunk that is not finite. A stamp that comes again replaces what was made at it.

    Args:
        settings: How chunks are used.
        contract: Says how long a tick is.
        action_size: A.
    """

    def __init__(self, settings: ChunkSettings, contract: Contract, action_size: int) -> None:
        horizon = settings.horizon
        self._ensembled, self._horizon = settings.use == "ensembled", horizon
        self._period_ns = contract.timing.period_ns
        fastest_hz = max(s.rate_hz for s in contract.streams.values() if not s.privileged)
        self._longest_ns = _GAP_PERIODS * max(self._period_ns, 1e9 / fastest_hz)
        self._weights = np.exp(-settings.decay * np.arange(horizon))
        self._chunks = np.zeros((horizon, horizon, action_size))
        self._stamps_ns = np.zeros(horizon, np.int64)
        self._places = np.arange(horizon)
        self.clear()

    def clear(self) -> None:
        """Forgets every chunk."""
        self._count, self._last_ns = 0, NEVER_NS

    def propose(self, chunk: Array, stamp_ns: int, out: Array) -> None:
        """Takes the chunk of a tick and gives the action of that tick.

        Args:
            chunk: (H, A) actions for this tick and the next ones; copied.
            stamp_ns: Of the newest observation that it was made of, ns; -1: there was none.
            out: (A,) float64, the caller keeps it.
        """
        if stamp_ns == NEVER_NS or not np.isfinite(chunk).all():
            self.clear()
            out[:] = chunk[0]
            return
        if not 0 <= stamp_ns - self._last_ns <= self._longest_ns:
            self._count = 0
        self._last_ns = stamp_ns
        steps = self._steps(stamp_ns)
        past = int(np.count_nonzero(steps >= self._horizon))
        if self._ensembled or past == self._count:
            again = self._count > past and self._stamps_ns[self._count - 1] == stamp_ns
            # One more must find room, also where observations come faster than ticks.
            self._drop(max(past, self._count - again + 1 - self._horizon))
            self._count += not again
            self._chunks[self._count - 1], self._stamps_ns[self._count - 1] = chunk, stamp_ns
            steps = self._steps(stamp_ns)
        n = self._count
        weights = self._weights[:n]
        out[:] = weights @ self._chunks[self._places[:n], steps] / weights.sum()

    def _steps(self, stamp_ns: int) -> Array:
        """(n,) int: how many ticks ago each chunk was made, the oldest first."""
        ages = (stamp_ns - self._stamps_ns[: self._count]) / self._period_ns
        steps: Array = np.rint(ages).astype(np.int64)
        return steps

    def _drop(self, count: int) -> None:
        """Forgets the oldest ones."""
        if count > 0:
            left = self._count - count
            self._chunks[:left] = self._chunks[count : self._count].copy()
            self._stamps_ns[:left] = self._stamps_ns[count : self._count].copy()
            self._count = left
