"""Writes bags of serialized messages. A bag is a rosbag2 folder with MCAP inside."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from mcap.writer import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dagger_ros.contract import NEVER_NS, Action, Contract, DaggerError
from dagger_ros.contract.files import sync_folder, write_file

__all__ = ["ABOUT_BAG", "ACT", "DECISION", "BagWriter", "RecordedTopic", "part_of", "plant_topics", "typestore_of"]

# Name of the record inside a bag that says what is recorded.
ABOUT_BAG = "dagger_ros"

DECISION, ACT = "dagger_ros/msg/GateDecision", "dagger_ros/msg/OperatorAct"
_CHUNK_BYTES = 64 * 1024
# What was received is on the disk after so long; a recorder that is killed, or a power cut, can lose twice as much.
_SYNC_NS = 400_000_000
_FOREVER = {"sec": 9223372036, "nsec": 854775807}  # how ROS writes "no limit"


@dataclass(frozen=True)
class RecordedTopic:
    """What a bag says of a topic.

    Args:
        type: Message type, as in `sensor_msgs/msg/Imu`.
        reliable: Whether it is to be offered reliably when the bag is played; else best effort.
        latched: Whether late joiners are to get the last message.
    """

    type: str
    reliable: bool
    latched: bool

    @property
    def qos(self) -> dict[str, Any]:
        """The profile as rosbag2 writes it."""
        return {
            "history": "keep_last",
            "depth": 10,
            "reliability": "reliable" if self.reliable else "best_effort",
            "durability": "transient_local" if self.latched else "volatile",
            "deadline": _FOREVER,
            "lifespan": _FOREVER,
            "liveliness": "automatic",
            "liveliness_lease_duration": _FOREVER,
            "avoid_ros_namespace_conventions": False,
        }


def plant_topics(contract: Contract, action: Action | None = None) -> dict[str, RecordedTopic]:
    """What a robot, or its simulation, sends and is sent: streams, cameras and the command, by topic.

    Args:
        contract: Names them.
        action: The command, where it is another one than the contract's.
    """
    action = action or contract.action
    seen = {stream.topic: stream.type for stream in contract.streams.values()}
    seen |= {camera.topic: camera.type for camera in contract.cameras.values()}
    topics = {topic: RecordedTopic(type_, reliable=False, latched=False) for topic, type_ in seen.items()}
    return topics | {action.topic: RecordedTopic(action.type, reliable=True, latched=False)}


class BagWriter:
    """Writes serialized messages as they come; the bag appears under its name when it is closed.

    Args:
        path: Folder of the bag; must not exist.
        topics: By name.
        definitions: Text of the .msg file of every type that is not a standard one.
        about: What is recorded, by name; a metadata record inside the bag.

    Attributes:
        counts: Messages so far, by topic.

    Raises:
        DaggerError: If the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        topics: Mapping[str, RecordedTopic],
        definitions: Mapping[str, str],
        about: Mapping[str, str],
    ) -> None:
        self._path, self._part = path, part_of(path)
        self._topics = topics
        self._types = _type_descriptions(
            tuple(sorted({t.type for t in topics.values()})), tuple(sorted(definitions.items()))
        )
        self.counts = dict.fromkeys(topics, 0)
        self._first_ns: int | None = None
        self._last_ns = 0
        self._disk = ThreadPoolExecutor(1, "fsync")
        self._synced: Future[None] | None = None
        self._sync_ns = NEVER_NS  # until the first message
        try:
            if path.exists():
                raise DaggerError(f"{path}: expected no bag of this name yet; there is one, and it is left as it is")
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir(parents=True)
            self._file = (self._part / f"{path.name}.mcap").open("wb")
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever mends bags leaves this one alone
            self._writer = Writer(self._file, chunk_size=_CHUNK_BYTES, enable_data_crcs=True)
            self._writer.start(profile="ros2", library="dagger_ros")
            self._writer.add_metadata(ABOUT_BAG, dict(about))
            schemas = {
                type_: self._writer.register_schema(type_, "ros2msg", text.encode())
                for type_, (text, _) in self._types.items()
            }
            self._channels = {
                topic: self._writer.register_channel(
                    f"/{topic}", "cdr", schemas[about_topic.type], {"offered_qos_profiles": _qos_text(about_topic)}
                )
                for topic, about_topic in topics.items()
            }
            self._sync()
            sync_folder(self._part.parent)
        except OSError as error:
            raise DaggerError(f"{path}: expected a folder that can be written; {error}") from error

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Appends one message.

        Args:
            topic: One of the topics given at the start.
            time_ns: When it was received, ns.
            data: Serialized message, kept as it is.

        Raises:
            OSError: If the disk does not take it, or did not take what came before.
        """
        self._writer.add_message(self._channels[topic], time_ns, data, time_ns)
        self._first_ns = time_ns if self._first_ns is None else min(self._first_ns, time_ns)
        self.counts[topic] += 1
        self._last_ns = max(self._last_ns, time_ns)
        self.sync(time_ns)

    def sync(self, time_ns: int) -> None:
        """Gets what was written onto the disk where it is time to; to be called while nothing is written.

        Args:
            time_ns: On the clock of the messages, ns.

        Raises:
            OSError: If the disk did not take what came before, or the bag is not in its place any more.
        """
        if self._sync_ns == NEVER_NS or abs(time_ns - self._sync_ns) >= _SYNC_NS:
            self._sync_ns = time_ns
            self._sync()

    def _sync(self) -> None:
        """Gets what there is onto the disk, without waiting for it: a slow one must not hold up the messages."""
        self._writer.flush()
        os.stat(self._file.name)  # a file without a name takes what it is given, and is gone when it is closed
        if self._synced is not None:
            if not self._synced.done():
                return
            self._synced.result()
        self._synced = self._disk.submit(os.fsync, self._file.fileno())

    def close(self) -> None:
        """Finishes the bag and gives it its name.

        Raises:
            OSError: If the disk does not take it; what was written stays under its temporary name.
        """
        self._disk.shutdown()
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        write_file(self._part / "metadata.yaml", yaml.dump(self._metadata(), Dumper=yaml.CSafeDumper).encode())
        self._part.replace(self._path)
        sync_folder(self._path.parent)

    def abandon(self) -> None:
        """Leaves what was written under its temporary name, for a person to look at; the disk may be full."""
        self._disk.shutdown(wait=False)
        with contextlib.suppress(OSError):
            self._file.close()

    def discard(self) -> None:
        """Leaves nothing behind."""
        self._disk.shutdown()
        with contextlib.suppress(OSError):  # a full disk does not take what is left to write
            self._file.close()
        shutil.rmtree(self._part, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()  # if nothing else is in it

    def _metadata(self) -> dict[str, Any]:
        """What rosbag2 keeps beside a bag, in its version 9."""
        count = sum(self.counts.values())
        first_ns = self._first_ns or 0
        start = {"nanoseconds_since_epoch": first_ns}
        duration = {"nanoseconds": self._last_ns - first_ns}
        name = f"{self._path.name}.mcap"
        topics = [
            {
                "topic_metadata": {
                    "name": f"/{topic}",
                    "type": about.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": [about.qos],
                    "type_description_hash": self._types[about.type][1],
                },
                "message_count": self.counts[topic],
            }
            for topic, about in self._topics.items()
        ]
        file = {"path": name, "starting_time": start, "duration": duration, "message_count": count}
        return {
            "rosbag2_bagfile_information": {
                "version": 9,
                "storage_identifier": "mcap",
                "starting_time": start,
                "duration": duration,
                "message_count": count,
                "topics_with_message_count": topics,
                "compression_format": "",
                "compression_mode": "",
                "relative_file_paths": [name],
                "files": [file],
                "custom_data": None,
                "ros_distro": "",
            }
        }


def part_of(path: Path) -> Path:
    """Where a bag lies while it is written."""
    return path.with_name(f".{path.name}.part")


@cache
def _qos_text(about: RecordedTopic) -> str:
    text: str = yaml.dump([about.qos], Dumper=yaml.CSafeDumper)
    return text


@cache
def _type_descriptions(types: tuple[str, ...], definitions: tuple[tuple[str, str], ...]) -> dict[str, tuple[str, str]]:
    """For each type its definition, with those of the types it uses, and its hash."""
    typestore = typestore_of(definitions)
    return {t: (typestore.generate_msgdef(t, ros_version=2)[0], typestore.hash_rihs01(t)) for t in types}


@cache
def typestore_of(definitions: tuple[tuple[str, str], ...]) -> Typestore:
    """The standard types and these (name, definition) pairs; building one takes 0.1 s."""
    typestore = get_typestore(Stores.ROS2_KILTED)
    for name, text in definitions:
        if name not in typestore.fielddefs:
            types = get_types_from_msg(text, name)
            typestore.register({k: v for k, v in types.items() if k not in typestore.fielddefs})
    return typestore
