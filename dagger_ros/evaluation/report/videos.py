"""Videos of failed rollouts, for who wants a file to pass on; the page has pictures of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from pathlib import Path

import numpy as np

from dagger_ros.contract import load_contract
from dagger_ros.evaluation.report.pictures import Shot, drawing_pool
from dagger_ros.evaluation.trace import Trace
from dagger_ros.sim import load_plant
from dagger_ros.sim.film import Film, Picture

__all__ = ["write_videos"]

_WIDTH, _HEIGHT = 480, 360  # of each of two pictures side by side, pixels


def write_videos(
    shots: list[Shot], contract_path: Path, folder: Path, *, workers: int, on_video: Callable[[], object]
) -> list[Path]:
    """Writes an MP4 of each, at the speed at which it happened: close by at the left, everything at the right.

    Args:
        shots: Of which rollouts.
        contract_path: The contract, beside which its model lies.
        folder: Gets POLICY-PANEL-ROLLOUT.mp4.
        workers: Processes.
        on_video: Called after each.

    Returns:
        The files.

    Raises:
        DaggerError: If there is no such plant, or nothing here can draw.
    """
    load_plant(load_contract(contract_path), contract_path)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{shot.policy}-{shot.panel}-{shot.trace.stem}.mp4" for shot in shots]
    with drawing_pool(workers) as pool:
        jobs = zip(shots, paths, strict=True)
        for future in as_completed([pool.submit(_write_one, contract_path, shot.trace, path) for shot, path in jobs]):
            future.result()
            on_video()
    return paths


def _write_one(contract_path: Path, trace: Path, path: Path) -> None:
    from dagger_ros.dataset.export.video import write_video  # its libraries are of no use to a page

    film, fps = _film_of(contract_path)
    part = path.with_name(f".{path.name}.part")
    write_video(part, _frames(film, Trace.read(trace).scene.astype(float)), fps, "h264")
    part.replace(path)


@functools.lru_cache(maxsize=1)
def _film_of(contract_path: Path) -> tuple[Film, int]:
    contract = load_contract(contract_path)
    film = Film(load_plant(contract, contract_path), width=_WIDTH, height=_HEIGHT)
    return film, max(1, round(contract.timing.control_rate_hz))


def _frames(film: Film, scenes: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Iterator[Picture]:
    for scene in scenes:
        yield np.concatenate([film.close_up(scene), film.overview([scene])], axis=1)
