"""Which rollouts get pictures, and the pictures: strips side by side as WebP, drawn in processes of their own."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagger_ros.contract import DaggerError, load_contract
from dagger_ros.evaluation.panel import RolloutResult
from dagger_ros.evaluation.report.record import Judged, Record
from dagger_ros.evaluation.runner import trace_path
from dagger_ros.evaluation.trace import Trace
from dagger_ros.sim import load_plant
from dagger_ros.sim.film import draw_strip
from dagger_ros.sim.worker import start_worker

__all__ = ["MOST_PICTURES", "Shot", "Strip", "draw", "drawing_pool", "plan"]

_WIDTH, _HEIGHT = 240, 180  # pixels of one picture
# A strip of a rollout that matters, so that it can be played, and of any other.
_LONG, _SHORT = 24, 4
# Failures of the first policy that are long; it is there to compare with.
_LONG_OF_FIRST = 8
# Of all strips together: about 6 MB, and 20 s on two cores that draw in software.
MOST_PICTURES = 2500


@dataclass(frozen=True)
class Shot:
    """The pictures that one rollout is to get.

    Args:
        panel: Name of the panel.
        policy: Name of the policy.
        trace: File of its trace.
        count: How many pictures, evenly over the rollout.
        onset: Tick that must be among them; -1: none.
    """

    panel: str
    policy: str
    trace: Path
    count: int
    onset: int

    @property
    def long(self) -> bool:
        """Whether it is one that matters."""
        return self.count == _LONG


@dataclass(frozen=True)
class Strip:
    """Pictures of one rollout.

    Args:
        ticks: Of each; the last is one more than the last decided tick.
        near: WebP, all side by side: what surrounds the moved body.
        whole: WebP: everything, with the way that the moved body went.
    """

    ticks: tuple[int, ...]
    near: bytes
    whole: bytes


def plan(record: Record) -> list[Shot]:
    """What gets pictures, the most wanted first, up to `MOST_PICTURES`.

    First what the recommended policy failed at, then what the first one failed at, both long enough to be played; then
    every other rollout of the panel that chose the policy; then of the further panels those with a failure or help.
    """
    decides, *others = record.every_sheet
    mine = [sheet.of(record.recommended) for sheet in record.every_sheet]
    wanted = [
        *_shots(mine, _LONG, _failed),
        *itertools.islice(_shots(decides.judged[:1], _LONG, _failed), _LONG_OF_FIRST),
        *_shots(decides.judged, _SHORT, _failed),
        *_shots(decides.judged, _SHORT, lambda r: r.success),
        *_shots([j for sheet in others for j in sheet.judged], _SHORT, lambda r: not r.success or r.takeovers > 0),
    ]
    planned: dict[Path, Shot] = {}
    left = MOST_PICTURES
    for shot in wanted:
        if shot.trace not in planned and shot.count <= left:
            planned[shot.trace] = shot
            left -= shot.count
    return list(planned.values())


def draw(
    shots: Sequence[Shot], contract_path: Path, *, workers: int, on_shot: Callable[[], object]
) -> tuple[dict[Path, Strip], str]:
    """Draws them.

    Args:
        shots: Which.
        contract_path: The contract, from which the model is found.
        workers: Processes. A driver that ends one of them ends no more than that.
        on_shot: Called after each.

    Returns:
        By file of the trace, and why some or all are missing; empty: none is.
    """
    strips: dict[Path, Strip] = {}
    try:
        # What cannot be drawn is said once, and before any process is started.
        load_plant(load_contract(contract_path), contract_path)
        with drawing_pool(workers) as pool:
            futures = {}
            for shot in shots:
                scenes = Trace.read(shot.trace).scene
                ticks, mark = _ticks(shot, len(scenes) - 1)
                job = pool.submit(draw_strip, contract_path, scenes, ticks, mark, width=_WIDTH, height=_HEIGHT)
                futures[job] = shot.trace, ticks
            for future in as_completed(futures):
                trace, ticks = futures[future]
                strips[trace] = Strip(ticks, *future.result())
                on_shot()
    except DaggerError as error:
        return {}, str(error)
    return strips, ""


@contextmanager
def drawing_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that draw; what was not begun when it is left is not done.

    Raises:
        DaggerError: If one of them was killed.
    """
    # Not forked: a forked child inherits the locks of other threads, but not the threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DaggerError("pictures: a process that drew was killed; the graphics driver, or no memory?") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _ticks(shot: Shot, last: int) -> tuple[tuple[int, ...], int | None]:
    """Of which ticks there are pictures, evenly and with the onset; and the onset, if there is one."""
    ticks = np.linspace(0, last, min(shot.count, last + 1)).round().astype(int)
    if not 0 <= shot.onset <= last or len(ticks) < 3:
        return tuple(ticks.tolist()), None
    if shot.onset not in ticks:
        ticks[1 + np.abs(ticks[1:-1] - shot.onset).argmin()] = shot.onset
    return tuple(ticks.tolist()), shot.onset


def _failed(result: RolloutResult) -> bool:
    return not result.success


def _shots(judged: Iterable[Judged], count: int, keep: Callable[[RolloutResult], bool]) -> Iterator[Shot]:
    for one in judged:
        for result in one.result.rollouts:
            if keep(result):
                cause = (one.causes or {}).get(result.key)
                onset = cause.onset_tick if cause else -1
                yield Shot(one.result.panel, one.policy, trace_path(one.folder, result.key), count, onset)
