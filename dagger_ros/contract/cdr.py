"""Selected numbers from and to the bytes of a message, without making a Python object of it.

A message is walked through once to find where everything lies. The next one of the same lengths, names and frame, as
all of a stream are, is looked into at the same places: the numbers are a view on its bytes, from which those that the
contract selects are converted into their place in one step. What is sent is written into one message in the same way.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dagger_ros.contract.schema import Action, Stream
from dagger_ros.contract.types import MESSAGE_TYPES, FieldKind, parse_field

__all__ = ["CdrReader", "CdrWriter"]

Array = np.ndarray[Any, np.dtype[Any]]

_NS_PER_S = 1_000_000_000
# The bytes before a message; the second one says in which order those of its numbers are. Alignment counts from there.
_BEFORE = 4
_STAMP, _STAMP_END = (struct.Struct(">iI"), struct.Struct("<iI")), _BEFORE + 8
# More would not be a message that anybody sends here, but bytes that are none.
_MOST = 1 << 20


class _Step(NamedTuple):
    """One field of a message type.

    Args:
        kind: `numbers` (of a fixed count), `sequence` (of numbers), `string`, `strings`, `one` (a sequence of which we
            read only those with one element), or `dims` (of a MultiArrayLayout).
        name: Path of the field; of a fixed group of numbers without their names.
        type: numpy type of the numbers.
        parts: Of a fixed group: name of each number behind `name`.
    """

    kind: str
    name: str = ""
    type: str = "f8"
    parts: tuple[str, ...] = ()


def _group(name: str, parts: str) -> _Step:
    return _Step("numbers", name, "f8", tuple(parts.split()))


def _skipped(count: int, type_: str = "f8") -> _Step:
    return _Step("numbers", "", type_, ("",) * count)


_XYZ, _QUATERNION = "x y z", "x y z w"
_HEADER = (_skipped(2, "u4"), _Step("string"))
_JOINT_VALUES = (_Step("sequence", "position"), _Step("sequence", "velocity"), _Step("sequence", "effort"))


def _pose(prefix: str) -> tuple[_Step, ...]:
    return _group(f"{prefix}.position", _XYZ), _group(f"{prefix}.orientation", _QUATERNION)


def _twist(prefix: str) -> tuple[_Step, ...]:
    return _group(f"{prefix}.linear", _XYZ), _group(f"{prefix}.angular", _XYZ)


# The fields of each type in their order, as far as one of them can be selected.
_TYPES = {
    "sensor_msgs/msg/JointState": (*_HEADER, _Step("strings"), *_JOINT_VALUES),
    "sensor_msgs/msg/LaserScan": (
        *_HEADER,
        _skipped(7, "f4"),
        _Step("sequence", "ranges", "f4"),
        _Step("sequence", "intensities", "f4"),
    ),
    "sensor_msgs/msg/Imu": (
        *_HEADER,
        _group("orientation", _QUATERNION),
        _skipped(9),
        _group("angular_velocity", _XYZ),
        _skipped(9),
        _group("linear_acceleration", _XYZ),
    ),
    "nav_msgs/msg/Odometry": (*_HEADER, _Step("string"), *_pose("pose.pose"), _skipped(36), *_twist("twist.twist")),
    "geometry_msgs/msg/WrenchStamped": (*_HEADER, _group("wrench.force", _XYZ), _group("wrench.torque", _XYZ)),
    "geometry_msgs/msg/PoseStamped": (*_HEADER, *_pose("pose")),
    "geometry_msgs/msg/TwistStamped": (*_HEADER, *_twist("twist")),
    "std_msgs/msg/Float64MultiArray": (_Step("dims"), _skipped(1, "u4"), _Step("sequence", "data")),
    "trajectory_msgs/msg/JointTrajectory": (
        *_HEADER,
        _Step("strings"),
        _Step("one"),
        _Step("sequence", "positions"),
        _Step("sequence", "velocities"),
        _Step("sequence", "accelerations"),
        _Step("sequence", "effort"),
    ),
}


class _Run(NamedTuple):
    """Numbers of one type side by side in a message, and which of them are wanted.

    Args:
        dtype: Of the numbers, with their byte order.
        size: How many there are.
        start: Where they begin, bytes.
        wanted: Which of them.
        out: Where they go in the vector.
    """

    dtype: np.dtype[Any]
    size: int
    start: int
    wanted: slice | Array
    out: slice


class _Layout(NamedTuple):
    """Where everything lies in messages that are equal in what is `fixed`.

    Args:
        fixed: Begin, end and content of all that lengths and names follow from.
        end: Of the last number that is read.
        runs: What is read.
    """

    fixed: tuple[tuple[int, int, bytes], ...]
    end: int
    runs: tuple[_Run, ...]

    def fits(self, data: bytes) -> bool:
        """Whether a message is laid out like this."""
        for begin, end, content in self.fixed:
            if data[begin:end] != content:
                return False
        return len(data) >= self.end


class CdrReader:
    """Copies the selected fields of one serialized message into one vector: a `StreamReader` of bytes.

    Args:
        stream: What to select; a stream of observations or the action.

    Attributes:
        size: n, how many values are selected.
        has_header: Whether its messages have a stamp of their own.
    """

    def __init__(self, stream: Stream | Action) -> None:
        about = MESSAGE_TYPES[stream.type]
        self.size, self.has_header = len(stream.dimensions), about.has_header
        self._steps, self._kind, self._select = _TYPES[stream.type], about.kind, tuple(stream.select)
        self._layout: _Layout | None = None

    def read(self, data: bytes, out: Array) -> bool:
        """Fills `out`.

        Args:
            data: A message of the stream's type, as it is on the wire.
            out: (n,) float64, the caller keeps it. Undefined after False.

        Returns:
            Whether the message held every selected field. False for a missing joint, a short array, or bytes that are
            no message of the type.
        """
        layout = self._layout
        if layout is None or not layout.fits(data):
            layout = self._layout = self._walk(data)
            if layout is None:
                return False
        for dtype, size, start, wanted, place in layout.runs:
            out[place] = np.frombuffer(data, dtype, size, start)[wanted]
        return True

    def stamp_ns(self, data: bytes, receive_ns: int) -> int:
        """The header stamp, ns; of a message without header, or of bytes that are none, the time of receipt."""
        if not self.has_header or len(data) < _STAMP_END:
            return receive_ns
        sec, nanosec = _STAMP[data[1] & 1].unpack_from(data, _BEFORE)
        return int(sec * _NS_PER_S + nanosec)

    def _walk(self, data: bytes) -> _Layout | None:
        """Where the selected fields of a message lie; None: not every one is there."""
        try:
            walk = _Walk(data, self._steps)
        except (struct.error, IndexError, ValueError):
            return None
        runs = walk.runs(self._select, self._kind)
        if runs is None:
            return None
        end = max([_BEFORE, *(run.start + run.size * run.dtype.itemsize for run in runs)])
        return _Layout(tuple(part for part in walk.fixed if part[1] <= end), end, runs)


class CdrWriter:
    """Writes the streams that share a topic, or the action, into one serialized message that is there already.

    Args:
        parts: The streams (or the action), in contract order.
        template: A message as `shape_message` makes it, serialized; all else in it stays as it is.

    Raises:
        ValueError: If the template lacks a selected field.
    """

    def __init__(self, parts: Sequence[Stream | Action], template: bytes) -> None:
        about = MESSAGE_TYPES[parts[0].type]
        self._has_header, self._stamp = about.has_header, _STAMP[template[1] & 1]
        self._message = bytearray(template)
        walk = _Walk(template, _TYPES[parts[0].type])
        for at in walk.padding:  # whatever was in memory, and not the same each time
            self._message[at] = 0
        # Numbers in the message, which of them, and where they stand in which vector.
        self._targets = []
        for index, part in enumerate(parts):
            runs = walk.runs(part.select, about.kind)
            if runs is None:
                raise ValueError(f"expected a {part.type} with {', '.join(part.select)} for {part.topic}")
            for run in runs:
                numbers = np.frombuffer(self._message, run.dtype, run.size, run.start)
                self._targets.append((numbers, run.wanted, index, run.out))

    def fill(self, vectors: Sequence[Array], time_ns: int) -> bytes:
        """Writes values and stamp.

        Args:
            vectors: One (n,) float64 vector for each part.
            time_ns: Header stamp, ns.

        Returns:
            The message, as a publisher takes it.
        """
        if self._has_header:
            self._stamp.pack_into(self._message, _BEFORE, *divmod(time_ns, _NS_PER_S))
        for numbers, wanted, index, place in self._targets:
            numbers[wanted] = vectors[index][place]
        return bytes(self._message)


class _Walk:
    """One message from its begin to its end.

    Args:
        data: The message.
        steps: Of its type.

    Attributes:
        order: Of the bytes of its numbers.
        numbers: Type, begin and count of each field.
        fixed: As in `_Layout`.
        padding: Bytes that only align what follows; they may hold anything.

    Raises:
        struct.error, IndexError, ValueError: If it is none of the type.
    """

    def __init__(self, data: bytes, steps: Sequence[_Step]) -> None:
        self._data, self._begin, self._at = data, 0, _BEFORE
        self.order = "<" if data[1] & 1 else ">"
        self.numbers: dict[str, tuple[str, int, int]] = {}
        self.fixed: list[tuple[int, int, bytes]] = []
        self.padding: list[int] = []
        self._parts: dict[str, tuple[str, int]] = {}
        self._strings: list[bytes] = []
        for step in steps:
            if step.kind == "numbers":
                self._take(step.name, step.type, len(step.parts))
                self._parts |= {f"{step.name}.{part}": (step.name, i) for i, part in enumerate(step.parts)}
                continue
            count = self._count()
            if step.kind == "string":
                self._string(count)
            elif step.kind == "strings":
                self._strings = [self._string(self._count()) for _ in range(count)]
            elif step.kind == "sequence":
                self._take(step.name, step.type, count)
            elif step.kind == "one" and count != 1:
                raise ValueError("expected one element")
            elif step.kind == "dims":
                for _ in range(count):
                    self._string(self._count())
                    self._take("", "u4", 2)

    def find(self, path: str, kind: FieldKind) -> tuple[str, list[int]] | None:
        """The field that a selection is of, and which of its numbers; None: they are not there."""
        if kind is FieldKind.ATTRIBUTE:
            name, index = self._parts[path]
            return name, [index]
        if kind is FieldKind.ARRAY:
            part = parse_field(path)
            return (part.name, [*range(part.start, part.stop)]) if self.numbers[part.name][2] >= part.stop else None
        name, _, joint = path.partition(".")
        whole = self.numbers[name][2] == len(self._strings) and joint.encode() in self._strings
        return (name, [self._strings.index(joint.encode())]) if whole else None

    def runs(self, select: Sequence[str], kind: FieldKind) -> tuple[_Run, ...] | None:
        """The numbers that a selection is of; None: not every one is there."""
        # Selections of the same numbers one after the other are one.
        chosen: list[tuple[str, list[int]]] = []
        for path in select:
            found = self.find(path, kind)
            if found is None:
                return None
            name, indices = found
            if chosen and chosen[-1][0] == name:
                chosen[-1][1].extend(indices)
            else:
                chosen.append((name, indices))
        runs, at = [], 0
        for name, indices in chosen:
            type_, start, count = self.numbers[name]
            end, first = at + len(indices), indices[0]
            in_order = indices == [*range(first, first + len(indices))]
            wanted = slice(first, first + len(indices)) if in_order else np.array(indices)
            runs.append(_Run(np.dtype(self.order + type_), count, start, wanted, slice(at, end)))
            at = end
        return tuple(runs)

    def _take(self, name: str, type_: str, count: int) -> None:
        """Numbers: their bytes may change from one message to the next."""
        size = int(type_[1:])
        self._align(size if count else 1)  # where there is nothing, nothing is aligned
        self._pass(0)
        self.numbers[name] = type_, self._at, count
        self._at += count * size
        self._begin = self._at
        if self._at > len(self._data):
            raise ValueError("expected more bytes")

    def _count(self) -> int:
        self._align(4)
        (count,) = struct.unpack_from(f"{self.order}I", self._data, self._at)
        self._at += 4
        if count > _MOST:
            raise ValueError("expected less")
        return int(count)

    def _string(self, count: int) -> bytes:
        content = self._data[self._at : self._at + count]
        self._at += count
        return content.rstrip(b"\0")

    def _align(self, size: int) -> None:
        padding = (_BEFORE - self._at) % size
        if padding:
            self.padding += range(self._at, self._at + padding)
            self._pass(padding)

    def _pass(self, count: int) -> None:
        """Leaves out bytes that may hold anything; what stands before them is fixed."""
        if self._at > self._begin:
            self.fixed.append((self._begin, self._at, self._data[self._begin : self._at]))
        self._at += count
        self._begin = self._at
