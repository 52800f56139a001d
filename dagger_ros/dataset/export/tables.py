"""Frames as one file: CSV or Parquet for tables, HDF5 as robomimic reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dagger_ros.contract import Contract, DaggerError, Label, RowLayout
from dagger_ros.contract.files import sync_folder
from dagger_ros.contract.schema import ImageStream
from dagger_ros.dataset.bag import part_of
from dagger_ros.dataset.export.columns import Column, frame_columns
from dagger_ros.dataset.export.pictures import Pixels, pictures
from dagger_ros.dataset.frames import EpisodeFrames, View
from dagger_ros.dataset.rows import Rows

__all__ = ["FILES", "export_file"]

# robomimic's number of its plain (gym) environments, and its names of two of our splits.
_ENVIRONMENT_TYPE = 2
_MASKS = {"train": "train", "validation": "valid"}


def export_file(out: Path, format_: str, episodes: Iterable[EpisodeFrames], contract: Contract, view: View) -> int:
    """Writes the frames of a view into one file, which appears whole.

    Args:
        out: The file; must not exist.
        format_: One of `FILES`.
        episodes: As `read_frames` gives them.
        contract: Of all of them.
        view: Which frames.

    Returns:
        How many frames.

    Raises:
        DaggerError: If the file is there, or there are no frames.
    """
    if out.exists():
        raise DaggerError(f"{out}: expected no file of this name yet; there is one, and it is left as it is")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(out)
    try:
        frames = FILES[format_](part, episodes, contract, view)
        if not frames:
            raise DaggerError(f"{out}: expected frames of view {view.value}, there are none")
        sync_folder(part)  # does the same to a file
        part.replace(out)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DaggerError(f"{out}: expected a disk that takes the file; {error.strerror or error}") from error
        raise
    sync_folder(out.parent)
    return frames


def _write_table(
    write: Callable[[pa.Table, Path], None],
    part: Path,
    episodes: Iterable[EpisodeFrames],
    contract: Contract,
    view: View,
) -> int:
    table = _table(episodes, contract, view)
    if table is None:
        return 0
    write(table, part)
    return int(table.num_rows)


def _table(episodes: Iterable[EpisodeFrames], contract: Contract, view: View) -> pa.Table | None:
    """A column for each value, with its unit in brackets behind its name."""
    layout = RowLayout(contract)
    tables = []
    for episode in episodes:
        wanted = np.concatenate([np.arange(run.start, run.stop) for run in episode.runs(view)] or [np.empty(0, int)])
        flat = {
            name: pa.array(np.ascontiguousarray(values))
            for column in frame_columns(episode, layout)
            for name, values in _values(column.of(wanted))
        }
        if len(wanted):
            tables.append(pa.table(flat))
    return pa.concat_tables(tables) if tables else None


def _values(column: Column) -> Iterable[tuple[str, np.ndarray[Any, np.dtype[Any]]]]:
    if not column.names:
        unit = column.units[0]
        yield column.name if unit in ("1", "-") else f"{column.name} [{unit}]", column.values
    for i, name in enumerate(column.names):
        yield f"{column.name}.{name} [{column.units[i]}]", column.values[:, i]


def _write_robomimic(part: Path, episodes: Iterable[EpisodeFrames], contract: Contract, view: View) -> int:
    """A demonstration for each run of frames; actions within the contract's bounds become -1 to 1."""
    layout = RowLayout(contract)
    lower, upper = (np.array([getattr(d, end) for d in contract.action.dimensions_]) for end in ("lower", "upper"))
    total, masks = 0, dict[str, list[bytes]]()
    with _Disk(part) as disk, h5py.File(disk, "w", track_order=True) as file:
        data = file.create_group("data")
        for episode in episodes:
            columns = {column.name: column for column in frame_columns(episode, layout)}
            runs = episode.runs(view)
            seen = {name: pictures(episode, runs, name, contract) for name in contract.cameras}
            for run in runs:
                disk.check()
                rows, length = episode.rows[run], run.stop - run.start
                name = f"demo_{len(data)}"
                demo = data.create_group(name)
                scaled = 2 * (columns["action"].of(run).values - lower) / (upper - lower) - 1
                done = np.zeros(length)
                done[-1] = run.stop == len(episode.rows)
                arrays = {
                    "actions": np.clip(scaled, -1, 1).astype(np.float32),
                    "actions_abs": columns["action"].of(run).values,
                    "rewards": done * episode.info.success,
                    "dones": done,
                    "states": rows["privileged"],
                    "action_modes": _action_modes(rows, episode.round.round),
                    **{
                        f"dagger/{n.removeprefix('dagger.')}": c.of(run).values
                        for n, c in columns.items()
                        if n.startswith("dagger.") and c.values.dtype.kind != "U"
                    },
                }
                for i, stream in enumerate(layout.streams):
                    if layout.seen_by_policy[i]:
                        arrays[f"obs/{stream}"] = rows["observation"][:, layout.slices[i]].astype(np.float32)
                for key, values in arrays.items():
                    demo.create_dataset(key, data=values, track_times=False)
                for camera, pixels in seen.items():
                    _write_pictures(demo, f"obs/{camera}", islice(pixels, length), length, contract.cameras[camera])
                demo.attrs["num_samples"] = length
                about: dict[str, Any] = {"round": episode.round.round, "episode": episode.entry.episode}
                about |= {"seed": episode.entry.seed, "operator_id": episode.info.operator_id}
                about |= {"policy": episode.info.policy}
                demo.attrs["ep_meta"] = json.dumps(about | {"failure": episode.info.failure})
                total += length
                split = episode.entry.split
                for mask in (_MASKS.get(split, split), f"round_{episode.round.round:03d}"):
                    masks.setdefault(mask, []).append(name.encode())
        data.attrs["total"] = total
        units = [d.unit for d in contract.action.dimensions_]
        kwargs = {"contract_sha256": contract.sha256, "action_units": units, "licence": contract.licence}
        environment = {"env_name": contract.name, "type": _ENVIRONMENT_TYPE, "env_kwargs": kwargs}
        data.attrs["env_args"] = json.dumps(environment)
        for mask, names in masks.items():
            file.create_dataset(f"mask/{mask}", data=np.array(names, dtype="S"), track_times=False)
    return total


