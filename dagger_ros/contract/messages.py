"""Flat arrays from ROS messages, for the standard types that a contract may name, and templates of messages to send.

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
    "read_image",
    "shape_message",
    "stamp_from_ns",
    "stamp_ns",
]

_NS_PER_S = 1_000_000_000

Array = np.ndarray[Any, np.dtype[Any]]
_Read = Callable[[Any, Array], bool]


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


def shape_message(message: Any, parts: Sequence[Stream | Action]) -> Any:
    """Gives an empty message the frame, the joints and the lengths that the streams on its topic need.

    Args:
        message: Of the type that they name, with one point if it is a trajectory; changed in place.
        parts: Every stream (or the action) that shares the topic, in contract order.

    Returns:
        The message, serialized a template for `CdrWriter`.
    """
    about = MESSAGE_TYPES[parts[0].type]
    if about.has_header:
        message.header.frame_id = parts[0].frame
    selected = [text for part in parts for text in part.select]
    if about.kind is FieldKind.ARRAY:
        sizes: dict[str, int] = {}
        for field in map(parse_field, selected):
            sizes[field.name] = max(sizes.get(field.name, 0), field.stop)
        for name, size in sizes.items():
            setattr(message, name, [0.0] * size)
    elif about.kind is not FieldKind.ATTRIBUTE:
        quantities, joints = (list(dict.fromkeys(text.partition(".")[k] for text in selected)) for k in (0, 2))
        if about.kind is FieldKind.JOINT:
            message.name, holder = joints, message
        else:
            message.joint_names, holder = joints, message.points[0]
        for quantity in quantities:
            setattr(holder, quantity, [0.0] * len(joints))
    return message


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


# Values by joint name, as in `position.j1`. The order of the message does not matter.


class _JointIndex:
    """Where the wanted joints stand in a message, found again only when the message's names change."""

    def __init__(self, select: Sequence[str]) -> None:
        self.quantity = select[0].partition(".")[0]
        self.wanted = tuple(s.partition(".")[2] for s in select)
        self._names: list[str] | None = None
        self._index: Array | None = None

    def read(self, names: list[str], holder: Any, out: Array) -> bool:
        if names != self._names:
            self._names = list(names)
            missing = any(w not in names for w in self.wanted)
            self._index = None if missing else np.array([names.index(w) for w in self.wanted])
        index, values = self._index, np.asarray(getattr(holder, self.quantity))
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


_READERS: Mapping[FieldKind, Callable[[Sequence[str]], _Read]] = {
    FieldKind.ATTRIBUTE: _read_attributes,
    FieldKind.ARRAY: _read_array,
    FieldKind.JOINT: _read_joints,
    FieldKind.TRAJECTORY: _read_trajectory,
}
