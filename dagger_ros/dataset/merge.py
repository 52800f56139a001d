"""Puts rounds of several runs together into one run, and says of each episode which robot and run it comes from."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.contract.files import link_file, replace_folder, sync_new, write_file
from dagger_ros.dataset.bag import part_of
from dagger_ros.dataset.episode import BAG, Source, read_episode, write_episode
from dagger_ros.dataset.origin import check_alike, contract_of_bag
from dagger_ros.dataset.rounds import (
    Round,
    check_round,
    episode_folder,
    finish_round,
    manifest_sha256,
    recorded_episodes,
    round_folder,
    round_folders,
)

__all__ = ["merge_rounds"]


@dataclass(frozen=True)
class _Part:
    """A round that is put together with others.

    Args:
        folder: Of the round.
        run: Name of its run.
        contract: Of the round.
        text: The contract's file.
        manifest: Of the round; every file is as it says.
        sha256: Hash of that.
    """

    folder: Path
    run: str
    contract: Contract
    text: bytes
    manifest: Round
    sha256: str


def merge_rounds(
    sources: Sequence[Path], out: Path, *, contract_path: Path | None = None, round_index: int | None = None
) -> list[Round]:
    """Writes a run with the episodes of others, round by round, in the order of the sources.

    Bags are hard links to those of the sources where the disk has them, since finished bags are never written to; else
    copies. The sources stay as they are. An episode keeps the contract, seed and split that it was recorded with, and
    gets a new number. The same sources give the same bytes each time. The run appears whole.

    Args:
        sources: Folders of runs, or of single rounds.
        out: Folder of the new run; must not exist, or be empty.
        contract_path: File of the contract of the new run; None: that of the first source.
        round_index: Number that every round gets; None: those that they have, and rounds of one number become one.

    Returns:
        The rounds of the new run.

    Raises:
        DaggerError: If `out` is there, a source is no finished round or was changed, frames of two contracts mean
            different things, rounds of one number have different rules, or demonstrations would become something else.
    """
    for source in sources:
        if out.resolve().is_relative_to(source.resolve()):
            raise DaggerError(f"{out}: expected a folder outside of {source}, which stays as it is")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DaggerError(f"{out}: expected a folder that is new or empty; give another --out")
    parts = [_read_part(folder) for source in sources for folder in _rounds_of(source)]
    first = parts[0]
    contract, text = first.contract, first.text
    if contract_path is not None:
        contract, text = load_contract(contract_path), contract_path.read_bytes()
    for part in parts:
        check_alike(part.contract, str(part.folder), contract, str(contract_path or first.folder))
    rounds = _by_number(parts, round_index)
    part_folder = part_of(out.absolute())
    shutil.rmtree(part_folder, ignore_errors=True)
    try:
        write_file(part_folder / "contract.yaml", text)
        result = [_write_round(part_folder, k, rounds[k], contract) for k in sorted(rounds)]
        sync_new(part_folder)
        replace_folder(part_folder, out.absolute())
    except BaseException as error:
        shutil.rmtree(part_folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise DaggerError(f"{out}: expected a disk that takes the run; {error.strerror or error}") from error
        raise
    return result


def _rounds_of(source: Path) -> list[Path]:
    if (source / "rounds").is_dir():
        return round_folders(source)
    if (source / "episodes").is_dir():
        return [source]
    raise DaggerError(
        f"{source}: expected the folder of a run, with rounds/, or of a round, with episodes/; it is neither"
    )


def _read_part(folder: Path) -> _Part:
    run = folder.resolve().parent.parent if folder.resolve().parent.name == "rounds" else folder.resolve()
    path = run / "contract.yaml"
    if run != folder.resolve() and path.is_file():
        contract, text = load_contract(path), path.read_bytes()
    else:
        episodes = recorded_episodes(folder)
        if not episodes:
            raise DaggerError(f"{folder}: expected at least one finished episode, found none")
        contract, words = contract_of_bag(episode_folder(folder, episodes[0]) / BAG)
        text = words.encode()
    return _Part(folder, run.name, contract, text, check_round(folder, contract), manifest_sha256(folder))


def _by_number(parts: Iterable[_Part], round_index: int | None) -> dict[int, list[_Part]]:
    """The rounds that become one, by the number that it gets."""
    rounds: dict[int, list[_Part]] = {}
    seen: dict[tuple[str, int], Path] = {}
    for part in parts:
        number = part.manifest.round
        for entry in part.manifest.episodes:
            place = entry.source or entry
            key = entry.source.manifest_sha256 if entry.source else part.sha256, place.episode
            if key in seen:
                raise DaggerError(
                    f"{part.folder}: expected each episode once; episode {entry.episode} is one of {seen[key]}, too"
                )
            seen[key] = part.folder
        if round_index is not None and (number == 0) != (round_index == 0):
            wanted = "nothing but round 0, the demonstrations," if round_index == 0 else "no demonstrations (round 0)"
            raise DaggerError(f"{part.folder}: expected {wanted} with --round {round_index}, got round {number}")
        same = rounds.setdefault(number if round_index is None else round_index, [])
        if same and same[0].manifest.rule != part.manifest.rule:
            raise DaggerError(
                f"{part.folder}: expected rule {same[0].manifest.rule} as in {same[0].folder}, since both become one "
                f"round; found {part.manifest.rule}"
            )
        same.append(part)
    return rounds


def _write_round(run: Path, number: int, parts: Sequence[_Part], contract: Contract) -> Round:
    folder, index = round_folder(run, number), 0
    for part in parts:
        for entry in part.manifest.episodes:
            _write_episode(part, entry.episode, folder, number, index)
            index += 1
    return finish_round(folder, contract)


def _write_episode(part: _Part, episode: int, folder: Path, number: int, index: int) -> None:
    there, here = episode_folder(part.folder, episode), episode_folder(folder, index)
    info = read_episode(there)
    source = info.source or Source(
        robot=part.contract.robot.body,
        run=part.run,
        round=part.manifest.round,
        episode=episode,
        manifest_sha256=part.sha256,
    )
    (here / BAG).mkdir(parents=True)
    for file in sorted((there / BAG).iterdir()):
        link_file(file, here / BAG / file.name)
    write_episode(here, replace(info, round=number, episode=index, source=source))
