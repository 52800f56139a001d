"""Writes the files of a LeRobotDataset v3.0, one round after the other; `lerobot.py` says what they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dagger_ros import __version__
from dagger_ros.contract import Contract, DaggerError, RowLayout
from dagger_ros.contract.files import file_sha256, write_file
from dagger_ros.dataset.export.columns import Column, frame_columns
from dagger_ros.dataset.export.pictures import Pixels, pictures
from dagger_ros.dataset.export.statistics import ImageStatistics, combined, statistics_of
from dagger_ros.dataset.export.video import pixel_format, write_video
from dagger_ros.dataset.frames import EpisodeFrames, StreamQuality, View, read_frames
from dagger_ros.dataset.rounds import load_round, manifest_sha256

__all__ = ["ABOUT", "SCHEMA", "ExportSettings", "Writer", "software"]

ABOUT, SCHEMA = "meta/dagger_ros.json", "dagger_ros.dataset/3"
_FILES_PER_CHUNK = 1000
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
# Pictures of an episode that its statistics are taken from, evenly chosen.
_MOST_PICTURES = 100


@dataclass(frozen=True)
class ExportSettings:
    """What of the rounds stands in a dataset.

    Args:
        view: Which frames.
        split: Of which episodes; one of `rounds.SPLITS`.
        codec: Of the videos; one of `video.CODECS`.
    """

    view: View = View.LABELS
    split: str = "train"
    codec: str = "h264"


class Writer:
    """Adds one round after the other to a dataset."""

    def __init__(
        self, folder: Path, contract: Contract, settings: ExportSettings, fps: int, rounds: list[dict[str, Any]]
    ) -> None:
        self._folder, self._contract, self._settings, self._fps = folder, contract, settings, fps
        self._layout = RowLayout(contract)
        self.rounds = list(rounds)
        self.frames = sum(r["frames"] for r in rounds)
        self._episodes = sum(r["episodes"] for r in rounds)
        self._features: dict[str, dict[str, Any]] = {}
        self._units: dict[str, list[str]] = {}
        self._statistics: dict[str, list[dict[str, Any]]] = {}
        if rounds:
            self._features = _described(folder / "meta/info.json", "features")
            self._units = _described(folder / ABOUT, "units")
            for file in sorted((folder / "meta/episodes").glob("*/*.parquet")):
                self._remember(pq.read_table(file).to_pylist())

    def add(self, folder: Path) -> None:
        """Writes the files of one round."""
        file_index = sum(bool(r["frames"]) for r in self.rounds)
        data, episodes = _path(_DATA, file_index), _path(_EPISODES, file_index)
        tables: list[pa.Table] = []
        rows: list[dict[str, Any]] = []
        left_out = {"not whole": 0, "not in the view": 0}
        qualities: dict[str, list[StreamQuality]] = {}
        first = self._episodes
        for episode in read_frames([folder], self._contract, (self._settings.split,)):
            runs = episode.runs(self._settings.view)
            columns = frame_columns(episode, self._layout)
            seen = self._videos(episode, runs)
            kept = 0
            for run, pixels in zip(runs, seen, strict=True):
                arrays = [*(column.of(run) for column in columns), *self._counted(run.stop - run.start)]
                tables.append(self._table(arrays))
                rows.append(self._row(episode, run, arrays, file_index, pixels))
                kept += run.stop - run.start
                self.frames += run.stop - run.start
                self._episodes += 1
            left_out["not whole"] += int((~episode.whole).sum())
            left_out["not in the view"] += int(episode.whole.sum()) - kept
            for name, quality in episode.quality.items():
                qualities.setdefault(name, []).append(quality)
        if rows:
            _write_table(self._folder / data, tables)
            _write_table(self._folder / episodes, [pa.Table.from_pylist(rows)])
            self._remember(rows)
            written = [data, episodes, *self._video_files(range(first, self._episodes))]
        else:
            written = []
        manifest = load_round(folder, self._contract)
        self.rounds.append(
            {
                "round": manifest.round,
                "manifest_sha256": manifest_sha256(folder),
                "episodes": self._episodes - first,
                "frames": sum(row["length"] for row in rows),
                "left_out": left_out,
                "streams": {name: StreamQuality.together(parts).counts for name, parts in qualities.items()},
                "files": {name: file_sha256(self._folder / name) for name in sorted(written)},
            }
        )

    def finish(self, contract_text: bytes) -> None:
        """Writes what is about all rounds."""
        meta = self._folder / "meta"
        info = {
            "codebase_version": "v3.0",
            "robot_type": self._contract.robot.body,
            "total_episodes": self._episodes,
            "total_frames": self.frames,
            "total_tasks": 1,
            "chunks_size": _FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": _DATA,
            "video_path": _VIDEO if self._contract.cameras else None,
            "features": self._features,
        }
        about = {
            "schema": SCHEMA,
            **asdict(self._settings),
            "contract": self._contract.name,
            "contract_sha256": self._contract.sha256,
            "licence": self._contract.licence,
            "software": software(),
            "units": self._units,
            "rounds": self.rounds,
        }
        statistics = {
            feature: {name: values.tolist() for name, values in combined(episodes).items()}
            for feature, episodes in self._statistics.items()
        }
        for name, content in (("info", info), ("stats", statistics), ("dagger_ros", about)):
            write_file(meta / f"{name}.json", (json.dumps(content, indent=1) + "\n").encode())
        write_file(meta / "contract.yaml", contract_text)
        (meta / "tasks.parquet").unlink(missing_ok=True)
        _write_table(meta / "tasks.parquet", [_tasks(self._contract.task.description)])

    @property
    def _cameras(self) -> dict[str, str]:
        """Feature of each camera."""
        return {name: f"observation.images.{name}" for name in self._contract.cameras}

    def _video_files(self, episodes: range) -> list[str]:
        return [_path(_VIDEO, i, video_key=key) for i in episodes for key in self._cameras.values()]

    def _videos(self, episode: EpisodeFrames, runs: Sequence[slice]) -> list[dict[str, dict[str, Any]]]:
        """Writes the videos of each run; gives the statistics of the pixels by feature."""
        result: list[dict[str, dict[str, Any]]] = [{} for _ in runs]
        for name, key in self._cameras.items():
            seen = pictures(episode, runs, name, self._contract)
            for i, run in enumerate(runs):
                length, statistics = run.stop - run.start, ImageStatistics()
                chosen = np.linspace(0, length - 1, min(length, _MOST_PICTURES)).round().astype(int)
                path = self._folder / _path(_VIDEO, self._episodes + i, video_key=key)
                path.parent.mkdir(parents=True, exist_ok=True)
                some = _watched(islice(seen, length), set(chosen.tolist()), statistics)
                write_video(path, some, self._fps, self._settings.codec)
                result[i][key] = statistics.result()
            camera = self._contract.cameras[name]
            self._features[key] = {
                "dtype": "video",
                "shape": [camera.height, camera.width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": camera.height,
                    "video.width": camera.width,
                    "video.codec": self._settings.codec,
                    "video.pix_fmt": pixel_format(camera.width, camera.height),
                    "video.is_depth_map": False,
                    "video.fps": self._fps,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
        return result

    def _table(self, columns: Sequence[Column]) -> pa.Table:
        """The frames of one episode; keeps what `meta/` says of their columns."""
        arrays = {}
        for column in columns:
            shape = [column.values.shape[1]] if column.values.ndim == 2 else [1]
            dtype = "string" if column.values.dtype.kind == "U" else column.values.dtype.name
            self._features[column.name] = {"dtype": dtype, "shape": shape, "names": list(column.names) or None}
            self._units[column.name] = list(column.units)
            flat = pa.array(np.ascontiguousarray(column.values).ravel())
            arrays[column.name] = flat if shape == [1] else pa.FixedSizeListArray.from_arrays(flat, shape[0])
        return pa.table(arrays)

    def _counted(self, length: int) -> list[Column]:
        """The columns by which LeRobot counts the frames of the next episode."""
        frame = np.arange(length)
        counted = {
            "frame_index": frame,
            "episode_index": np.full(length, self._episodes),
            "index": frame + self.frames,
            "task_index": np.zeros(length, np.int64),
        }
        timestamp = Column("timestamp", (frame / self._fps).astype(np.float32), (), ("s",))
        return [timestamp, *(Column(name, values, (), ("1",)) for name, values in counted.items())]

    def _row(
        self,
        episode: EpisodeFrames,
        run: slice,
        columns: Sequence[Column],
        file_index: int,
        pixels: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        """What stands of one episode in `meta/episodes`."""
        length = run.stop - run.start
        info, entry, round_ = episode.info, episode.entry, episode.round
        chunk, file = divmod(file_index, _FILES_PER_CHUNK)
        row: dict[str, Any] = {
            "episode_index": self._episodes,
            "tasks": [self._contract.task.description],
            "length": length,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "meta/episodes/chunk_index": chunk,
            "meta/episodes/file_index": file,
            "dagger/round": round_.round,
            "dagger/rule": round_.rule,
            "dagger/episode": entry.episode,
            "dagger/first_tick": int(episode.rows["tick"][run.start]),
            "dagger/seed": entry.seed,
            "dagger/split": entry.split,
            "dagger/outcome": "success" if info.success else "failure",
            "dagger/failure": info.failure,
            "dagger/metric": float("nan") if info.metric is None else info.metric,
            "dagger/operator_id": info.operator_id,
            "dagger/policy": info.policy,
            "dagger/policy_sha256": info.policy_sha256,
            "dagger/recovered": info.recovered,
            "dagger/robot": info.source.robot if info.source else self._contract.robot.body,
            "dagger/namespace": info.namespace,
            "dagger/recorded_contract_sha256": info.contract_sha256,
            "dagger/recorded_run": info.source.run if info.source else "",
            "dagger/recorded_round": info.source.round if info.source else round_.round,
            "dagger/recorded_episode": info.source.episode if info.source else entry.episode,
        }
        for key in self._cameras.values():
            row |= {
                f"videos/{key}/chunk_index": self._episodes // _FILES_PER_CHUNK,
                f"videos/{key}/file_index": self._episodes % _FILES_PER_CHUNK,
                f"videos/{key}/from_timestamp": 0.0,
                f"videos/{key}/to_timestamp": length / self._fps,
            }
        statistics = {c.name: statistics_of(c.values) for c in columns if c.values.dtype.kind != "U"} | dict(pixels)
        for feature, values in statistics.items():
            row |= {f"stats/{feature}/{name}": value.tolist() for name, value in values.items()}
        return row

    def _remember(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keeps the statistics of episodes."""
        for row in rows:
            found: dict[str, dict[str, Any]] = {}
            for key, value in row.items():
                if key.startswith("stats/"):
                    _, feature, name = key.split("/")
                    found.setdefault(feature, {})[name] = np.array(value)
            for feature, statistics in found.items():
                self._statistics.setdefault(feature, []).append(statistics)


