"""The message types and units that a contract may name, and which field of a type carries which quantity."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["IMAGE_TYPES", "MESSAGE_TYPES", "UNITS", "ArrayField", "FieldKind", "MessageType", "parse_field"]

# SI, as REP-103 wants it, and "1" for what has no unit. "any" in the tables below: the message does not say.
UNITS = ("1", "m", "rad", "m/s", "rad/s", "m/s^2", "rad/s^2", "N", "N*m", "s", "V", "A", "Pa", "K")

_LINEAR_ANGULAR = {"position": ("rad", "m"), "velocity": ("rad/s", "m/s"), "effort": ("N*m", "N")}


class FieldKind(enum.Enum):
    """How a field is addressed inside a message."""

    ATTRIBUTE = "attribute path"
    ARRAY = "range of an array"
    JOINT = "joint name"
    TRAJECTORY = "joint name in a trajectory of one point"


@dataclass(frozen=True)
class MessageType:
    """What the project knows of a message type.

    Args:
        kind: How its fields are addressed.
        fields: Addressable field -> units that it can carry. For joints and arrays the part before the name or range.
        example: A valid selection, for error messages.
        has_header: Whether it carries a stamp of its own.
        wire_dtype: numpy name of the type in which values travel.
    """

    kind: FieldKind
    fields: Mapping[str, tuple[str, ...]]
    example: str
    has_header: bool = True
    wire_dtype: str = "float64"


@dataclass(frozen=True)
class ArrayField:
    """A half-open range of an array field."""

    name: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many values."""
        return self.stop - self.start


_ARRAY_FIELD = re.compile(r"^(?P<name>[a-z_]+)\[(?P<start>\d+)(:(?P<stop>\d+))?\]$")


def parse_field(text: str) -> ArrayField:
    """Reads `name[start:stop]` or `name[index]`.

    Raises:
        ValueError: If the text has neither form or the range is empty.
    """
    match = _ARRAY_FIELD.match(text)
    if match is None:
        raise ValueError(f"expected name[start:stop], got {text!r}")
    start = int(match["start"])
    stop = int(match["stop"]) if match["stop"] else start + 1
    if stop <= start:
        raise ValueError(f"expected a range that holds something, got {text!r}")
    return ArrayField(match["name"], start, stop)


def _vector(prefix: str, unit: str, axes: str = "xyz") -> dict[str, tuple[str, ...]]:
    return {f"{prefix}.{axis}": (unit,) for axis in axes}


def _pose(prefix: str) -> dict[str, tuple[str, ...]]:
    return {**_vector(f"{prefix}.position", "m"), **_vector(f"{prefix}.orientation", "1", "xyzw")}


def _twist(prefix: str) -> dict[str, tuple[str, ...]]:
    return {**_vector(f"{prefix}.linear", "m/s"), **_vector(f"{prefix}.angular", "rad/s")}


MESSAGE_TYPES: Mapping[str, MessageType] = {
    "sensor_msgs/msg/JointState": MessageType(FieldKind.JOINT, _LINEAR_ANGULAR, "position.<joint>"),
    "sensor_msgs/msg/LaserScan": MessageType(
        FieldKind.ARRAY, {"ranges": ("m",), "intensities": UNITS}, "ranges[0:24]", wire_dtype="float32"
    ),
    "sensor_msgs/msg/Imu": MessageType(
        FieldKind.ATTRIBUTE,
        {
            **_vector("orientation", "1", "xyzw"),
            **_vector("angular_velocity", "rad/s"),
            **_vector("linear_acceleration", "m/s^2"),
        },
        "angular_velocity.z",
    ),
    "nav_msgs/msg/Odometry": MessageType(
        FieldKind.ATTRIBUTE, {**_pose("pose.pose"), **_twist("twist.twist")}, "twist.twist.linear.x"
    ),
    "geometry_msgs/msg/WrenchStamped": MessageType(
        FieldKind.ATTRIBUTE, {**_vector("wrench.force", "N"), **_vector("wrench.torque", "N*m")}, "wrench.force.z"
    ),
    "geometry_msgs/msg/PoseStamped": MessageType(FieldKind.ATTRIBUTE, _pose("pose"), "pose.position.x"),
    "geometry_msgs/msg/TwistStamped": MessageType(FieldKind.ATTRIBUTE, _twist("twist"), "twist.linear.x"),
    "std_msgs/msg/Float64MultiArray": MessageType(FieldKind.ARRAY, {"data": UNITS}, "data[0:6]", has_header=False),
    "trajectory_msgs/msg/JointTrajectory": MessageType(
        FieldKind.TRAJECTORY,
        {"positions": ("rad", "m"), "velocities": ("rad/s", "m/s"), "effort": ("N*m", "N")},
        "positions.<joint>",
    ),
}
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
