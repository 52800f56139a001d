"""Makes episodes whole whose recorder did not live to finish them."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from mcap.records import Channel, Chunk, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk

from dagger_ros.contract import Act, Contract, DaggerError
from dagger_ros.dataset.about import BagAbout, parse_about
from dagger_ros.dataset.acts import ActLog
from dagger_ros.dataset.bag import ABOUT_BAG, ACT, DECISION, BagWriter, RecordedTopic, part_of, typestore_of
from dagger_ros.dataset.episode import ABOUT, BAG, EpisodeInfo, visible, write_episode
from dagger_ros.dataset.rounds import unlisted_episodes

__all__ = ["Recovered", "recover_episode", "unfinished_episodes", "unlisted_rounds"]

# Where a bag lies whose recorder was killed, while a whole one is made of it.
_KILLED = f".{BAG}.killed"


@dataclass(frozen=True)
class Recovered:
    """What became of one episode.

    Args:
        folder: Of the episode.
        contract: That it was recorded under.
        info: As it stands in episode.json now.
        seconds: From the first message to the last one.
        whole_bytes: Of the file; what lay behind them was cut short or damaged.
        lost_bytes: Behind those.
    """

    folder: Path
    contract: Contract
    info: EpisodeInfo
    seconds: float
    whole_bytes: int
    lost_bytes: int


def unfinished_episodes(root: Path) -> list[Path]:
    """Folders of episodes below a run or a round that have a bag and no episode.json, in order.

    What `dagger-ros run` has not finished is left out: it runs those episodes again.
    """
    return [f for f in visible(root, "episodes/[0-9]*") if not (f / ABOUT).exists() and _source(f) is not None]


def unlisted_rounds(root: Path) -> list[Path]:
    """Folders of rounds, below a run or that of one itself, with finished episodes that no manifest names, in order.

    A recorder writes the manifest when it is stopped, not after each episode.

    Raises:
        DaggerError: If what is there is no manifest.
    """
    folders = sorted({about.parent.parent.parent for about in visible(root, f"episodes/[0-9]*/{ABOUT}")})
    return [folder for folder in folders if unlisted_episodes(folder)]


def recover_episode(folder: Path) -> Recovered:
    """Makes the bag of one episode whole, up to where its file is cut short or damaged, and writes its episode.json.

    Unless the operator had said how it ended, it counts as not successful.

    Args:
        folder: One of `unfinished_episodes`.

    Raises:
        DaggerError: If it is being recorded, was discarded by the operator, or has nothing that could be learned from.
            It is left as it is.
    """
    source = _source(folder)
    if source is None:
        raise DaggerError(f"{folder}: expected the bag of an episode that was not finished, found none")
    with _opened(source) as file:
        found = _Contents(source)
        for record in _whole_records(file, found):
            found.take(record)
        info = found.info()
        if found.log.end is not None and found.log.end.act == Act.DISCARD:
            raise DaggerError(f"{folder}: the operator discarded this episode; it is left as it is")
        if source.name != BAG or not (source / "metadata.yaml").is_file() or found.lost_bytes:
            killed = folder / _KILLED
            source.rename(killed)
            _rewrite(file, found, folder / BAG)
            shutil.rmtree(killed)
    write_episode(folder, info)
    seconds = (info.finished_ns - info.started_ns) * 1e-9
    return Recovered(folder, found.contract, info, seconds, found.whole_bytes, found.lost_bytes)


def _source(folder: Path) -> Path | None:
    """The bag to recover from; while a killed one is there, whatever was made of it is not whole."""
    for path in (folder / _KILLED, part_of(folder / BAG), folder / BAG):
        if path.is_dir():
            return path
    return None


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[BinaryIO]:
    """The file of a bag, unless somebody writes it."""
    path = source / f"{BAG}.mcap"
    try:
        file = path.open("rb")
    except OSError as error:
        raise DaggerError(f"{path}: expected what a recorder wrote; {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DaggerError(f"{path}: expected a bag that nobody writes; it is being recorded") from error
        yield file


def _whole_records(file: BinaryIO, found: _Contents) -> Iterator[McapRecord]:
    """What was written, in order, up to the first damage."""
    file.seek(0)
    records = iter(StreamReader(file, emit_chunks=True).records)
    while True:
        try:
            record = next(records, None)
            pieces = breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else [record]
        except Exception:  # what a damaged file makes a decoder raise is not to be listed
            found.lost_bytes = file.seek(0, 2) - found.whole_bytes
            return
        if record is None:
            return
        found.whole_bytes = file.tell()
        yield from (piece for piece in pieces if piece is not None)


@dataclass
class _Contents:
    """What a bag says of itself, and what its messages say of the episode."""

    source: Path
    about: dict[str, str] = field(default_factory=dict)
    said: BagAbout | None = None
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    last_ns: int = 0
    decision: bytes | None = None
    whole_bytes: int = 0
    lost_bytes: int = 0

    def take(self, record: McapRecord) -> None:
        """One record of the file."""
        if isinstance(record, Metadata) and record.name == ABOUT_BAG:
            self.about, self.said = dict(record.metadata), parse_about(record.metadata, self.source)
            self.contract = self.said.contract
            self.log = ActLog(self.contract)
        elif isinstance(record, Schema):
            self.schemas[record.id] = record
        elif isinstance(record, Channel):
            self.channels[record.id] = record
            self.counts.setdefault(self.topic(record), 0)
        elif isinstance(record, Message):
            channel = self.channels[record.channel_id]
            self.counts[self.topic(channel)] += 1
            self.last_ns = max(self.last_ns, record.log_time)
            type_ = self.type(channel)
            if type_ == DECISION:
                self.decision = record.data
            elif type_ == ACT:
                self.log.take(self._decoded(record.data, type_))

    def topic(self, channel: Channel) -> str:
        """As the contract has it."""
        return str(channel.topic).removeprefix("/")

    def type(self, channel: Channel) -> str:
        """Message type of a channel."""
        return str(self.schemas[channel.schema_id].name)

    @property
    def definitions(self) -> dict[str, str]:
        """Text of each message definition, by type."""
        return {schema.name: schema.data.decode() for schema in self.schemas.values()}

    @property
    def topics(self) -> dict[str, RecordedTopic]:
        """As they were given to the writer."""
        topics = {}
        for channel in self.channels.values():
            (qos,) = yaml.safe_load(channel.metadata["offered_qos_profiles"])
            topics[self.topic(channel)] = RecordedTopic(
                self.type(channel),
                reliable=qos["reliability"] == "reliable",
                latched=qos["durability"] == "transient_local",
            )
        return topics

    def info(self) -> EpisodeInfo:
        """Of the episode.

        Raises:
            DaggerError: If there is nothing that could be learned from.
        """
        said = self.said or parse_about({}, self.source)
        if self.decision is None:
            raise DaggerError(f"{self.source}: expected at least one decision in the bag, found none to learn from")
        decision, end = self._decoded(self.decision, DECISION), self.log.end
        return EpisodeInfo(
            round=said.round,
            episode=said.episode,
            seed=said.seed,
            rule=said.rule,
            contract_sha256=self.contract.sha256,
            policy=decision.policy,
            policy_sha256=decision.policy_sha256,
            operator_id=decision.operator_id,
            started_ns=said.started_ns,
            finished_ns=self.last_ns,
            success=end is not None and end.act == Act.SUCCESS,
            failure="" if end is None else end.failure,
            metric=None,
            messages=self.counts,
            acts=self.log.acts,
            recovered=True,
            keep=self.about.get("keep", "all"),
        )

    def _decoded(self, data: bytes, type_: str) -> Any:
        return typestore_of(tuple(sorted(self.definitions.items()))).deserialize_cdr(data, type_)


def _rewrite(file: BinaryIO, found: _Contents, path: Path) -> None:
    """Writes what is whole as a bag."""
    shutil.rmtree(path, ignore_errors=True)
    writer = BagWriter(path, found.topics, found.definitions, found.about)
    for record in _whole_records(file, found):
        if isinstance(record, Message):
            writer.write(found.topic(found.channels[record.channel_id]), record.log_time, record.data)
    writer.close()
