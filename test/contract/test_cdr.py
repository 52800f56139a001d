"""Numbers straight from the bytes are those of the message that Python objects are made of."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dagger_ros.contract import CdrReader, CdrWriter, StreamReader, shape_message
from dagger_ros.contract.schema import Stream
from dagger_ros.contract.types import MESSAGE_TYPES, FieldKind, parse_field
from streams import messages, stream_of, streams

pytest.importorskip("rclpy")
from rclpy.serialization import deserialize_message, serialize_message

from dagger_ros.nodes.base import message_class, message_writer, new_message

pytestmark = pytest.mark.ros
SEEDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5)


def both(stream: Stream, reader: CdrReader, message: Any) -> tuple[Any, Any]:
    """What the two readers say of a message: the values as bytes, or None, and the stamp."""
    data = serialize_message(message)
    said = []
    for by, content in ((reader, data), (StreamReader(stream), message)):
        values = np.full(reader.size, 7.0)
        known = by.read(content, values)
        said.append((values.tobytes() if known else None, by.stamp_ns(content, 5)))
    return said[0], said[1]


@settings(max_examples=150)
@given(stream=streams(), seeds=SEEDS, whole=st.booleans())
def test_bytes_say_what_the_message_says(stream: Stream, seeds: list[int], whole: bool) -> None:
    reader = CdrReader(stream)
    for seed in (*seeds, seeds[0], seeds[0]):
        ours, plain = both(stream, reader, messages(stream.type, seed, whole=whole))
        assert ours == plain
        assert not whole or ours[0] is not None


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # of a NaN that signals
@pytest.mark.parametrize("type_", sorted(MESSAGE_TYPES))
@settings(max_examples=10)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_bytes_that_are_cut_off_or_changed_raise_nothing(type_: str, data: st.DataObject, seed: int) -> None:
    stream = data.draw(streams(type_))
    whole = serialize_message(messages(type_, seed, whole=True))
    reader, out = CdrReader(stream), np.zeros(len(stream.dimensions))
    for end in range(len(whole)):
        reader.read(whole[:end], out)
        reader.stamp_ns(whole[:end], 5)
        CdrReader(stream).read(whole[:end], out)
    rng = np.random.default_rng(seed)
    for _ in range(50):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] = rng.integers(256)
        reader.read(bytes(changed), out)
        CdrReader(stream).read(bytes(changed), out)


def test_message_that_ends_before_what_is_selected_is_refused() -> None:
    stream = stream_of("geometry_msgs/msg/PoseStamped", ["pose.position.y"], "m")
    data = serialize_message(messages(stream.type, 3, whole=True))
    reader, out = CdrReader(stream), np.zeros(1)
    assert reader.read(data, out)
    assert not reader.read(data[:40], out)
    assert reader.read(data, out)


def test_joints_that_change_their_order_are_found_again() -> None:
    from sensor_msgs.msg import JointState

    stream = stream_of("sensor_msgs/msg/JointState", ["velocity.a", "velocity.b"], "rad/s")
    reader, out = CdrReader(stream), np.zeros(2)
    for names, velocity in ((["a", "b"], [1.0, 2.0]), (["b", "a"], [3.0, 4.0]), (["c", "b", "a"], [5.0, 6.0, 7.0])):
        message = JointState(name=names, velocity=velocity, position=[9.0] * len(names))
        assert reader.read(serialize_message(message), out)
        assert out.tolist() == [velocity[names.index("a")], velocity[names.index("b")]]
    assert not reader.read(serialize_message(JointState(name=["a"], velocity=[1.0])), out)
    assert not reader.read(serialize_message(JointState(name=["a", "b"], velocity=[1.0])), out)


def test_what_lies_between_numbers_may_be_anything() -> None:
    """Bytes that only align what follows are not always zero."""
    from std_msgs.msg import Float64MultiArray

    stream = stream_of("std_msgs/msg/Float64MultiArray", ["data[0:2]"], "1")
    data = bytearray(serialize_message(Float64MultiArray(data=[1.5, 2.5])))
    reader, out = CdrReader(stream), np.zeros(2)
    assert reader.read(bytes(data), out)
    known = reader._layout
    data[16:20] = b"\xff" * 4  # behind the number of values, which are aligned to 8 bytes
    assert reader.read(bytes(data), out)
    assert reader._layout is known
    assert out.tolist() == [1.5, 2.5]


def test_numbers_of_the_other_byte_order_are_read() -> None:
    import struct

    stream = stream_of("geometry_msgs/msg/TwistStamped", ["twist.linear.y", "twist.linear.x"], "m/s")
    numbers = [float(i) for i in range(6)]
    for order, mark in ((">", 0), ("<", 1)):
        # stamp, length of a frame without letters, its end mark, bytes up to the next multiple of 8, numbers
        data = bytes([0, mark, 0, 0]) + struct.pack(f"{order}iII4x6d", 3, 4, 1, *numbers)
        reader, out = CdrReader(stream), np.zeros(2)
        assert reader.read(data, out)
        assert out.tolist() == [1.0, 0.0]
        assert reader.stamp_ns(data, 0) == 3_000_000_004


@settings(max_examples=100)
@given(stream=streams(), seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_a_message_of_its_type(stream: Stream, seed: int) -> None:
    """Both readers give back what was written, and the middleware takes the bytes."""
    if MESSAGE_TYPES[stream.type].kind is FieldKind.ARRAY:
        ranges = [parse_field(field) for field in stream.select]
        assume(all(a.stop <= b.start or b.stop <= a.start for a, b in combinations(ranges, 2)))
    rng = np.random.default_rng(seed)
    writer = message_writer([stream], new_message(stream.type, period_ns=1))
    for time_ns in rng.integers(0, 2_000_000_000 * 10**9, 3).tolist():
        written = rng.normal(size=len(stream.dimensions)).astype(np.float32).astype(float)
        data = writer.fill([written], time_ns)
        plain, known = StreamReader(stream), np.zeros(len(written))
        message = deserialize_message(data, message_class(stream.type))
        assert plain.read(message, known)
        assert known.tolist() == written.tolist()
        assert CdrReader(stream).read(data, known)
        assert known.tolist() == written.tolist()
        assert plain.stamp_ns(message, 5) == (time_ns if plain.has_header else 5)


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
def test_bytes_between_numbers_are_written_as_zero(filler: bytes) -> None:
    """So that what is recorded of a simulated episode is the same each time."""
    stream = stream_of("std_msgs/msg/Float64MultiArray", ["data[0:2]"], "1")
    message = shape_message(new_message(stream.type, period_ns=1), [stream])
    template = bytearray(serialize_message(message))
    template[16:20] = filler * 4
    data = CdrWriter([stream], bytes(template)).fill([np.array([1.5, 2.5])], 0)
    assert data[16:20] == b"\0" * 4
    assert list(deserialize_message(data, type(message)).data) == [1.5, 2.5]


def test_template_without_a_selected_field_is_refused() -> None:
    stream = stream_of("std_msgs/msg/Float64MultiArray", ["data[0:2]"], "1")
    with pytest.raises(ValueError, match=r"expected a std_msgs/msg/Float64MultiArray with data\[0:2\] for t"):
        CdrWriter([stream], serialize_message(new_message(stream.type, period_ns=1)))
