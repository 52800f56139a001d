"""One episode in one process, without ROS: the plant, the control tick, and the rows that come of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dagger_ros.contract import Row, RowLayout
from dagger_ros.control import ControlTick, NewestStreams
from dagger_ros.sim.plant import Plant, TaskStatus

__all__ = ["observe", "rollout"]


def rollout(
    plant: Plant,
    control: ControlTick,
    layout: RowLayout,
    *,
    seed: int,
    ticks: int,
    round_index: int = -1,
    episode: int = -1,
    on_tick: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray[Any, np.dtype[Any]], TaskStatus]:
    """Runs one episode to its end.

    Args:
        plant: Where; it is reset with `seed`.
        control: Who decides.
        layout: Row of the contract.
        seed: Of the initial state, the noise, and everything random in `control`.
        ticks: Longest episode.
        round_index: Stands in the rows.
        episode: Stands in the rows.
        on_tick: Called before each decision.

    Returns:
        (T,) rows and how the task ended.
    """
    status = plant.reset(seed)
    control.start_episode(seed)
    streams = NewestStreams(layout)
    rows = layout.new(ticks)
    rows["round"], rows["episode"], rows["seed"] = round_index, episode, seed
    previous = None
    for i in range(ticks):
        on_tick()
        row = rows[i]
        observe(plant, streams, row)
        control(row, previous)
        executed = row["executed_action"]
        status = plant.step(executed if np.isfinite(executed).all() else None)
        previous = row
        if status.done:
            return rows[: i + 1], status
    return rows, status


def observe(plant: Plant, streams: NewestStreams, row: Row) -> None:
    """Takes what is published at this tick.

    Args:
        plant: Where; call it once a tick.
        streams: Of the episode.
        row: Its times and observations are written.
    """
    now_ns = plant.time_ns
    row["time_ns"] = row["monotonic_ns"] = now_ns
    row["tick"] = plant.tick
    for sample in plant.observe():
        for index, values in sample.values:
            streams.put(index, values, sample.stamp_ns, now_ns)
    streams.fill(row)
