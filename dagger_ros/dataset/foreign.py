"""Reads a bag that was recorded elsewhere, and makes rows of it under a contract; or says why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dagger_ros.contract import NEVER_NS, Action, Contract, DaggerError, RowLayout, StreamReader
from dagger_ros.contract.files import file_sha256
from dagger_ros.dataset.align import COMMAND, Sample, Tally, align, unlabelled
from dagger_ros.dataset.bag import plant_topics, typestore_of
from dagger_ros.dataset.rows import percentiles_s

__all__ = ["ForeignBag", "Reading", "StreamReport"]

# Of the messages of a topic: more of them with a stamp older than the last one's are no accident.
_MOST_OUT_OF_ORDER = 0.01
_BY_HEADER = "--clock received takes the recorded time in place of the stamps"


@dataclass(frozen=True)
class Reading:
    """How a bag is to be understood.

    Args:
        renamed: Topics that go by another name in the bag, by that name; both without a leading slash.
        action_topic: Topic of the command, by the name that it has then; None: the contract's.
        action_type: Its type; None: the contract's.
        by_header: Ages are measured by header stamps too; False: by the recorded time alone.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    action_topic: str | None = None
    action_type: str | None = None
    by_header: bool = True

    def action(self, contract: Contract) -> Action:
        """The contract's action as it was recorded.

        Raises:
            DaggerError: If it is not known where in a message of this type its numbers are.
        """
        action = contract.action
        type_ = self.action_type or action.type
        select = _selection(action, type_)
        if select is None:
            raise DaggerError(
                f"action topic: expected a type from which {', '.join(action.dimensions)} can be read, {action.type} "
                f"or std_msgs/msg/Float64MultiArray (in this order); got {type_}"
            )
        dimensions = [d.model_copy(update={"select": s}) for d, s in zip(action.dimensions_, select, strict=True)]
        topic = self.action_topic or action.topic
        return action.model_copy(update={"topic": topic, "type": type_, "dimensions_": tuple(dimensions)})


def _selection(action: Action, type_: str) -> tuple[str, ...] | None:
    """Where the numbers of an action stand in messages of another type; None: not known."""
    if type_ == action.type:
        return action.select
    if type_ == "std_msgs/msg/Float64MultiArray":
        return tuple(f"data[{i}]" for i in range(len(action.dimensions_)))
    return None


@dataclass(frozen=True)
class StreamReport:
    """How one stream came, or the command.

    Args:
        name: Of the stream; `command`.
        tally: Of its messages.
        rate_hz: Messages in a second.
        expected_hz: As the contract says.
        ages_s: At the control ticks: the median, the 99th percentile and the largest, s. By stamp or by time of
            receipt, whichever is older; of the command by time of receipt.
        max_age_s: As the contract says.
        stale_ticks: At which it was older, or had never come.
    """

    name: str
    tally: Tally
    rate_hz: float
    expected_hz: float
    ages_s: tuple[float, float, float]
    max_age_s: float
    stale_ticks: int


