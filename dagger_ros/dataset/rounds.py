"""Rounds: finished episodes with their provenance, and the frames that are learned from.

<run>/rounds/000/                     000: demonstrations
episodes/000000/bag/              rosbag2 (MCAP)
episodes/000000/episode.json
manifest.json                     written last: a round without it does not exist
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict

from dagger_ros import __version__
from dagger_ros.contract import Contract, DaggerError, InterventionReason, Label, Mode, RowLayout, load_contract
from dagger_ros.contract.files import file_sha256, inside, write_file
from dagger_ros.dataset.acts import corrections
from dagger_ros.dataset.episode import ABOUT, BAG, EpisodeInfo, Source, read_episode
from dagger_ros.dataset.origin import recorded_layout
from dagger_ros.dataset.records import read_record
from dagger_ros.dataset.rows import read_rows

__all__ = [
    "SPLITS",
    "EpisodeEntry",
    "Round",
    "TrainingEpisode",
    "check_round",
    "contract_of_run",
    "episode_folder",
    "finish_round",
    "keep_contract",
    "labelled_frames",
    "load_round",
    "manifest_sha256",
    "recorded_episodes",
    "round_folder",
    "round_folders",
    "split_of",
    "training_episodes",
    "unlisted_episodes",
    "verify_round",
]

SPLITS = ("train", "validation", "stress")
_MANIFEST = "manifest.json"
_SCHEMA, _WHAT = "dagger_ros.round/1", "the manifest of a round"


@dataclass(frozen=True)
class EpisodeEntry:
    """One episode of a manifest. Counts are of control ticks.

    `takeover_doubts` is the policy's doubt at each takeover, where there was a policy; `policies` the hash of the
    weights of each policy that proposed, by name; `about_sha256` the hash of episode.json, empty in older manifests;
    `source` where it was recorded, if it was merged.
    """

    episode: int
    seed: int
    split: str
    bag_sha256: dict[str, str]
    success: bool
    failure: str
    metric: float | None
    ticks: int
    expert_labels: int
    expert_ticks: int
    policy_ticks: int
    takeovers: int
    context_switches: int
    help_requests: int
    takeover_reasons: dict[str, int]
    takeover_doubts: list[float]
    policies: dict[str, str]
    about_sha256: str = ""
    source: Source | None = None

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Round:
    """A finished round, as its manifest says.

    One that was merged has several robots, policies and operators: each once, with commas between them.
    """

    round: int
    rule: str
    contract: str
    contract_sha256: str
    robot_body: str
    cameras: list[str]
    action_units: list[str]
    licence: str
    policy: str
    policy_sha256: str
    operator_id: str
    software: dict[str, str]
    episodes: tuple[EpisodeEntry, ...]
    schema: str = _SCHEMA

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    @property
    def labels(self) -> int:
        """Frames with an expert's label."""
        return sum(e.expert_labels for e in self.episodes)

    @property
    def takeovers(self) -> int:
        """Times that the expert took control."""
        return sum(e.takeovers for e in self.episodes)

    @property
    def context_switches(self) -> int:
        """Times that control went from the policy to the expert or back, held ticks between them or not."""
        return sum(e.context_switches for e in self.episodes)

    @property
    def help_requests(self) -> int:
        """Times that the rule asked the expert to take over."""
        return sum(e.help_requests for e in self.episodes)

    @property
    def expert_ticks(self) -> int:
        """Ticks that the expert drove."""
        return sum(e.expert_ticks for e in self.episodes)

    @property
    def policy_ticks(self) -> int:
        """Ticks that the policy drove."""
        return sum(e.policy_ticks for e in self.episodes)

    @property
    def intervention_rate(self) -> float:
        """Share of ticks that the expert drove."""
        ticks = sum(e.ticks for e in self.episodes)
        return self.expert_ticks / ticks if ticks else 0.0


def round_folder(run: Path, index: int) -> Path:
    """Where a round lies."""
    return run / "rounds" / f"{index:03d}"


