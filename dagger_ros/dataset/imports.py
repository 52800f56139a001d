"""Adds bags that were recorded elsewhere to a round of demonstrations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.dataset.episode import EpisodeInfo, read_episode
from dagger_ros.dataset.foreign import ForeignBag
from dagger_ros.dataset.offline import write_rows
from dagger_ros.dataset.rounds import (
    contract_of_run,
    episode_folder,
    keep_contract,
    load_round,
    manifest_sha256,
    recorded_episodes,
    round_folder,
)

__all__ = ["import_bag", "prepare_import"]

_RULE = "bc"


def prepare_import(out: Path, contract_path: Path, contract: Contract, bags: Sequence[Path]) -> Path:
    """Checks where bags are to be imported to, and gives the folder of the round; writes nothing.

    Args:
        out: Folder of a run, new or not, or of its round 0.
        contract_path: File of the contract.
        contract: That the demonstrations are made under.
        bags: To be imported.

    Raises:
        DaggerError: If what is there is of another contract, or was not imported; or a bag lies in it.
    """
    for bag in bags:
        if bag.resolve().is_relative_to(out.resolve()):
            raise DaggerError(f"{bag}: expected a bag outside of --out {out}, which is written to")
    if out.exists() and not out.is_dir():
        raise DaggerError(f"{out}: expected the folder of a run or of a round, or none yet; it is a file")
    is_round = out.absolute().parent.name == "rounds" or (out / "episodes").is_dir()
    folder = out if is_round else round_folder(out, 0)
    if is_round and folder.name.isdigit() and int(folder.name) != 0:
        raise DaggerError(f"{out}: expected round 000, since demonstrations are what a run begins with")
    copy = contract_of_run(folder, contract)
    is_run = copy is not None and copy.exists()
    if not is_run and not is_round and not folder.exists() and out.exists() and any(out.iterdir()):
        raise DaggerError(f"{out}: expected a folder that is new or empty, or that of a run; it is neither")
    if manifest_sha256(folder):
        manifest = load_round(folder, contract)
        if manifest.rule != _RULE:
            raise DaggerError(f"{folder}: expected a round of rule {_RULE}, found one of rule {manifest.rule}")
    for i in recorded_episodes(folder):
        info = read_episode(episode_folder(folder, i))
        if not info.imported or info.contract_sha256 != contract.sha256:
            why = "of another contract" if info.imported else "recorded here"
            raise DaggerError(
                f"{folder}: expected a round of nothing but imports under this contract; episode {i} is {why}. Give "
                "another --out"
            )
    return folder


def import_bag(
    bag: ForeignBag,
    folder: Path,
    contract_path: Path,
    contract: Contract,
    definitions: Mapping[str, str],
    *,
    operator_id: str,
    success: bool,
    failure: str,
) -> EpisodeInfo:
    """Writes a bag as the next episode of a round of demonstrations; `finish_round` afterwards.

    Args:
        bag: That was read and found good.
        folder: Of the round, as `prepare_import` gives it.
        contract_path: File of the contract; it becomes the run's `contract.yaml` where there is none.
        contract: That the bag was read under.
        definitions: See `write_rows`.
        operator_id: Who gave the command; empty: not known.
        success: Whether the contract's criterion held at the end.
        failure: Failure label of the contract; empty: none.

    Returns:
        What stands in its episode.json.

    Raises:
        DaggerError: If the bag was imported before, or cannot be written.
    """
    taken = [int(p.name) for p in (folder / "episodes").glob("[0-9]*")]
    for i in recorded_episodes(folder):
        hashes = read_episode(episode_folder(folder, i)).imported.get("sha256", {})
        if isinstance(hashes, dict) and set(bag.sha256.values()) & set(hashes.values()):
            raise DaggerError(f"{bag.path}: expected a bag that was not imported yet; it is episode {i} of {folder}")
    text = contract_path.read_text(encoding="utf-8")
    keep_contract(folder, contract, text)
    rows = bag.rows.copy()
    episode = max(taken, default=-1) + 1
    rows["round"], rows["episode"], rows["operator_id"] = 0, episode, operator_id.encode("ascii", "replace")
    info = EpisodeInfo(
        round=0,
        episode=episode,
        seed=-1,
        rule=_RULE,
        contract_sha256=contract.sha256,
        policy="",
        policy_sha256="",
        operator_id=operator_id,
        started_ns=bag.started_ns,
        finished_ns=bag.finished_ns,
        success=success,
        failure=failure,
        metric=None,
        messages={},
        acts=[],
        imported={"path": str(bag.path.absolute()), "sha256": bag.sha256},
    )
    about = {"imported": "true", "source": str(bag.path.absolute()), "source_sha256": json.dumps(bag.sha256)}
    return write_rows(
        episode_folder(folder, episode),
        rows,
        bag.layout,
        bag.messages(),
        bag.topics,
        info,
        contract_text=text,
        definitions=definitions,
        about=about,
    )