class ForeignBag:
    """A bag that was recorded elsewhere, read and found good.

    Args:
        path: A rosbag2 folder, or a single .mcap or .db3 file.
        layout: Of the contract that it is to be read under.
        reading: How.

    Attributes:
        path: As given.
        layout: As given.
        rows: (T,) rows of its control ticks, without operator and episode.
        topics: What is taken over, by name.
        counts: Messages of each.
        sha256: Of each file, by name.
        started_ns: When the first message that is read was recorded, ns.
        finished_ns: When the last one was.
        streams: How they came, in the contract's order, and the command last.

    Raises:
        DaggerError: If it is damaged or not what the contract wants.
    """

    def __init__(self, path: Path, layout: RowLayout, reading: Reading) -> None:
        self.path, self.layout, self._reading = path, layout, reading
        contract, self._action = layout.contract, reading.action(layout.contract)
        self.topics = plant_topics(contract, self._action)
        if not path.exists() or (path.is_dir() and not (path / "metadata.yaml").is_file()):
            raise DaggerError(
                f"{path}: expected a rosbag2 folder with its metadata.yaml, or an .mcap or .db3 file; there is none "
                "(`ros2 bag reindex` makes that of a recorder that was killed)"
            )
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        self.sha256 = {f.name: file_sha256(f) for f in files if f.is_file()}
        self.counts = dict.fromkeys(self.topics, 0)
        samples = self._samples()
        self.started_ns, self.finished_ns = samples[0].received_ns, samples[-1].received_ns
        self._check_clock(samples)
        try:
            self.rows, tallies = align(samples, layout)
        except ValueError as error:
            raise DaggerError(f"{path}: {error}") from error
        self._check_order(tallies)
        self._check_command(samples)
        needed = int(contract.timing.control_rate_hz)
        if len(self.rows) < needed:
            raise DaggerError(
                f"{path}: expected at least a second of control ticks ({needed}) in which every stream and the command "
                f"had come; there are {len(self.rows)}"
            )
        self.streams = self._reports(tallies)

    @property
    def unlabelled(self) -> dict[str, int]:
        """Ticks without a label by reason; a tick may have several."""
        return unlabelled(self.rows)

    def messages(self) -> Iterator[tuple[str, int, bytes]]:
        """Topic, recorded time (ns) and bytes of each message that is taken over, in order.

        Raises:
            DaggerError: If the bag is damaged, or was changed while it was read.
        """
        last_ns, counts = -(2**63), dict.fromkeys(self.topics, 0)
        where = "its beginning"
        try:
            with Reader(self.path) as reader:
                wanted = self._wanted(reader.connections)
                expected = dict.fromkeys(self.topics, 0)
                for connection, topic in wanted:
                    expected[topic] += connection.msgcount
                names = {connection.topic: topic for connection, topic in wanted}
                for connection, recorded_ns, data in reader.messages(connections=[c for c, _ in wanted]):
                    topic = names[connection.topic]
                    if recorded_ns < last_ns:
                        raise DaggerError(
                            f"{self.path}: {topic}, message {counts[topic]}: expected recorded times that do not "
                            f"decrease; it was recorded {(last_ns - recorded_ns) * 1e-9:.3f} s before the one before it"
                        )
                    last_ns, where = recorded_ns, f"message {counts[topic]} of {topic}"
                    counts[topic] += 1
                    yield topic, recorded_ns, bytes(data)
        except (DaggerError, GeneratorExit):
            raise
        except Exception as error:  # what a damaged file makes a decoder raise is not to be listed
            raise DaggerError(
                f"{self.path}: expected a whole rosbag2 bag; it is damaged or cut short behind {where}: {error}"
            ) from error
        for topic, count in counts.items():
            if count != expected[topic]:
                raise DaggerError(
                    f"{self.path}: {topic}: expected {expected[topic]} messages as the bag's index says, found "
                    f"{count}; it is damaged or cut short"
                )

    def _wanted(self, connections: list[Connection]) -> list[tuple[Connection, str]]:
        """The connections that are read, and what their topics are called here."""
        there = {c.topic.strip("/") for c in connections}
        for name in self._reading.renamed.keys() - there:
            raise DaggerError(f"{self.path}: --map {name}: expected a topic of the bag; it has {_list(connections)}")
        named = [(c, self._reading.renamed.get(c.topic.strip("/"), c.topic.strip("/"))) for c in connections]
        for topic, about in self.topics.items():
            found = [c for c, name in named if name == topic]
            if not sum(c.msgcount for c in found):
                raise DaggerError(
                    f"{self.path}: {topic}: expected messages of this topic of contract {self.layout.contract.name}, "
                    f"found none; the bag has {_list(connections)}. --map FROM:={topic} where it has another name"
                )
            if len({c.topic for c in found}) > 1:
                names = ", ".join(sorted({c.topic for c in found}))
                raise DaggerError(f"{self.path}: {topic}: expected one topic of this name, got {names}; see --map")
            for connection in found:
                self._check_type(topic, connection, about.type)
        return [(c, name) for c, name in named if name in self.topics]

    def _check_type(self, topic: str, connection: Connection, type_: str) -> None:
        if connection.msgtype != type_:
            raise DaggerError(f"{self.path}: {topic}: expected type {type_}, found {connection.msgtype}")
        difference = _difference(connection)
        if difference:
            raise DaggerError(
                f"{self.path}: {topic}: expected {type_} as ROS defines it; the bag's definition differs: {difference}"
            )

    def _samples(self) -> list[Sample]:
        """What the messages say of the streams and the command."""
        typestore = typestore_of(())
        contract, type_of = self.layout.contract, {topic: about.type for topic, about in self.topics.items()}
        readers: dict[str, list[tuple[int, StreamReader]]] = {topic: [] for topic in self.topics}
        for i, stream in enumerate(contract.streams.values()):
            readers[stream.topic].append((i, StreamReader(stream)))
        readers[self._action.topic].append((COMMAND, StreamReader(self._action)))
        samples = []
        for topic, recorded_ns, data in self.messages():
            number = self.counts[topic]
            self.counts[topic] += 1
            if not readers[topic]:
                continue  # pictures are taken over unread
            try:
                message = typestore.deserialize_cdr(data, type_of[topic])
            except Exception as error:  # what a damaged message makes a decoder raise is not to be listed
                raise DaggerError(
                    f"{self.path}: {topic}, message {number}: expected {type_of[topic]}; it cannot be read: {error}"
                ) from error
            for stream_index, reader in readers[topic]:
                values = np.empty(reader.size)
                stamp_ns = reader.stamp_ns(message, recorded_ns) if self._reading.by_header else recorded_ns
                known = reader.read(message, values)
                samples.append(Sample(stream_index, values if known else None, stamp_ns, recorded_ns))
        return samples

    def _topic(self, stream: int) -> str:
        return self._action.topic if stream == COMMAND else list(self.layout.contract.streams.values())[stream].topic

    def _check_clock(self, samples: list[Sample]) -> None:
        """Stamps of another clock would make everything look old, or from the future."""
        limit_s = max(s.max_age_s for s in self.layout.contract.streams.values())
        offsets: dict[int, list[int]] = {}
        for sample in samples:
            offsets.setdefault(sample.stream, []).append(sample.received_ns - sample.stamp_ns)
        for stream, values in offsets.items():
            offset_s = float(np.median(values)) * 1e-9
            if abs(offset_s) > limit_s:
                raise DaggerError(
                    f"{self.path}: {self._topic(stream)}: expected header stamps of the clock by which the bag was "
                    f"recorded; they are {abs(offset_s):.3f} s {'behind' if offset_s > 0 else 'ahead'} in the middle, "
                    f"the largest age of a stream is {limit_s:g} s. {_BY_HEADER}"
                )

    def _check_order(self, tallies: Mapping[int, Tally]) -> None:
        for stream, tally in tallies.items():
            if tally.out_of_order > _MOST_OUT_OF_ORDER * tally.messages:
                raise DaggerError(
                    f"{self.path}: {self._topic(stream)}: expected header stamps that do not decrease; those of "
                    f"{tally.out_of_order} of {tally.messages} messages do, first message {tally.first_out_of_order}. "
                    f"{_BY_HEADER}"
                )

    def _check_command(self, samples: list[Sample]) -> None:
        """A command that is never within the bounds is in another unit, or of something else."""
        action = self.layout.contract.action
        given = [s.values for s in samples if s.stream == COMMAND and s.values is not None]
        values = np.array([v for v in given if np.isfinite(v).all()]).reshape(-1, len(action.dimensions_))
        lower, upper = (np.array([getattr(d, end) for d in action.dimensions_]) for end in ("lower", "upper"))
        inside = (values >= lower) & (values <= upper)
        if inside.all(axis=1).any():
            return
        if not len(values):
            raise DaggerError(
                f"{self.path}: {self._action.topic}: expected commands with {', '.join(action.dimensions)}; in none of "
                f"the {self.counts[self._action.topic]} messages are they all there and finite"
            )
        worst = int(inside.sum(axis=0).argmin())
        about = action.dimensions_[worst]
        raise DaggerError(
            f"{self.path}: {self._action.topic}: expected commands within the contract's bounds, none of {len(values)} "
            f"is; {about.name} is from {values[:, worst].min():g} to {values[:, worst].max():g}, its bounds are "
            f"{about.lower:g} to {about.upper:g} {about.unit}: another unit?"
        )

    def _reports(self, tallies: Mapping[int, Tally]) -> tuple[StreamReport, ...]:
        contract, rows = self.layout.contract, self.rows
        seconds = (self.finished_ns - self.started_ns) * 1e-9
        command = ("command", contract.timing.control_rate_hz, contract.timing.expert_max_age_s)
        about = [(name, s.rate_hz, s.max_age_s) for name, s in contract.streams.items()]
        received = np.column_stack([rows["receive_ns"], rows["expert_receive_ns"]])
        oldest = np.column_stack([np.minimum(rows["stamp_ns"], rows["receive_ns"]), rows["expert_receive_ns"]])
        reports = []
        for i, (name, expected_hz, max_age_s) in enumerate([*about, command]):
            ages_ns = (rows["time_ns"] - oldest[:, i])[received[:, i] != NEVER_NS]
            stale = len(rows) - int((ages_ns <= round(max_age_s * 1e9)).sum())
            tally = tallies[COMMAND if i == len(about) else i]
            rate_hz = tally.messages / seconds
            reports.append(
                StreamReport(name, tally, rate_hz, expected_hz, percentiles_s(ages_ns * 1e-9), max_age_s, stale)
            )
        return tuple(reports)