class _Disk:
    """A file for HDF5, which crashes where a disk does not take what it writes: errors are kept until it is done.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None
        self.read, self.readinto = self._file.read, self._file.readinto
        self.seek, self.tell = self._file.seek, self._file.tell
        self.truncate, self.flush = self._file.truncate, self._file.flush

    def write(self, data: Any) -> int:
        """Writes all of it, or keeps why not."""
        left = memoryview(data)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return len(data)

    def check(self) -> None:
        """Raises what was kept."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> _Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.check()


def _write_pictures(demo: h5py.Group, key: str, pixels: Iterable[Pixels], length: int, camera: ImageStream) -> None:
    """(length, height, width, 3) uint8, picture by picture; each one is found and unpacked without the others."""
    size = (camera.height, camera.width, 3)
    data = demo.create_dataset(
        key, (length, *size), np.uint8, chunks=(1, *size), compression="gzip", compression_opts=1, track_times=False
    )
    for i, picture in enumerate(pixels):
        data[i] = picture


def _action_modes(rows: Rows, round_: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """As Sirius has them: 1 where the expert took over, 0 where it did not, -1 in a demonstration."""
    by_expert = np.full(len(rows), -1, np.int32) if round_ == 0 else np.sign(rows["intervention"])
    return np.where(rows["label_source"] == Label.EXPERT, by_expert, 0)


FILES: dict[str, Callable[..., int]] = {
    "csv": partial(_write_table, pa.csv.write_csv),
    "parquet": partial(_write_table, pq.write_table),
    "robomimic": _write_robomimic,
}
