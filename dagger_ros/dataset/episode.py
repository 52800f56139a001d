"""One recorded episode on disk: its bag, and `episode.json` beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict

from dagger_ros.contract import DaggerError
from dagger_ros.contract.files import write_file
from dagger_ros.dataset.records import read_record

__all__ = ["ABOUT", "BAG", "EpisodeInfo", "Source", "read_episode", "visible", "write_episode"]

BAG = "bag"
ABOUT = "episode.json"
_SCHEMA = "dagger_ros.episode/1"


@dataclass(frozen=True)
class Source:
    """Where an episode comes from that was merged into another run.

    Args:
        robot: Body of the contract that it was recorded under.
        run: Name of the folder of its run; of that of its round, where it belongs to no run.
        round: Number of its round there.
        episode: Its index there.
        manifest_sha256: Of the manifest of its round there.
    """

    robot: str
    run: str
    round: int
    episode: int
    manifest_sha256: str

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class EpisodeInfo:
    """What an episode was and how it ended.

    Args:
        round: Round that it belongs to.
        episode: Index within the round.
        seed: Of its initial state; -1: none.
        rule: Rule of the round.
        contract_sha256: Contract that it was recorded under.
        policy: Name of the policy that drove; empty: none.
        policy_sha256: Hash of its weights; empty: none.
        operator_id: Who labelled; empty: nobody.
        started_ns: Robot clock at its start, ns.
        finished_ns: Robot clock at its end, ns.
        success: Whether the contract's criterion held.
        failure: Failure label of the contract; empty with success.
        metric: The contract's metric; None: unknown.
        messages: Messages in the bag, by topic.
        acts: What the operator did at the pad, in order: stamp_ns, act, and reason or failure where it has one.
        recovered: The recorder did not finish it: its end may be missing.
        keep: What the recorder kept, as its parameter says: `all`, or `corrections` with what came shortly before.
        imported: Of a bag that was recorded elsewhere: its `path`, and `sha256` of each file by name; empty: of none.
        namespace: Of the graph that recorded it, which tells robots of one contract apart; empty: none, or not said.
        source: Where it was recorded, if it was merged into this run; None: here.
    """

    round: int
    episode: int
    seed: int
    rule: str
    contract_sha256: str
    policy: str
    policy_sha256: str
    operator_id: str
    started_ns: int
    finished_ns: int
    success: bool
    failure: str
    metric: float | None
    messages: dict[str, int]
    acts: list[dict[str, Any]]
    recovered: bool = False
    keep: str = "all"
    imported: dict[str, str | dict[str, str]] = field(default_factory=dict)
    namespace: str = ""
    source: Source | None = None
    schema: str = _SCHEMA

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")


def visible(root: Path, pattern: str) -> list[Path]:
    """What is found below a folder, in order, but for what lies hidden there: that is not finished, and somebody's."""
    return sorted(f for f in root.rglob(pattern) if not any(p[:1] == "." for p in f.relative_to(root).parts))


def write_episode(folder: Path, info: EpisodeInfo) -> None:
    """Writes `episode.json`; an episode without it is unfinished."""
    write_file(folder / ABOUT, (json.dumps(asdict(info), indent=1) + "\n").encode())


def read_episode(folder: Path) -> EpisodeInfo:
    """Reads `episode.json`.

    Raises:
        DaggerError: If it is missing or not of this format.
    """
    path = folder / ABOUT
    try:
        return read_record(path, EpisodeInfo, "the description of an episode", _SCHEMA)
    except OSError as error:
        raise DaggerError(f"{path}: expected the description of a finished episode; {error.strerror}") from error