def _difference(connection: Connection) -> str:
    """How a bag's definition of a type differs from the standard one; empty: it does not, or the bag has none."""
    standard, type_, definition = typestore_of(()), connection.msgtype, connection.msgdef
    ours = standard.hash_rihs01(type_)
    if definition.format is MessageDefinitionFormat.NONE:  # before Iron; these types are the same in every distribution
        return "" if connection.digest in ("", ours) else f"its hash is {connection.digest}, not {ours}"
    if definition.format is not MessageDefinitionFormat.MSG:
        return "it is not given as .msg text"
    theirs = get_typestore(Stores.EMPTY)
    try:
        theirs.register(get_types_from_msg(definition.data, type_))
        found = theirs.hash_rihs01(type_)
    except Exception as error:  # what a damaged text makes a parser raise is not to be listed
        return f"it cannot be read: {error}"
    if found == ours:
        return ""
    wanted, given = (_fields(store.generate_msgdef(type_, ros_version=2)[0]) for store in (standard, theirs))
    for ours_, theirs_ in zip([*wanted, "nothing more"], [*given, "nothing more"], strict=False):
        if ours_ != theirs_:
            return f"`{theirs_}` in place of `{ours_}`"
    return f"its hash is {found}, not {ours}"


def _fields(text: str) -> list[str]:
    """The lines of a definition without those of constants."""
    return [line for line in text.splitlines() if line and ("=" not in line or "<=" in line)]


def _list(connections: list[Connection]) -> str:
    return ", ".join(sorted({f"{c.topic} ({c.msgtype})" for c in connections})) or "nothing"
