"""Of which robot an episode is: the contract that it was recorded under, beside that of the run that it lies in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dagger_ros.contract import Contract, DaggerError, RowLayout, parse_contract
from dagger_ros.dataset.bag import ABOUT_BAG
from dagger_ros.dataset.contents import read_said
from dagger_ros.dataset.episode import Source

__all__ = ["check_alike", "contract_of_bag", "recorded_layout"]

# Parts of a contract that say which robot it is, who labels it and how much: not what a frame means.
_OWN = ("robot", "operator", "expert", "collection")


def contract_of_bag(bag: Path) -> tuple[Contract, str]:
    """The contract that a bag was recorded under, and its text.

    Raises:
        DaggerError: If the bag does not say it, or is damaged at its beginning.
    """
    text = read_said(bag).get("contract")
    if text is None:
        raise DaggerError(
            f"{bag}: expected a bag that says its contract (metadata {ABOUT_BAG}), found nothing; it was recorded by "
            "an older version, or damaged at its beginning"
        )
    return parse_contract(text, source=f"the contract in {bag}"), text


def recorded_layout(bag: Path, source: Source | None, layout: RowLayout) -> RowLayout:
    """How the rows of a bag are laid out.

    Args:
        bag: Of an episode.
        source: Of the episode, if it was merged.
        layout: Of the contract of its run.

    Returns:
        That of the contract that it was recorded under.

    Raises:
        DaggerError: If its frames mean something else than those of the run.
    """
    if source is None:
        return layout
    own, _ = contract_of_bag(bag)
    check_alike(own, str(bag), layout.contract, "the run")
    return RowLayout(own)


def check_alike(contract: Contract, place: str, other: Contract, other_place: str) -> None:
    """Compares what frames under two contracts mean: everything but the robot, who labels, and names of topics.

    Args:
        contract: One of them.
        place: Where it stands, for the message.
        other: The one that counts.
        other_place: Where that stands.

    Raises:
        DaggerError: With the first key that differs.
    """
    if contract.sha256 != other.sha256 or list(contract.streams) != list(other.streams):
        different = _difference("", _meaning(contract), _meaning(other))
        if different is not None:
            key, found, expected = different
            raise DaggerError(
                f"{place}: {key}: expected {expected} as in {other_place}, found {found}; only the robot, operator, "
                "expert, collection, names of topics and the model of a simulation may differ between contracts whose "
                "frames are put together"
            )


def _meaning(contract: Contract) -> dict[str, Any]:
    content = contract.model_dump(mode="json", by_alias=True)
    for name in _OWN:
        del content[name]
    for part in (*content["streams"].values(), *content["cameras"].values(), content["action"]):
        del part["topic"]
    if content["simulation"] is not None:
        del content["simulation"]["model"]
    return content


def _difference(key: str, found: Any, expected: Any) -> tuple[str, Any, Any] | None:
    """The first place where two contents differ, and what is there; the order of streams is that of the columns."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = (", ".join(found), ", ".join(expected))
        if found.keys() != expected.keys() or (key == "streams" and names[0] != names[1]):
            return key, *names
        inner = [(f"{key}.{name}".strip("."), found[name], expected[name]) for name in expected]
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        inner = [(f"{key}.{i}", *pair) for i, pair in enumerate(zip(found, expected, strict=True))]
    else:
        return None if found == expected else (key, found, expected)
    return next((d for part in inner if (d := _difference(*part)) is not None), None)
