"""Converts between ROS messages and flat arrays, for the standard types that a contract may name.

The functions here touch messages only through their attributes, so they serve rclpy messages and the messages
that `rosbags` reads alike, and this module needs neither.

A field is selected by its path inside the message, as `ros2 topic echo --field` takes it, with two additions:
values of joint messages are selected by joint name (`position.j1`), never by message order, and arrays by a
half-open range (`ranges[0:24]`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from dagger_ros.contract.schema import Action, ImageStream, Stream
from dagger_ros.contract.types import MESSAGE_TYPES, FieldKind, parse_field

__all__ = [
    "StreamReader",
    "TopicWriter",
    "read_image",
    "stamp_from_ns",
    "stamp_ns",
]

_NS_PER_S = 1_000_000_000

Array = np.ndarray[Any, np.dtype[Any]]
_Read = Callable[[Any, Array], bool]
_Fill = Callable[[Sequence[Array]], None]


def stamp_ns(stamp: Any) -> int:
    """Integer nanoseconds of a `builtin_interfaces/Time`."""
    return int(stamp.sec) * _NS_PER_S + int(stamp.nanosec)


def stamp_from_ns(stamp: Any, value_ns: int) -> None:
    """Writes integer nanoseconds into a `builtin_interfaces/Time`."""
    stamp.sec, stamp.nanosec = divmod(value_ns, _NS_PER_S)


class StreamReader:
    """Copies the selected fields of one message into one vector.

    Args:
        stream: What to select; a stream of observations or the action.

    Attributes:
        size: n, how many values are selected.
        has_header: Whether its messages have a stamp of their own.
        read: Takes a message of the stream's type and a vector, (n,) float64, which it fills. Gives whether the message
            held every selected field; False for a missing joint or a short array: the vector is undefined then.
    """

    def __init__(self, stream: Stream | Action) -> None:
        self.size = len(stream.dimensions)
        self.has_header = MESSAGE_TYPES[stream.type].has_header
        self.read: _Read = _READERS[MESSAGE_TYPES[stream.type].kind](stream.select)

    def stamp_ns(self, message: Any, receive_ns: int) -> int:
        """The header stamp, ns; of a message without header the time at which it was received."""
        if not self.has_header:
            return receive_ns
        stamp = message.header.stamp
        return int(stamp.sec) * _NS_PER_S + int(stamp.nanosec)


def read_image(image: ImageStream, message: Any) -> Array:
    """Pixels of an Image or CompressedImage message.

    Args:
        image: What the contract says of the camera.
        message: sensor_msgs/Image (a view on its data is returned) or sensor_msgs/CompressedImage (decoded).

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ValueError: If the picture is not of the contract's size or of an encoding that is not understood.
    """
    if image.type.endswith("CompressedImage"):
        import io

        from PIL import Image

        pixels = np.asarray(Image.open(io.BytesIO(bytes(message.data))).convert("RGB"))
    else:
        channels = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "mono8": (0, 0, 0)}.get(message.encoding)
        if channels is None:
            raise ValueError(f"expected an image encoded as rgb8, bgr8 or mono8, got {message.encoding!r}")
        depth = 1 if message.encoding == "mono8" else 3
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        pixels = rows[:, : message.width * depth].reshape(message.height, message.width, depth)
        if message.encoding != "rgb8":
            pixels = pixels[:, :, list(channels)]
    if pixels.shape != (image.height, image.width, 3):
        raise ValueError(
            f"expected {image.width}x{image.height} pixels, got {pixels.shape[1]}x{pixels.shape[0]} from {image.topic}"
        )
    return pixels


class TopicWriter:
    """Fills one preallocated message from the vectors of every stream that shares its topic.

    Args:
        parts: The streams (or the action) on the topic, in contract order.
        message: An empty message of the type that they name, with one point if it is a trajectory.
    """

    def __init__(self, parts: Sequence[Stream | Action], message: Any) -> None:
        self.message = message
        self._kind = MESSAGE_TYPES[parts[0].type].kind
        self._has_header = MESSAGE_TYPES[parts[0].type].has_header
        if self._has_header:
            self.message.header.frame_id = parts[0].frame
        prepare = _WRITERS[self._kind]
        self._fill = prepare(self.message, [p.select for p in parts])

    def fill(self, vectors: Sequence[Array], time_ns: int) -> Any:
        """Writes values and stamp.

        Args:
            vectors: One (n,) float64 vector for each part.
            time_ns: Header stamp, ns.

        Returns:
            The message; it is the same object at each call, valid until the next one.
        """
        if self._has_header:
            stamp_from_ns(self.message.header.stamp, time_ns)
        self._fill(vectors)
        return self.message


# Scalars behind an attribute path, as in `pose.position.x`.


def _read_attributes(select: Sequence[str]) -> _Read:
    parents = {path.rpartition(".")[0] for path in select}
    if len(parents) > 1 or len(select) == 1:
        get = attrgetter(*select)

        def read(message: Any, out: Array) -> bool:
            out[:] = get(message)
            return True

        return read
    parent, values = attrgetter(parents.pop()), attrgetter(*(path.rpartition(".")[2] for path in select))

    def read_siblings(message: Any, out: Array) -> bool:
        out[:] = values(parent(message))
        return True

    return read_siblings


def _write_attributes(message: Any, selects: Sequence[Sequence[str]]) -> _Fill:
    targets = [
        [(attrgetter(path.rpartition(".")[0])(message), path.rpartition(".")[2]) for path in select]
        for select in selects
    ]

    def fill(vectors: Sequence[Array]) -> None:
        for part, vector in zip(targets, vectors, strict=True):
            for (parent, name), value in zip(part, vector.tolist(), strict=True):
                setattr(parent, name, value)

    return fill


# Arrays, as in `ranges[0:24]`.


def _read_array(select: Sequence[str]) -> _Read:
    parts, at = [], 0
    for field in map(parse_field, select):
        parts.append((field.name, field.start, field.stop, at, at + field.size))
        at += field.size

    def read(message: Any, out: Array) -> bool:
        for name, start, stop, begin, end in parts:
            values = np.asarray(getattr(message, name))
            if len(values) < stop:
                return False
            out[begin:end] = values[start:stop]
        return True

    return read


def _write_array(message: Any, selects: Sequence[Sequence[str]]) -> _Fill:
    parts = [[parse_field(s) for s in select] for select in selects]
    sizes: dict[str, int] = {}
    for field in (f for part in parts for f in part):
        sizes[field.name] = max(sizes.get(field.name, 0), field.stop)
    for name, size in sizes.items():
        setattr(message, name, [0.0] * size)
    views = {name: np.asarray(getattr(message, name)) for name in sizes}
    # Of each range: its place in the message, and where it stands in which vector.
    targets = []
    for index, part in enumerate(parts):
        at = 0
        for field in part:
            targets.append((views[field.name][field.start : field.stop], index, slice(at, at + field.size)))
            at += field.size

    def fill(vectors: Sequence[Array]) -> None:
        for place, index, part in targets:
            place[:] = vectors[index][part]

    return fill


# Values by joint name, as in `position.j1`. The order of the message does not matter.


class _JointIndex:
    """Where the wanted joints stand in a message, found again only when the message's names change."""

    def __init__(self, select: Sequence[str]) -> None:
        self.quantity = select[0].partition(".")[0]
        self.wanted = tuple(s.partition(".")[2] for s in select)
        self._names: list[str] | None = None
        self._index: Array | None = None

    def find(self, names: list[str]) -> Array | None:
        if names != self._names:
            self._names = list(names)
            missing = any(w not in names for w in self.wanted)
            self._index = None if missing else np.array([names.index(w) for w in self.wanted])
        return self._index

    def read(self, names: list[str], holder: Any, out: Array) -> bool:
        index = self.find(names)
        values = np.asarray(getattr(holder, self.quantity))
        if index is None or len(values) != len(names):
            return False
        # The index lies within the names; to check it again ("raise") would copy.
        values.take(index, None, out, "clip")
        return True


