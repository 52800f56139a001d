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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.contract.files import file_sha256, inside, link_file, replace_folder, sync_new
from dagger_ros.dataset.bag import part_of
from dagger_ros.dataset.export.video import CODECS
from dagger_ros.dataset.export.writer import ABOUT, SCHEMA, ExportSettings, Writer, software
from dagger_ros.dataset.frames import View
from dagger_ros.dataset.rounds import SPLITS, manifest_sha256, round_folders

__all__ = ["export_lerobot", "load_columns", "verify_lerobot"]


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
    return _export(round_folders(run), contract_path, out, settings)


def _export(folders: Sequence[Path], contract_path: Path, out: Path, settings: ExportSettings) -> list[dict[str, Any]]:
    contract = load_contract(contract_path)
    fps = round(contract.timing.control_rate_hz)
    if fps != contract.timing.control_rate_hz:
        raise DaggerError(
            f"{contract_path}: timing.control_rate_hz: expected a whole number, which is all that a LeRobotDataset "
            f"can say, found {contract.timing.control_rate_hz:g}"
        )
    out = out.resolve()  # what a link leads to is replaced, not the link
    there = _read_about(out, contract, settings, folders) if out.exists() else []
    part = part_of(out)
    shutil.rmtree(part, ignore_errors=True)
    try:
        if there:
            shutil.copytree(out, part, copy_function=link_file)
        (part / "meta").mkdir(parents=True, exist_ok=True)
        writer = Writer(part, contract, settings, fps, there)
        for folder in folders[len(there) :]:
            writer.add(folder)
        if not writer.frames:
            raise DaggerError(
                f"{out}: expected frames of view {settings.view.value} in split {settings.split}; there are none in "
                f"{len(folders)} rounds"
            )
        writer.finish(contract_path.read_bytes())
        sync_new(part)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise DaggerError(f"{out}: expected a disk that takes the dataset; {error.strerror or error}") from error
        raise
    replace_folder(part, out)
    return writer.rounds


def verify_lerobot(run: Path, contract_path: Path, out: Path) -> None:
    """Makes a dataset again from the bags of the rounds that it has, and compares every byte.

    Raises:
        DaggerError: If a file is not as the bags have it, is missing, or is one too many.
    """
    about = _about(out)
    folders = round_folders(run)[: len(about["rounds"])]
    with tempfile.TemporaryDirectory(prefix="dagger_ros_verify_") as folder:
        again = Path(folder) / "dataset"
        _export(folders, contract_path, again, _settings(about))
        expected, found = (_files(root) for root in (again, out))
        for name in sorted(expected | found):
            if name not in found or name not in expected:
                raise DaggerError(f"{out / name}: {'expected this file' if name in expected else 'a file too many'}")
            if (again / name).read_bytes() != (out / name).read_bytes():
                same = about["software"] == software()
                why = "" if same else f"; it was written by {about['software']}, this is {software()}"
                raise DaggerError(f"{out / name}: expected what the bags give; it differs{why}")


def load_columns(out: Path, names: Sequence[str]) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Columns of a dataset as arrays, without a Python object for each value.

    Args:
        out: Folder of a dataset.
        names: Of columns with numbers, such as `observation.state` and `action`.

    Returns:
        By name (N,) or (N, n), in the order of the frames.

    Raises:
        DaggerError: If there is no dataset, or it has no such column.
    """
    files = sorted((out / "data").glob("*/*.parquet"))
    if not files:
        raise DaggerError(f"{out}: expected the folder of a dataset, with data/; there is none")
    there = pq.read_schema(files[0]).names
    unknown = [name for name in names if name not in there]
    if unknown:
        raise DaggerError(f"{out}: expected columns of {', '.join(there)}; got {', '.join(unknown)}")
    table = pa.concat_tables(pq.read_table(file, columns=list(names)) for file in files)
    result = {}
    for name in names:
        column = table.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            result[name] = column.flatten().to_numpy().reshape(len(column), -1)
        else:
            result[name] = column.to_numpy(zero_copy_only=False)
    return result


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def _settings(about: Mapping[str, Any]) -> ExportSettings:
    """That a dataset was exported with."""
    if about["split"] not in SPLITS or about["codec"] not in CODECS:
        raise ValueError(f"found split {about['split']}, codec {about['codec']}")
    return ExportSettings(View(about["view"]), about["split"], about["codec"])


def _about(out: Path) -> dict[str, Any]:
    try:
        about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
        if about["schema"] != SCHEMA:
            raise ValueError(f"found {about['schema']}, of another version; give another --out")
        _settings(about)
        _ = [(r["manifest_sha256"], r["files"].items(), r["frames"] + r["episodes"]) for r in about["rounds"]]
        return {"software": None, **about}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DaggerError(f"{out}: expected a dataset of dagger-ros export ({ABOUT}, {SCHEMA}); {error}") from error


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
