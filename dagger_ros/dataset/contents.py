"""What is in a bag of ours, topic by topic, as it was recorded; every checksum in it compared on the way."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Metadata, Schema, Statistics
from mcap.stream_reader import get_chunk_data_stream

from dagger_ros.contract import DaggerError
from dagger_ros.dataset.bag import ABOUT_BAG

__all__ = ["HEAD", "WHOLE", "Contents", "RecordedMessages", "read_contents", "read_in_turn", "read_said"]

# How many bytes of each message are asked for: all of them, or what has the stamp of a header.
WHOLE, HEAD = 1 << 62, 12

_MAGIC = bytes((0x89, *b"MCAP0\r\n"))
_RECORD = struct.Struct("<BQ")  # opcode, length
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHECKSUM = struct.Struct("<I")  # at the end of the records that end a section; 0: there is none
# What is looked at; index records are not.
_KINDS: dict[int, Any] = {
    Opcode.SCHEMA: Schema,
    Opcode.CHANNEL: Channel,
    Opcode.CHUNK: Chunk,
    Opcode.METADATA: Metadata,
    Opcode.STATISTICS: Statistics,
}
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class RecordedMessages:
    """The messages of one topic.

    Args:
        type: Message type, as in `sensor_msgs/msg/Imu`.
        definition: Text of its definition, with those of the types it uses.
        times_ns: (N,) int64, when each one was recorded, ns on the robot's clock.
        order: (N,) int64, which message of the bag each one is, over all topics, in the order of arrival.
        data: (N,) serialized messages, or as much of each as was asked for.
    """

    type: str
    definition: str
    times_ns: np.ndarray[Any, np.dtype[np.int64]]
    order: np.ndarray[Any, np.dtype[np.int64]]
    data: list[bytes]

    def stamps_ns(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(N,) int64, the header stamp of each one, ns; its type has a header."""
        raw = b"".join([d[:HEAD] for d in self.data])
        little, big = (np.frombuffer(raw, [("cdr", "4u1"), ("sec", f"{o}i4"), ("nanosec", f"{o}u4")]) for o in "<>")
        is_little = little["cdr"][:, 1] == 1
        sec, nanosec = (np.where(is_little, little[name], big[name]) for name in ("sec", "nanosec"))
        return sec.astype(np.int64) * _NS_PER_S + nanosec


@dataclass(frozen=True)
class Contents:
    """A whole bag.

    Args:
        path: Of the bag.
        about: What the recorder said of it: `contract`, `round`, `episode`, `seed`, `rule`, `started_ns`.
        counts: Number of messages by topic, without the slash before it.
        topics: The messages of the topics that were asked for.
    """

    path: Path
    about: dict[str, str]
    counts: dict[str, int]
    topics: dict[str, RecordedMessages]

    def of_type(self, type_: str) -> RecordedMessages | None:
        """The first topic of a type, of those that were asked for."""
        return next((messages for messages in self.topics.values() if messages.type == type_), None)


def read_contents(path: Path, wanted: Callable[[str, str], int]) -> Contents:
    """Reads a bag.

    Args:
        path: Folder of a bag that `BagWriter` finished.
        wanted: How many bytes of each message of a topic, by its name and type, are asked for: `WHOLE`, `HEAD`; 0: the
            topic is not.

    Raises:
        DaggerError: If it is not whole: it says in which file, and at which byte.
    """
    reader = _Reader(path)
    data: dict[int, list[bytes]] = {}
    times: dict[int, list[int]] = {}
    order: dict[int, list[int]] = {}
    counts: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for count, (channel, log_ns, chunk, begin, end) in enumerate(reader.messages()):
        size = sizes.get(channel)
        if size is None:
            size = sizes[channel] = wanted(reader.topic(channel), reader.type(channel))
            counts[channel], data[channel], times[channel], order[channel] = 0, [], [], []
        counts[channel] += 1
        if size:
            data[channel].append(chunk[begin : min(end, begin + size)])
            times[channel].append(log_ns)
            order[channel].append(count)
    reader.check(counts)
    topics = {}
    for channel in reader.channels:
        if wanted(reader.topic(channel), reader.type(channel)):
            schema = reader.schema(channel)
            stamps, places = (np.array(values.get(channel, []), np.int64) for values in (times, order))
            messages = RecordedMessages(schema.name, schema.data.decode(), stamps, places, data.get(channel, []))
            topics[reader.topic(channel)] = messages
    named = {reader.topic(channel): counts.get(channel, 0) for channel in reader.channels}
    return Contents(path, reader.about, named, topics)


def read_in_turn(path: Path, order: Iterable[int]) -> Iterator[bytes]:
    """Reads some messages of a bag, and keeps none of them.

    Args:
        path: As for `read_contents`.
        order: Which ones, as in `RecordedMessages.order`; not decreasing. One that is asked for several times is the
            same object each time.

    Raises:
        DaggerError: If the bag is not whole.
    """
    asked = iter(order)
    at = next(asked, None)
    for count, (_, _, chunk, begin, end) in enumerate(_Reader(path).messages()):
        if at == count:
            message = chunk[begin:end]
            while at == count:
                yield message
                at = next(asked, None)
        if at is None:
            return


