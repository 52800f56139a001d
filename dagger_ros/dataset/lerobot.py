"""A LeRobotDataset v3.0 of a run: what LeRobot reads as it is, with where every frame comes from.

<dataset>/
meta/info.json  stats.json  tasks.parquet  episodes/chunk-000/file-000.parquet
data/chunk-000/file-000.parquet                                one file for each round that has frames
videos/observation.images.<camera>/chunk-000/file-000.mp4      one file for each episode
meta/dagger_ros.json  contract.yaml                            rounds and hashes, units, what was left out

An episode of the dataset is a run of frames without a break: a whole recorded episode, or one correction in it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
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
from dagger_ros.contract import Contract, DaggerError, RowLayout, load_contract
from dagger_ros.contract.files import file_sha256, inside, replace_folder, write_file
from dagger_ros.contract.messages import read_image
from dagger_ros.dataset.bag import typestore_of
from dagger_ros.dataset.columns import Column, frame_columns
from dagger_ros.dataset.contents import read_in_turn
from dagger_ros.dataset.frames import EpisodeFrames, View, read_frames
from dagger_ros.dataset.rounds import load_round, manifest_sha256, round_folder
from dagger_ros.dataset.statistics import ImageStatistics, combined, statistics_of
from dagger_ros.dataset.video import write_video

__all__ = ["SPLITS", "ExportSettings", "export_lerobot", "load_columns", "verify_lerobot"]

SPLITS = ("train", "validation", "stress")
_ABOUT, _SCHEMA = "meta/dagger_ros.json", "dagger_ros.dataset/1"
_FILES_PER_CHUNK = 1000
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
# Pictures of an episode that its statistics are taken from, evenly chosen.
_MOST_PICTURES = 100


@dataclass(frozen=True)
class ExportSettings:
    """What of the rounds stands in a dataset.

    Args:
        view: Which frames.
        split: Of which episodes; one of `SPLITS`.
        codec: Of the videos; one of `video.CODECS`.
    """

    view: View = View.LABELS
    split: str = "train"
    codec: str = "h264"


def export_lerobot(run: Path, contract_path: Path, out: Path, settings: ExportSettings) -> list[dict[str, Any]]:
    """Writes the finished rounds of a run as a dataset, or adds those that it does not have yet.

    Files that are there stay as they are, but for the tables of contents in `meta/`. The dataset appears whole.

    Args:
        run: Folder with `rounds/`.
        contract_path: Of the rounds.
        out: Folder of the dataset.
        settings: Those that the dataset has, if there is one.

    Returns:
        For each round in the dataset what `meta/dagger_ros.json` says of it.

    Raises:
        DaggerError: If `out` is something else, was changed, or is of other rounds; if there is nothing to write.
    """
    contract = load_contract(contract_path)
    fps = round(contract.timing.control_rate_hz)
    if fps != contract.timing.control_rate_hz:
        raise DaggerError(
            f"{contract_path}: timing.control_rate_hz: expected a whole number, which is all that a LeRobotDataset "
            f"can say, found {contract.timing.control_rate_hz:g}"
        )
    folders: list[Path] = []
    while round_folder(run, len(folders)).exists():
        folders.append(round_folder(run, len(folders)))
    if not folders:
        raise DaggerError(f"{run}: expected the folder of a run, with rounds/000; there is none")
    there = _read_about(out, contract, settings, folders) if out.exists() else []
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if there:
        shutil.copytree(out, part, copy_function=_link)
    (part / "meta").mkdir(parents=True, exist_ok=True)
    writer = _Writer(part, contract, settings, fps, there)
    for folder in folders[len(there) :]:
        writer.add(folder)
    if not writer.frames:
        shutil.rmtree(part)
        raise DaggerError(
            f"{run}: expected frames of view {settings.view.value} in split {settings.split}; there are none in "
            f"{len(folders)} rounds"
        )
    writer.finish(contract_path.read_bytes())
    replace_folder(part, out)
    return writer.rounds


def verify_lerobot(run: Path, contract_path: Path, out: Path) -> None:
    """Makes a dataset again from the bags, and compares every byte.

    Raises:
        DaggerError: If a file is not as the bags have it, is missing, or is one too many.
    """
    about = _about(out)
    settings = ExportSettings(View(about["view"]), about["split"], about["codec"])
    with tempfile.TemporaryDirectory(prefix="dagger_ros_verify_") as folder:
        again = Path(folder) / "dataset"
        export_lerobot(run, contract_path, again, settings)
        expected, found = (_files(root) for root in (again, out))
        for name in sorted(expected | found):
            if name not in found or name not in expected:
                raise DaggerError(f"{out / name}: {'expected this file' if name in expected else 'a file too many'}")
            if (again / name).read_bytes() != (out / name).read_bytes():
                same = about["software"] == _software()
                why = "" if same else f"; it was written by {about['software']}, this is {_software()}"
                raise DaggerError(f"{out / name}: expected what the bags give; it differs{why}")


def load_columns(out: Path, names: Sequence[str]) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Columns of a dataset as arrays, without a Python object for each value.

    Args:
        out: Folder of a dataset.
        names: Of columns with numbers, such as `observation.state` and `action`.

    Returns:
        By name (N,) or (N, n), in the order of the frames.
    """
    files = sorted((out / "data").glob("*/*.parquet"))
    table = pa.concat_tables(pq.read_table(file, columns=list(names)) for file in files)
    result = {}
    for name in names:
        column = table.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            result[name] = column.flatten().to_numpy().reshape(len(column), -1)
        else:
            result[name] = column.to_numpy(zero_copy_only=False)
    return result


