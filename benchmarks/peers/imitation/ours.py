"""Our side of the benchmark: runs of the loop through the ROS graph, with the time of every policy taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from job import Stage

from dagger_ros.dagger import RoundResult, RunConfig, run
from dagger_ros.evaluation import Panel
from dagger_ros.nodes.lockstep import collect_round

Clock = Callable[[], float]


class Stopwatch:
    """The loop's `Progress`: counts from the first stage of a round to its first panel.

    So it counts all of collecting and training, reading bags and writing policies too, and no evaluation: neither
    panels, nor what compares policies after them, nor the report.

    Args:
        wall: Seconds of wall time.
        cpu: Seconds of processor time of this process; panels run in others.

    Attributes:
        stages: One for each round.
    """

    def __init__(self, out: Path, wall: Clock = time.perf_counter, cpu: Clock = time.process_time) -> None:
        self.stages: list[Stage] = []
        self._out, self._wall, self._cpu = out, wall, cpu
        self._begun: tuple[float, float] | None = None
        self._spent = 0.0, 0.0

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Begins to count, or ends with a panel."""
        now = self._wall(), self._cpu()
        if ": panel" in name and self._begun is not None:
            wall_s, cpu_s = (s + n - b for s, n, b in zip(self._spent, now, self._begun, strict=True))
            self._spent, self._begun = (wall_s, cpu_s), None
        elif ": panel" not in name and self._begun is None:
            self._begun = now
        yield lambda _steps: None

    def round_done(self, result: RoundResult) -> None:
        """Keeps what the policy took."""
        self.stages.append(Stage(str(self._out / "policies" / result.policy), result.labels_total, *self._spent))


def loop(config: RunConfig, contract: Path, out: Path, panel: Panel, *, workers: int) -> list[Stage]:
    """One run, judged on one panel after every round, which nothing is chosen by here."""
    watch = Stopwatch(out)
    run(config, contract, out, [panel], None, collect=collect_round, progress=watch, resume=False, workers=workers)
    return watch.stages
