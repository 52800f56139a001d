"""The report of a run: one HTML file with everything inside, that says in words and pictures how it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from dagger_ros.contract import Contract
from dagger_ros.contract.files import write_file
from dagger_ros.evaluation.report.page import make_page
from dagger_ros.evaluation.report.pictures import Strip, draw, plan
from dagger_ros.evaluation.report.record import RESULT_SCHEMA, Record, read_record, read_result
from dagger_ros.evaluation.report.videos import write_videos
from dagger_ros.evaluation.report.words import plural

__all__ = ["RESULT_SCHEMA", "Stage", "read_result", "write_report"]

Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Told of a stage by its name and its steps; gives what to call with the number of steps done."""


@contextmanager
def _untold(name: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda steps: None


def write_report(
    out: Path,
    contract: Contract,
    result: Mapping[str, Any],
    *,
    contract_path: Path | None = None,
    page: Path | None = None,
    pictures: bool = True,
    videos: bool = False,
    workers: int = 2,
    stage: Stage = _untold,
) -> Path:
    """Writes the report of a run.

    Args:
        out: Folder of the run.
        contract: Of the run.
        result: What stands in result.json.
        contract_path: File of the contract beside which the model lies that pictures are drawn of; None:
            contract.yaml of the run.
        page: The file to write; None: report/index.html of the run.
        pictures: Whether to draw any.
        videos: Whether to write `videos/*.mp4` beside the page, of what the recommended policy and the first one
            failed at.
        workers: Processes that draw.
        stage: Told what takes a while.

    Returns:
        The file.

    Raises:
        DaggerError: If what the run left does not belong together, or there can be no videos. Where there can be no
            pictures the report says so.
    """
    record = read_record(out, contract, result)
    strips: dict[Path, Strip] = {}
    note = "Pictures were not asked for."
    path = page or out / "report" / "index.html"
    where = contract_path or out / "contract.yaml"
    if pictures:
        shots = plan(record)
        with stage("report: pictures", len(shots)) as advance:
            strips, problem = draw(shots, where, workers=workers, on_shot=lambda: advance(1))
        note = _note(record, strips, problem)
    write_file(path, make_page(record, strips, note).encode())
    if videos:
        long = [shot for shot in plan(record) if shot.long]
        with stage("report: videos", len(long)) as advance:
            write_videos(long, where, path.parent / "videos", workers=workers, on_video=lambda: advance(1))
    return path


def _note(record: Record, strips: Mapping[Path, Strip], problem: str) -> str:
    if problem:
        return f"There are no pictures, only traces. {problem}"
    return (
        f"{len(strips)} of {plural(record.rollouts, 'rollout')} have pictures: first what the recommended policy and "
        "the first one failed at, to be played; then a few of every other rollout of the panel that chose; then "
        "failures and takeovers on the other panels. Every rollout has its trace."
    )