def round_folders(run: Path) -> list[Path]:
    """Every round of a run, the earliest first.

    Raises:
        DaggerError: If there is none.
    """
    folders = sorted(f for f in (run / "rounds").glob("[0-9]*") if f.name.isdigit())
    if not folders:
        raise DaggerError(f"{run}: expected the folder of a run, with rounds/000; there is none")
    return folders


def contract_of_run(folder: Path, contract: Contract) -> Path | None:
    """Where the contract of the run lies that a round belongs to, if it is there yet; None: it belongs to none.

    Args:
        folder: Of the round.
        contract: That the round is to be of.

    Raises:
        DaggerError: If the run is of another one.
    """
    rounds = folder.absolute().parent
    if rounds.name != "rounds":
        return None
    path = rounds.parent / "contract.yaml"
    if path.exists():
        there = load_contract(path)
        if there.sha256 != contract.sha256:
            raise DaggerError(
                f"{path}: expected contract {contract.sha256[:12]} ({contract.name}), found {there.sha256[:12]} "
                f"({there.name}); frames of different contracts do not mix"
            )
    return path


def keep_contract(folder: Path, contract: Contract, text: str) -> None:
    """Puts the contract into the run that a round belongs to, where it is not there yet.

    Args:
        folder: Of the round.
        contract: That the round is of.
        text: Of its file.

    Raises:
        DaggerError: If the run is of another one.
        OSError: If the disk does not take it.
    """
    path = contract_of_run(folder, contract)
    if path is not None and not path.exists():
        write_file(path, text.encode())


def episode_folder(round_: Path, index: int) -> Path:
    """Where an episode lies."""
    return round_ / "episodes" / f"{index:06d}"