def _described(path: Path, key: str) -> dict[str, Any]:
    """What a file of `meta/` that was exported says of each feature."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DaggerError(f"{path}: expected the file that was exported; it is gone or changed: {error}") from error


def _watched(seen: Iterator[Pixels], chosen: set[int], statistics: ImageStatistics) -> Iterator[Pixels]:
    for i, pixels in enumerate(seen):
        if i in chosen:
            statistics.add(pixels)
        yield pixels


def _tasks(task: str) -> pa.Table:
    """The one task; LeRobot looks it up through pandas, whose index it is."""
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": n, "field_name": n, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for n, (kind, numpy) in kinds.items()
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": pa.array([task])})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _path(template: str, index: int, **names: str) -> str:
    chunk, file = divmod(index, _FILES_PER_CHUNK)
    return template.format(chunk_index=chunk, file_index=file, **names)


def _write_table(path: Path, tables: Sequence[pa.Table]) -> None:
    """Writes a table, one row group for each part. The file is a new one: one that is there may be linked elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables[0].schema, compression="snappy") as writer:
        for table in tables:
            writer.write_table(table)


def software() -> dict[str, str]:
    """Versions that the bytes of a dataset depend on."""
    return {"dagger_ros": __version__, "pyarrow": pa.__version__, "numpy": np.__version__, "av": av.__version__}
