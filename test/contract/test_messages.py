from __future__ import annotations

from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest

from dagger_ros.contract import StreamReader
from dagger_ros.contract.messages import read_image
from dagger_ros.contract.schema import Action, ImageStream, Stream
from dagger_ros.contract.types import MESSAGE_TYPES, FieldKind


def stream(type_: str, select: list[str], unit: str = "m") -> Stream:
    return Stream.model_validate(
        {
            "topic": "t",
            "type": type_,
            "select": select,
            "unit": unit,
            "frame": "base",
            "rate_hz": 10.0,
            "max_age_s": 0.2,
            "resolution": 0.1,
        }
    )


def joint_state(names: list[str], position: list[float]) -> Message:
    return Message(name=names, position=np.array(position), velocity=np.zeros(0), effort=np.zeros(0))


def test_joints_are_read_by_name_whatever_the_order_of_the_message() -> None:
    reader = StreamReader(stream("sensor_msgs/msg/JointState", ["position.a", "position.b"], "rad"))
    out = np.zeros(2)
    assert reader.read(joint_state(["b", "c", "a"], [2.0, 3.0, 1.0]), out)
    assert out.tolist() == [1.0, 2.0]
    assert reader.read(joint_state(["a", "b"], [4.0, 5.0]), out)
    assert out.tolist() == [4.0, 5.0]


@pytest.mark.parametrize("message", [joint_state(["a"], [1.0]), joint_state(["a", "b"], [1.0]), joint_state([], [])])
def test_message_without_a_selected_joint_is_refused(message: Message) -> None:
    reader = StreamReader(stream("sensor_msgs/msg/JointState", ["position.a", "position.b"], "rad"))
    assert not reader.read(message, np.zeros(2))


def test_array_shorter_than_the_selection_is_refused() -> None:
    reader = StreamReader(stream("sensor_msgs/msg/LaserScan", ["ranges[0:4]"]))
    assert not reader.read(Message(ranges=np.zeros(3, np.float32)), np.zeros(4))


# Every type of the contract, with its real message class.
SELECTIONS = [
    ("sensor_msgs/msg/JointState", ["velocity.b", "velocity.a"], "rad/s"),
    ("sensor_msgs/msg/LaserScan", ["ranges[1:3]", "ranges[5]"], "m"),
    ("sensor_msgs/msg/Imu", ["linear_acceleration.z", "linear_acceleration.x"], "m/s^2"),
    ("nav_msgs/msg/Odometry", ["twist.twist.linear.x", "twist.twist.linear.y"], "m/s"),
    ("geometry_msgs/msg/WrenchStamped", ["wrench.force.x", "wrench.force.z"], "N"),
    ("geometry_msgs/msg/PoseStamped", ["pose.orientation.w", "pose.orientation.z"], "1"),
    ("geometry_msgs/msg/TwistStamped", ["twist.angular.z"], "rad/s"),
    ("std_msgs/msg/Float64MultiArray", ["data[0:3]"], "1"),
    ("trajectory_msgs/msg/JointTrajectory", ["positions.b", "positions.a"], "rad"),
]


@pytest.mark.ros
@pytest.mark.parametrize(("type_", "select", "unit"), SELECTIONS)
def test_what_is_written_is_read_again(type_: str, select: list[str], unit: str) -> None:
    pytest.importorskip("rclpy")
    from rclpy.serialization import deserialize_message

    from dagger_ros.nodes.base import message_class, message_writer, new_message

    part = stream(type_, select, unit)
    values = np.array([0.5, -1.25, 3.0])[: len(part.dimensions)]
    writer = message_writer([part], new_message(type_, period_ns=50_000_000))
    writer.fill([values + 1], 7)
    message = deserialize_message(writer.fill([values], 1_500_000_123), message_class(type_))
    out = np.zeros_like(values)
    reader = StreamReader(part)
    assert reader.read(message, out)
    assert out.tolist() == values.tolist()
    expected_ns = 1_500_000_123 if MESSAGE_TYPES[type_].has_header else 7
    assert reader.stamp_ns(message, receive_ns=7) == expected_ns


def test_every_type_of_the_table_is_written_and_read_by_the_test_above() -> None:
    assert {s[0] for s in SELECTIONS} == set(MESSAGE_TYPES)
    assert {MESSAGE_TYPES[s[0]].kind for s in SELECTIONS} == set(FieldKind)


@pytest.mark.ros
def test_streams_on_one_topic_share_its_message() -> None:
    pytest.importorskip("rclpy")
    from rclpy.serialization import deserialize_message

    from dagger_ros.nodes.base import message_class, message_writer, new_message

    parts = [
        stream("sensor_msgs/msg/JointState", ["position.a", "position.b"], "rad"),
        stream("sensor_msgs/msg/JointState", ["effort.b"], "N*m"),
    ]
    writer = message_writer(parts, new_message(parts[0].type, period_ns=1))
    data = writer.fill([np.array([1.0, 2.0]), np.array([9.0])], 0)
    message = deserialize_message(data, message_class(parts[0].type))
    assert (list(message.name), list(message.position), list(message.effort)) == (["a", "b"], [1.0, 2.0], [0.0, 9.0])


def camera(type_: str) -> ImageStream:
    return ImageStream(topic="c", type=type_, width=4, height=2, frame="lens", rate_hz=30.0, max_age_s=0.1)


def image(encoding: str, pixels: np.ndarray[Any, Any]) -> Message:
    rows = pixels.reshape(2, -1)
    return Message(encoding=encoding, height=2, width=4, step=rows.shape[1], data=rows.tobytes())


def test_image_is_a_view_in_rgb() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert (read_image(camera("sensor_msgs/msg/Image"), image("rgb8", pixels)) == pixels).all()
    assert (read_image(camera("sensor_msgs/msg/Image"), image("bgr8", pixels)) == pixels[:, :, ::-1]).all()
    message = image("rgb8", pixels)
    message.data = np.frombuffer(message.data, np.uint8).copy()
    assert np.shares_memory(read_image(camera("sensor_msgs/msg/Image"), message), message.data)


def test_image_of_another_size_or_encoding_is_refused() -> None:
    wide = camera("sensor_msgs/msg/Image").model_copy(update={"width": 5})
    with pytest.raises(ValueError, match="expected 5x2 pixels, got 4x2 from c"):
        read_image(wide, image("rgb8", np.zeros((2, 4, 3), np.uint8)))
    with pytest.raises(ValueError, match="expected an image encoded as rgb8, bgr8 or mono8, got '32FC1'"):
        read_image(camera("sensor_msgs/msg/Image"), image("32FC1", np.zeros((2, 4, 3), np.uint8)))


def test_compressed_image_is_decoded() -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), (200, 100, 50)).save(buffer, "PNG")
    pixels = read_image(camera("sensor_msgs/msg/CompressedImage"), Message(data=buffer.getvalue()))
    assert (pixels == [200, 100, 50]).all()


def test_action_is_read_like_a_stream(peg: Any) -> None:
    action: Action = peg.action
    message = Message(twist=Message(linear=Message(x=1.0, y=2.0, z=3.0)))
    out = np.zeros(3)
    assert StreamReader(action).read(message, out)
    assert out.tolist() == [1.0, 2.0, 3.0]