class _Writer:
    """Adds one round after the other to a dataset."""

    def __init__(
        self, folder: Path, contract: Contract, settings: ExportSettings, fps: int, rounds: list[dict[str, Any]]
    ) -> None:
        self._folder, self._contract, self._settings, self._fps = folder, contract, settings, fps
        self._layout = RowLayout(contract)
        self._typestore = typestore_of(())
        self.rounds = list(rounds)
        self.frames = sum(r["frames"] for r in rounds)
        self._episodes = sum(r["episodes"] for r in rounds)
        self._features: dict[str, dict[str, Any]] = {}
        self._units: dict[str, list[str]] = {}
        self._statistics: dict[str, list[dict[str, Any]]] = {}
        if rounds:
            self._features = json.loads((folder / "meta/info.json").read_text())["features"]
            self._units = json.loads((folder / _ABOUT).read_text())["units"]
            for file in sorted((folder / "meta/episodes").glob("*/*.parquet")):
                self._remember(pq.read_table(file).to_pylist())

    def add(self, folder: Path) -> None:
        """Writes the files of one round."""
        file_index = sum(bool(r["frames"]) for r in self.rounds)
        data, episodes = _path(_DATA, file_index), _path(_EPISODES, file_index)
        tables: list[pa.Table] = []
        rows: list[dict[str, Any]] = []
        left_out = {"not whole": 0, "not in the view": 0}
        streams: dict[str, dict[str, Any]] = {}
        first = self._episodes
        for episode in read_frames([folder], self._contract, (self._settings.split,)):
            runs = episode.runs(self._settings.view)
            columns = frame_columns(episode, self._layout)
            seen = self._videos(episode, runs)
            kept = 0
            for run, pictures in zip(runs, seen, strict=True):
                tables.append(self._table([column.of(run) for column in columns]))
                rows.append(self._row(episode, run, [column.of(run) for column in columns], data, pictures))
                kept += run.stop - run.start
                self.frames += run.stop - run.start
                self._episodes += 1
            left_out["not whole"] += int((~episode.whole).sum())
            left_out["not in the view"] += int(episode.whole.sum()) - kept
            for name, quality in episode.quality.items():
                streams.setdefault(name, {"messages": 0, "gaps": 0, "missing": 0, "stale_ticks": 0})
                for key in streams[name]:
                    streams[name][key] += getattr(quality, key)
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
                "streams": streams,
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
            "schema": _SCHEMA,
            **asdict(self._settings),
            "contract": self._contract.name,
            "contract_sha256": self._contract.sha256,
            "licence": self._contract.licence,
            "software": _software(),
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
            order = [i for run in runs for i in episode.images[name][run].tolist()]
            pictures = self._pictures(name, read_in_turn(episode.bag, order))
            for i, run in enumerate(runs):
                length, statistics = run.stop - run.start, ImageStatistics()
                chosen = np.linspace(0, length - 1, min(length, _MOST_PICTURES)).round().astype(int)
                path = self._folder / _path(_VIDEO, self._episodes + i, video_key=key)
                path.parent.mkdir(parents=True, exist_ok=True)
                some = _watched(islice(pictures, length), set(chosen.tolist()), statistics)
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
                    "video.pix_fmt": "yuv420p" if camera.width % 2 == camera.height % 2 == 0 else "yuv444p",
                    "video.is_depth_map": False,
                    "video.fps": self._fps,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
        return result

    def _pictures(self, name: str, messages: Iterator[bytes]) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        """(height, width, 3) uint8 of each message; one that comes again is decoded once."""
        camera = self._contract.cameras[name]
        last, pixels = b"", np.empty(0, np.uint8)
        for data in messages:
            if data is not last:
                try:
                    pixels = read_image(camera, self._typestore.deserialize_cdr(data, camera.type))
                except (ValueError, OSError) as error:
                    raise DaggerError(f"camera {name}: {error}") from error
                last = data
            yield pixels

    def _table(self, columns: list[Column]) -> pa.Table:
        """The frames of one episode; keeps what `meta/` says of their columns."""
        arrays = {}
        for column in columns:
            vector = column.values.ndim == 2 and column.values.shape[1] > 1
            text = column.values.dtype.kind == "U"
            dtype = "string" if text else column.values.dtype.name
            names = list(column.names) or None
            shape = [column.values.shape[1]] if column.values.ndim == 2 else [1]
            self._features[column.name] = {"dtype": dtype, "shape": shape, "names": names}
            self._units[column.name] = list(column.units)
            flat = pa.array(np.ascontiguousarray(column.values).ravel())
            arrays[column.name] = pa.FixedSizeListArray.from_arrays(flat, shape[0]) if vector else flat
        for name, values in self._counted(len(columns[0].values)).items():
            self._features[name] = {"dtype": _BOOKKEEPING[name], "shape": [1], "names": None}
            arrays[name] = pa.array(values)
        self._units |= {"timestamp": ["s"]}
        return pa.table(arrays)

    def _counted(self, length: int) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """The columns by which LeRobot counts the frames of the next episode."""
        frame = np.arange(length)
        return {
            "timestamp": (frame / self._fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, self._episodes),
            "index": frame + self.frames,
            "task_index": np.zeros(length, np.int64),
        }

    def _row(
        self,
        episode: EpisodeFrames,
        run: slice,
        columns: list[Column],
        data: str,
        pictures: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        """What stands of one episode in `meta/episodes`."""
        length = run.stop - run.start
        info, entry, round_ = episode.info, episode.entry, episode.round
        chunk, file = (int(part.rpartition("-")[2].removesuffix(".parquet")) for part in data.split("/")[1:])
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
        }
        for key in self._cameras.values():
            row |= {
                f"videos/{key}/chunk_index": self._episodes // _FILES_PER_CHUNK,
                f"videos/{key}/file_index": self._episodes % _FILES_PER_CHUNK,
                f"videos/{key}/from_timestamp": 0.0,
                f"videos/{key}/to_timestamp": length / self._fps,
            }
        numbers = {column.name: column.values for column in columns if column.values.dtype.kind != "U"}
        numbers |= self._counted(length)
        statistics = {name: statistics_of(values) for name, values in numbers.items()} | dict(pictures)
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