def _read_joints(select: Sequence[str]) -> _Read:
    joints = _JointIndex(select)
    return lambda message, out: joints.read(message.name, message, out)


def _read_trajectory(select: Sequence[str]) -> _Read:
    joints = _JointIndex(select)

    def read(message: Any, out: Array) -> bool:
        return len(message.points) == 1 and joints.read(message.joint_names, message.points[0], out)

    return read


def _fill_joints(holder: Any, names: list[str], selects: Sequence[Sequence[str]]) -> _Fill:
    targets = []
    for joints in map(_JointIndex, selects):
        setattr(holder, joints.quantity, [0.0] * len(names))
        targets.append((np.asarray(getattr(holder, joints.quantity)), joints.find(names)))

    def fill(vectors: Sequence[Array]) -> None:
        for (values, index), vector in zip(targets, vectors, strict=True):
            values[index] = vector

    return fill


def _joint_names(selects: Sequence[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(s.partition(".")[2] for select in selects for s in select))


def _write_joints(message: Any, selects: Sequence[Sequence[str]]) -> _Fill:
    message.name = _joint_names(selects)
    return _fill_joints(message, message.name, selects)


def _write_trajectory(message: Any, selects: Sequence[Sequence[str]]) -> _Fill:
    message.joint_names = _joint_names(selects)
    return _fill_joints(message.points[0], message.joint_names, selects)


_READERS: Mapping[FieldKind, Callable[[Sequence[str]], _Read]] = {
    FieldKind.ATTRIBUTE: _read_attributes,
    FieldKind.ARRAY: _read_array,
    FieldKind.JOINT: _read_joints,
    FieldKind.TRAJECTORY: _read_trajectory,
}
_WRITERS: Mapping[FieldKind, Callable[[Any, Sequence[Sequence[str]]], _Fill]] = {
    FieldKind.ATTRIBUTE: _write_attributes,
    FieldKind.ARRAY: _write_array,
    FieldKind.JOINT: _write_joints,
    FieldKind.TRAJECTORY: _write_trajectory,
}