def read_said(path: Path) -> dict[str, str]:
    """What the recorder said of a bag (`Contents.about`), from its beginning.

    Args:
        path: As for `read_contents`.

    Raises:
        DaggerError: If the bag is not whole up to its first message.
    """
    reader = _Reader(path)
    next(reader.messages(), None)
    return reader.about


@dataclass
class _Reader:
    """Goes through the file of a bag once; what it says of itself is known when that part was passed."""

    path: Path
    about: dict[str, str] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    _schemas: dict[int, Schema] = field(default_factory=dict)
    _statistics: Statistics | None = None
    _offset: int = 0

    def topic(self, channel: int) -> str:
        """Name as a contract has it."""
        return str(self.channels[channel].topic).removeprefix("/")

    def type(self, channel: int) -> str:
        """Message type."""
        return str(self.schema(channel).name)

    def schema(self, channel: int) -> Schema:
        """Message type and definition."""
        return self._schemas[self.channels[channel].schema_id]

    def messages(self) -> Iterator[tuple[int, int, bytes, int, int]]:
        """Channel, time of recording in ns, and the bytes that a message lies in, with begin and end."""
        path = self.path / f"{self.path.name}.mcap"
        if not (self.path / "metadata.yaml").is_file() or not path.is_file():
            raise DaggerError(
                f"{self.path}: expected a whole rosbag2 folder (MCAP), with metadata.yaml and {path.name}; it is not "
                "there, or its recorder was killed (`dagger-ros recover` makes it whole)"
            )
        with path.open("rb") as file:
            try:
                for opcode, record in self._records(file):
                    if opcode == Opcode.CHUNK:
                        yield from self._chunk(Chunk.read(ReadDataStream(BytesIO(record))))
                    else:
                        self._take(opcode, record)
            except Exception as error:  # what damaged bytes make a decoder raise is not to be listed
                words = str(error) or type(error).__name__
                raise DaggerError(
                    f"{path}: expected a whole bag; it is damaged or cut short at byte {self._offset}: {words}"
                ) from error

    def check(self, counts: dict[int, int]) -> None:
        """Compares the number of messages with what the file says."""
        said = {} if self._statistics is None else self._statistics.channel_message_counts
        for channel in self.channels:
            if said.get(channel, 0) != counts.get(channel, 0):
                raise DaggerError(
                    f"{self.path}: expected {said.get(channel, 0)} messages on /{self.topic(channel)}, as the index "
                    f"of the bag says, found {counts.get(channel, 0)}"
                )

    def _take(self, opcode: int, record: bytes) -> None:
        read = _KINDS[opcode].read(ReadDataStream(BytesIO(record)))
        if isinstance(read, Metadata) and read.name == ABOUT_BAG:
            self.about = dict(read.metadata)
        elif isinstance(read, Schema):
            self._schemas[read.id] = read
        elif isinstance(read, Channel):
            if read.schema_id not in self._schemas:
                raise ValueError(f"expected the message type of {read.topic}, found none")
            self.channels[read.id] = read
        elif isinstance(read, Statistics):
            self._statistics = read

    def _chunk(self, chunk: Chunk) -> Iterator[tuple[int, int, bytes, int, int]]:
        stream, length = get_chunk_data_stream(chunk, validate_crc=True)
        data = stream.read(length)
        begin = 0
        while begin < length:
            opcode, size = _RECORD.unpack_from(data, begin)
            begin += _RECORD.size
            if opcode == Opcode.MESSAGE:
                channel, _, log_ns, _ = _MESSAGE.unpack_from(data, begin)
                if channel not in self.channels:
                    raise ValueError(f"expected a message of a topic of the bag, found one of number {channel}")
                yield channel, log_ns, data, begin + _MESSAGE.size, begin + size
            elif opcode in _KINDS:
                self._take(opcode, data[begin : begin + size])
            begin += size

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The records of a file that are looked at, to its end: opcode and content.

        Behind the messages all is said once more for an index, of which only the number of messages is looked at.
        """
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("expected an MCAP file")
        kinds = set(_KINDS)
        checksum, opcode = zlib.crc32(_MAGIC), 0
        while opcode != Opcode.FOOTER:
            self._offset = file.tell()
            head = file.read(_RECORD.size)
            if len(head) < _RECORD.size:
                raise ValueError("expected another record, found the end of the file")
            opcode, length = _RECORD.unpack(head)
            record = file.read(length)
            if len(record) < length:
                raise ValueError(f"expected a record of {length} bytes, found {len(record)}")
            if opcode == Opcode.DATA_END:
                _compare(checksum, record)
                checksum, kinds = 0, {Opcode.STATISTICS}
                continue
            if opcode == Opcode.FOOTER:
                _compare(zlib.crc32(record[: -_CHECKSUM.size], zlib.crc32(head, checksum)), record)
            checksum = zlib.crc32(record, zlib.crc32(head, checksum))
            if opcode in kinds:
                yield opcode, record
        if file.read() != _MAGIC:
            raise ValueError("expected the end of an MCAP file behind its last record")


def _compare(checksum: int, record: bytes) -> None:
    (said,) = _CHECKSUM.unpack(record[-_CHECKSUM.size :])
    if said not in (0, checksum):
        raise ValueError(f"expected bytes before it with checksum {said:08x}, found {checksum:08x}")