def _watched(
    pictures: Iterator[np.ndarray[Any, np.dtype[np.uint8]]], chosen: set[int], statistics: ImageStatistics
) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    for i, pixels in enumerate(pictures):
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
    """Writes a table, one row group for each part; never into a file that is there, which may be another's too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables[0].schema, compression="snappy") as writer:
        for table in tables:
            writer.write_table(table)


def _link(source: str, target: str) -> None:
    """The same file under another name; a copy where the disk has no such links."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def _software() -> dict[str, str]:
    return {"dagger_ros": __version__, "pyarrow": pa.__version__, "numpy": np.__version__, "av": av.__version__}


def _about(out: Path) -> dict[str, Any]:
    try:
        about = json.loads((out / _ABOUT).read_text(encoding="utf-8"))
        if about["schema"] != _SCHEMA:
            raise ValueError(f"found {about['schema']}")
        return dict(about)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DaggerError(f"{out}: expected a dataset of dagger-ros export ({_ABOUT}, {_SCHEMA}); {error}") from error


def _read_about(
    out: Path, contract: Contract, settings: ExportSettings, folders: Sequence[Path]
) -> list[dict[str, Any]]:
    """The rounds that a dataset has, if it can be added to."""
    about = _about(out)
    wanted = asdict(settings) | {"contract_sha256": contract.sha256}
    different = [f"{key}: it has {about.get(key)}, you asked for {wanted[key]}" for key in wanted]
    different = [words for words, key in zip(different, wanted, strict=True) if about.get(key) != wanted[key]]
    if different:
        raise DaggerError("\n".join([f"{out}: this is another dataset; give another --out", *different]))
    rounds: list[dict[str, Any]] = about["rounds"]
    for i, round_ in enumerate(rounds):
        if i >= len(folders) or manifest_sha256(folders[i]) != round_["manifest_sha256"]:
            raise DaggerError(
                f"{out}: expected a dataset of the rounds that are there, but round {i} is gone or changed; "
                "remove the dataset and export it again"
            )
        for name, sha256 in round_["files"].items():
            path = inside(out, name)
            if not path.is_file() or file_sha256(path) != sha256:
                raise DaggerError(f"{path}: expected the file that was exported; it is gone or changed")
    return rounds