def split_of(contract: Contract, round_index: int, episode: int, seed: int) -> str:
    """Which split an episode belongs to: `train`, `validation` or `stress`, by a hash, once and for all."""
    digest = hashlib.sha256(f"{contract.sha256} {round_index} {episode} {seed}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    if draw < contract.splits.train:
        return "train"
    return "validation" if draw < contract.splits.train + contract.splits.validation else "stress"


def recorded_episodes(round_: Path) -> list[int]:
    """Index of every finished episode of a round, in order."""
    folders = sorted((round_ / "episodes").glob("[0-9]*"))
    return [int(folder.name) for folder in folders if (folder / ABOUT).is_file()]


def unlisted_episodes(folder: Path) -> list[int]:
    """Index of every finished episode of a round that its manifest does not name; there may be no manifest.

    Raises:
        DaggerError: If what is there is no manifest.
    """
    path = folder / _MANIFEST
    listed = read_record(path, Round, _WHAT, _SCHEMA).episodes if path.is_file() else ()
    return sorted(set(recorded_episodes(folder)) - {entry.episode for entry in listed})


def finish_round(folder: Path, contract: Contract) -> Round:
    """Reads every bag of a round, counts what is in it, and writes the manifest.

    Args:
        folder: Of the round.
        contract: That it was recorded under.

    Raises:
        DaggerError: If there is no finished episode, or one is damaged or of another contract.
    """
    infos = {i: read_episode(episode_folder(folder, i)) for i in recorded_episodes(folder)}
    if not infos:
        raise DaggerError(f"{folder / 'episodes'}: expected at least one finished episode, found none")
    result = _described(folder, contract, infos)
    write_file(folder / _MANIFEST, (json.dumps(asdict(result), indent=1) + "\n").encode())
    return result


def _described(folder: Path, contract: Contract, infos: Mapping[int, EpisodeInfo]) -> Round:
    """What a manifest says of these episodes."""
    first = next(iter(infos.values()))

    def said(name: str) -> str:
        """By the first episode, or by all of a merged round."""
        merged = any(info.source is not None for info in infos.values())
        return _each_once(getattr(info, name) for info in (infos.values() if merged else [first]))

    return Round(
        round=first.round,
        rule=first.rule,
        contract=contract.name,
        contract_sha256=contract.sha256,
        robot_body=_each_once(i.source.robot if i.source else contract.robot.body for i in infos.values()),
        cameras=list(contract.cameras),
        action_units=[d.unit for d in contract.action.dimensions_],
        licence=contract.licence,
        policy=said("policy"),
        policy_sha256=said("policy_sha256"),
        operator_id=said("operator_id"),
        software={"dagger_ros": __version__, "numpy": np.__version__},
        episodes=_counted(folder, contract, infos),
    )


def _each_once(words: Iterable[str]) -> str:
    return ", ".join(filter(None, dict.fromkeys(words)))


def _counted(folder: Path, contract: Contract, infos: Mapping[int, EpisodeInfo]) -> tuple[EpisodeEntry, ...]:
    """What the bags of a round hold."""
    layout, entries = RowLayout(contract), []
    for i, info in infos.items():
        bag = episode_folder(folder, i) / BAG
        own = recorded_layout(bag, info.source, layout)
        rows = read_rows(bag, own)
        # A reason may be given in the middle of a correction: its last frame has it.
        runs = corrections(rows)
        ends, starts = (rows[[run.stop - 1 for run in runs]], rows[[run.start for run in runs]])
        reasons, counts = np.unique(ends["intervention_reason"], return_counts=True)
        driven = rows["mode"][(rows["mode"] == Mode.POLICY) | (rows["mode"] == Mode.EXPERT)]
        entries.append(
            EpisodeEntry(
                episode=i,
                seed=info.seed,
                split=_split_of(own.contract, i, info),
                bag_sha256={f.name: file_sha256(f) for f in sorted(bag.iterdir())},
                success=info.success,
                failure=info.failure,
                metric=info.metric,
                ticks=len(rows),
                expert_labels=int((rows["label_source"] == Label.EXPERT).sum()),
                expert_ticks=int((rows["mode"] == Mode.EXPERT).sum()),
                policy_ticks=int((rows["mode"] == Mode.POLICY).sum()),
                takeovers=len(ends),
                context_switches=int((np.diff(driven) != 0).sum()),
                help_requests=int((np.diff(rows["help"].astype(np.int8), prepend=0) > 0).sum()),
                takeover_reasons={
                    InterventionReason(r).name.lower(): int(n) for r, n in zip(reasons, counts, strict=True)
                },
                takeover_doubts=[float(doubt) for doubt in starts["doubt"] if np.isfinite(doubt)],
                policies={
                    row["policy"].decode(): row["policy_sha256"].decode()
                    for row in np.unique(rows[["policy", "policy_sha256"]])
                    if row["policy_sha256"]
                },
                about_sha256=file_sha256(episode_folder(folder, i) / ABOUT),
                source=info.source,
            )
        )
    return tuple(entries)


def _split_of(contract: Contract, index: int, info: EpisodeInfo) -> str:
    """The split that an episode has had since it was recorded, under this contract."""
    source = info.source
    if source is None:
        return split_of(contract, info.round, index, info.seed)
    return split_of(contract, source.round, source.episode, info.seed)


def load_round(folder: Path, contract: Contract) -> Round:
    """Reads a manifest.

    Raises:
        DaggerError: If there is none (the round was never finished), it is no manifest, or of another contract.
    """
    path = folder / _MANIFEST
    try:
        result = read_record(path, Round, _WHAT, _SCHEMA)
    except FileNotFoundError as error:
        raise DaggerError(
            f"{folder}: expected a finished round; there is no {_MANIFEST}: it is being recorded, or was interrupted "
            "(`dagger-ros recover` writes it)"
        ) from error
    numbers = [entry.episode for entry in result.episodes]
    if not numbers:
        raise _not_listed(folder, recorded_episodes(folder))
    if numbers != sorted(set(numbers)):
        raise DaggerError(f"{path}: expected each episode once and in order, found {numbers}")
    if result.contract_sha256 != contract.sha256:
        raise DaggerError(
            f"{path}: expected a round under contract {contract.sha256[:12]} ({contract.name}), "
            f"found {result.contract_sha256[:12]} ({result.contract}); they do not mix"
        )
    return result


def check_round(folder: Path, contract: Contract) -> Round:
    """Reads a manifest, gives it, and compares every bag and episode.json with its hash.

    Raises:
        DaggerError: If a round is not finished, or a file is not the one that its manifest names.
    """
    manifest = load_round(folder, contract)
    for entry in manifest.episodes:
        episode = episode_folder(folder, entry.episode)
        files = {inside(episode / BAG, name): sha256 for name, sha256 in entry.bag_sha256.items()}
        if entry.about_sha256:
            files[episode / ABOUT] = entry.about_sha256
        for path, sha256 in files.items():
            if not path.is_file() or file_sha256(path) != sha256:
                raise DaggerError(f"{path}: expected the file that {_MANIFEST} names; it is gone or changed")
    return manifest


def verify_round(folder: Path, contract: Contract) -> Round:
    """Compares every bag with its hash, and what is counted in it anew with what the manifest says, and gives that.

    Raises:
        DaggerError: If a round is not finished, or something is not as its manifest says.
    """
    manifest = check_round(folder, contract)
    infos = {e.episode: read_episode(episode_folder(folder, e.episode)) for e in manifest.episodes}
    again = _described(folder, contract, infos)
    for said, found in zip(manifest.episodes, again.episodes, strict=True):
        for name in asdict(said):
            value, there = getattr(said, name), getattr(found, name)
            older = name == "about_sha256" and not value
            if there != value and not older:
                raise DaggerError(
                    f"{folder / _MANIFEST}: episode {said.episode}, {name}: the manifest says {value}, its bag and "
                    f"{ABOUT} say {there}"
                )
    for name in asdict(manifest).keys() - {"episodes", "software"}:
        value, there = getattr(manifest, name), getattr(again, name)
        if there != value:
            raise DaggerError(
                f"{folder / _MANIFEST}: {name}: the manifest says {value}, its episodes and the contract say {there}"
            )
    extra = unlisted_episodes(folder)
    if extra:
        raise _not_listed(folder, extra)
    return manifest


def _not_listed(folder: Path, episodes: Sequence[int]) -> DaggerError:
    words = f"{', '.join(map(str, episodes))} are not in it" if episodes else "there is none"
    return DaggerError(f"{folder / _MANIFEST}: expected every finished episode, but {words}")


def manifest_sha256(folder: Path) -> str:
    """Hash of a round's manifest, which holds the hashes of its bags; empty: there is none."""
    path = folder / _MANIFEST
    return file_sha256(path) if path.is_file() else ""


@dataclass(frozen=True)
class TrainingEpisode:
    """One episode that is learned from.

    Args:
        rows: (T,) rows of its bag.
        success: Whether the contract's criterion held at its end.
        demonstration: The expert had the whole of it: round 0, or rule bc.
    """

    rows: np.ndarray[Any, np.dtype[Any]]
    success: bool
    demonstration: bool


def training_episodes(folders: Sequence[Path], contract: Contract, split: str = "train") -> list[TrainingEpisode]:
    """What is learned from: the episodes in the train split.

    Args:
        folders: Finished rounds.
        contract: Of all of them.
        split: Another one of `SPLITS`, of which there may be no episode yet.

    Raises:
        DaggerError: If a round is not finished, a bag is not the one that its manifest names, or there is none to
            train on.
    """
    manifests = [check_round(folder, contract) for folder in folders]
    layout = RowLayout(contract)
    episodes = [
        TrainingEpisode(
            _rows_of(episode_folder(folder, entry.episode) / BAG, entry.source, layout),
            entry.success,
            demonstration=manifest.round == 0 or manifest.rule == "bc",
        )
        for folder, manifest in zip(folders, manifests, strict=True)
        for entry in manifest.episodes
        if entry.split == split
    ]
    if not episodes and split == "train":
        raise DaggerError(f"{folders[0].parent if folders else 'rounds'}: expected at least one episode to train on")
    return episodes


def _rows_of(bag: Path, source: Source | None, layout: RowLayout) -> np.ndarray[Any, np.dtype[Any]]:
    return read_rows(bag, recorded_layout(bag, source, layout))


def labelled_frames(
    episodes: Sequence[TrainingEpisode],
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Observations with an expert's label.

    Returns:
        (N, O) observations and (N, A) expert actions, float64, in the contract's order and units.
    """
    rows = np.concatenate([e.rows[e.rows["label_source"] == Label.EXPERT] for e in episodes])
    return rows["observation"], rows["expert_action"]
