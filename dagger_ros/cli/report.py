"""The verb `report`: writes the report of a run anew, from its folder or from a zip file of it."""

from __future__ import annotations

import argparse
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagger_ros.cli.evaluate import bar
from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import Contract, ContractError, DaggerError, load_contract

__all__ = ["add_verbs", "contract_file"]


def add_verbs(verbs: Verbs) -> None:
    """Adds it to the command line."""
    report = verbs.add_parser("report", help="write the report of a run anew: one HTML file with everything inside")
    report.add_argument("run_folder", metavar="run", type=Path, help="folder of the run, or a zip file of it")
    report.add_argument(
        "--contract",
        type=Path,
        help="the contract file beside which the model lies that pictures are drawn of (default: the one in "
        "config/contracts/ that is the run's)",
    )
    report.add_argument(
        "--out", type=Path, help="the file (default: report/index.html of the run; of a zip file: NAME-report.html)"
    )
    report.add_argument("--no-pictures", action="store_true", help="traces only, which takes a few seconds")
    report.add_argument(
        "--videos",
        action="store_true",
        help="also videos/*.mp4 beside the file, of what the recommended policy and the first one failed at",
    )
    report.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that draw (default: one for each core)"
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    from dagger_ros.evaluation.report import read_result, write_report

    if options.workers < 1:
        raise DaggerError(f"workers: expected a whole number >= 1, got {options.workers}")
    with _folder_of(options.run_folder) as folder:
        result = read_result(folder)
        contract = load_contract(folder / "contract.yaml")
        page = options.out
        if page is None and folder != options.run_folder:
            page = options.run_folder.with_name(f"{options.run_folder.stem}-report.html")
        path = write_report(
            folder,
            contract,
            result,
            contract_path=contract_file(options.contract, contract),
            page=page,
            pictures=not options.no_pictures,
            videos=options.videos,
            workers=options.workers,
            stage=bar,
        )
    print(f"report: {path}")


@contextmanager
def _folder_of(path: Path) -> Iterator[Path]:
    """The folder of a run: itself, or what a zip file of it holds, for as long as it is used."""
    if not zipfile.is_zipfile(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as unpacked:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked)  # names that lead outside are put inside
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise DaggerError(f"{path}: expected a zip file of a run; it is damaged: {error}") from error
        found = sorted(Path(unpacked).rglob("result.json"), key=lambda p: len(p.parts))
        if not found:
            raise DaggerError(f"{path}: expected a zip file of a run, with result.json; there is none in it")
        yield found[0].parent


def contract_file(given: Path | None, contract: Contract) -> Path | None:
    """The file of a contract, beside which its model lies; None: none is known."""
    from dagger_ros.nodes.share import config_file

    if given is not None:
        if load_contract(given).sha256 != contract.sha256:
            raise DaggerError(
                f"{given}: expected contract {contract.name} ({contract.sha256[:12]}), as the run was made under; "
                f"found {load_contract(given).sha256[:12]}"
            )
        return given
    shipped = config_file(f"contracts/{contract.name}.yaml")
    try:
        same = shipped.is_file() and load_contract(shipped).sha256 == contract.sha256
    except ContractError:
        same = False
    return shipped if same else None
