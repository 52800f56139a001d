"""What the benchmark found: the rows of its tables, and what they say about what was wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from job import Stage

__all__ = ["GOOD", "Figures", "Row", "first_good"]

GOOD = 0.9  # share of the panel at which the time is taken


@dataclass(frozen=True)
class Row:
    """One policy on the panel.

    Args:
        method: What trained it.
        seed: Of the run.
        stage: The policy, its labels and its time.
        rollouts: Of the panel.
        success: Share of them.
        ci95: Wilson's interval.
    """

    method: str
    seed: int
    stage: Stage
    rollouts: int
    success: float
    ci95: tuple[float, float]

    def __str__(self) -> str:
        low, high = (100 * share for share in self.ci95)
        return (
            f"{self.method:33} {self.seed:4} {self.stage.labels:8} {self.stage.wall_s:9.1f} {self.stage.cpu_s:9.1f}"
            f"   {100 * self.success:3.0f} % ({low:.0f}-{high:.0f})"
        )


_HEAD = f"{'method':33} {'seed':>4} {'labels':>8} {'wall, s':>9} {'CPU, s':>9}   panel success"


@dataclass(frozen=True)
class Figures:
    """Everything that was measured.

    Args:
        contract: Name of the task.
        panel: Name of the panel.
        machine: In words.
        labels: Of every method.
        rows: Every policy that was judged.
        bc_samples_per_s: Of 2 x 256, batches of 256, one thread; by side.
    """

    contract: str
    panel: str
    machine: str
    labels: int
    rows: tuple[Row, ...]
    bc_samples_per_s: dict[str, float]

    def at_labels(self) -> list[Row]:
        """Of each method and seed the first policy that learned from so many labels."""
        return list(self._first(lambda row: row.stage.labels >= self.labels))

    def at_good(self) -> list[Row]:
        """Of each method and seed the first policy that is good, for those that have one."""
        return list(self._first(lambda row: row.success >= GOOD))

    def _first(self, holds: Callable[[Row], bool]) -> Iterator[Row]:
        for key in dict.fromkeys((row.method, row.seed) for row in self.rows):
            of = [row for row in self.rows if (row.method, row.seed) == key and holds(row)]
            yield from sorted(of, key=lambda row: row.stage.labels)[:1]

    def text(self) -> str:
        """Tables for people."""
        lines = [
            f"{self.contract}, panel {self.panel}, {self.machine}; evaluation is in no time below",
            "",
            f"the first policy that learned from {self.labels} labels",
            _HEAD,
            *map(str, self.at_labels()),
            "",
            f"the first policy with at least {100 * GOOD:.0f} % of the panel; who is not here has none",
            _HEAD,
            *map(str, self.at_good()),
            "",
            "BC, 2 x 256, batches of 256, one thread: samples/s",
            *(f"{name:33} {rate:12,.0f}" for name, rate in self.bc_samples_per_s.items()),
        ]
        return "\n".join(lines)


def first_good(stages: Sequence[Stage], success: Callable[[Stage], float]) -> Stage | None:
    """By bisection, which takes it that what is good stays good: few of many panels have to be run.

    Args:
        stages: In the order of their training.
        success: Judges one of them.

    Returns:
        The first good one; None: the last one is not.
    """
    low, high = 0, len(stages) - 1
    if success(stages[high]) < GOOD:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if success(stages[middle]) >= GOOD else (middle + 1, high)
    return stages[low]
