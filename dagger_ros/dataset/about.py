"""What a bag says of itself: what was recorded under which contract, and what the supervisor decided by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagger_ros.contract import Contract, DaggerError, RowLayout, parse_contract
from dagger_ros.dataset.bag import ABOUT_BAG, typestore_of
from dagger_ros.dataset.contents import WHOLE, Contents, read_contents
from dagger_ros.dataset.episode import ABOUT, BAG, visible
from dagger_ros.dataset.rows import Rows, decided_rows, wanted_for_rows
from dagger_ros.supervisor import GateSettings

__all__ = ["RELABELLED", "BagAbout", "find_bags", "parse_about", "read_about", "read_decided"]

# In the metadata of a bag that was labelled anew: by whom.
RELABELLED = "relabelled_by"

_SETTINGS = "dagger_ros/msg/GateSettings"


@dataclass(frozen=True)
class BagAbout:
    """What a bag is of.

    Args:
        contract: That it was recorded under.
        contract_text: The contract's file.
        round: Round that it belongs to.
        episode: Index within the round.
        seed: Of its initial state; -1: none.
        rule: Rule of the round.
        started_ns: Robot clock at its start, ns.
        decided: Its rows are what a supervisor decided; False: it was imported, or labelled anew.
        settings: That the supervisor decided by at its start; None: not said, as by older versions.
    """

    contract: Contract
    contract_text: str
    round: int
    episode: int
    seed: int
    rule: str
    started_ns: int
    decided: bool
    settings: GateSettings | None = None


def parse_about(said: Mapping[str, str], source: Path, settings: GateSettings | None = None) -> BagAbout:
    """Takes the metadata record of a bag.

    Args:
        said: The record; empty: there is none.
        source: The bag, for the messages.
        settings: That are in the bag, too.

    Raises:
        DaggerError: If it does not say what it is of.
    """
    if "contract" not in said:
        raise DaggerError(
            f"{source}: expected a bag that says what it is of (metadata {ABOUT_BAG}), found nothing; it was "
            "recorded by an older version, or damaged at its beginning"
        )
    try:
        numbers = {name: int(said[name]) for name in ("round", "episode", "seed", "started_ns")}
        rule = said["rule"]
    except (KeyError, ValueError) as error:
        raise DaggerError(
            f"{source}: expected round, episode, seed, rule and started_ns in its metadata; {error}"
        ) from error
    contract = parse_contract(said["contract"], source=f"the contract in {source}")
    decided = "imported" not in said and RELABELLED not in said
    return BagAbout(contract, said["contract"], **numbers, rule=rule, decided=decided, settings=settings)


def read_about(path: Path) -> BagAbout:
    """What a bag says of itself.

    Args:
        path: A rosbag2 folder.

    Raises:
        DaggerError: If it is not a whole bag, or does not say what it is of.
    """
    return _about(read_contents(path, _wanted))


def read_decided(path: Path) -> tuple[BagAbout, Rows]:
    """The same, and its rows.

    Returns:
        What it says of itself, and (T,) rows as the supervisor decided them: with the labels that the operator took
        back later.

    Raises:
        DaggerError: If it is not a whole bag, does not say what it is of, or holds no decisions.
    """
    contents = read_contents(path, lambda topic, type_: _wanted(topic, type_) or wanted_for_rows(topic, type_))
    about = _about(contents)
    return about, decided_rows(contents, RowLayout(about.contract), obeys_undo=False)[0]


def find_bags(path: Path) -> list[Path]:
    """The bags of finished episodes, in order.

    Args:
        path: Of a bag, an episode, a round or a run.

    Raises:
        DaggerError: If there is none.
    """
    if (path / "metadata.yaml").is_file():
        return [path]
    if (path / BAG).is_dir():
        return [path / BAG]
    bags = [about.with_name(BAG) for about in visible(path, f"episodes/[0-9]*/{ABOUT}")]
    if not bags:
        raise DaggerError(f"{path}: expected a rosbag2 folder, or that of an episode, a round or a run; found none")
    return bags


def _wanted(_topic: str, type_: str) -> int:
    return WHOLE if type_ == _SETTINGS else 0


def _about(contents: Contents) -> BagAbout:
    messages = contents.of_type(_SETTINGS)
    settings = None
    if messages is not None and messages.data:
        typestore = typestore_of(((_SETTINGS, messages.definition),))
        message: Any = typestore.deserialize_cdr(messages.data[0], _SETTINGS)
        settings = GateSettings.read(message)
    return parse_about(contents.about, contents.path, settings)
