"""Whole bags come back; whatever is changed in one is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rosbags.typesys import Stores, get_typestore

from dagger_ros.contract import DaggerError
from dagger_ros.dataset import BagWriter, RecordedTopic
from dagger_ros.dataset.contents import WHOLE, read_contents

STORE = get_typestore(Stores.ROS2_KILTED)
TOPICS = {
    "estop": RecordedTopic("std_msgs/msg/Bool", reliable=True, latched=False),
    "says": RecordedTopic("std_msgs/msg/String", reliable=True, latched=False),
}


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Three seconds of messages, in several chunks."""
    writer = BagWriter(tmp_path / "bag", TOPICS, {}, {"contract": "name: x", "round": "1"})
    for i in range(30):
        for topic, about in TOPICS.items():
            message = STORE.types[about.type](data=True if topic == "estop" else f"message {i}")
            writer.write(topic, i * 100_000_000, bytes(STORE.serialize_cdr(message, about.type)))
    writer.close()
    return tmp_path / "bag"


def look(bag: Path) -> int:
    return sum(len(m.data) for m in read_contents(bag, lambda _topic, _type: WHOLE).topics.values())


def test_bit_that_is_flipped_anywhere_is_noticed(bag: Path) -> None:
    assert look(bag) == 60
    path = bag / "bag.mcap"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(DaggerError, match=r"bag.mcap: expected a whole bag; it is damaged .* at byte \d+"):
            look(bag)


def test_bag_that_is_cut_short_anywhere_is_noticed(bag: Path) -> None:
    path = bag / "bag.mcap"
    whole = path.read_bytes()
    for length in (0, 1, 8, *range(9, len(whole), 97), len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DaggerError, match="expected a whole bag; it is damaged or cut short at byte"):
            look(bag)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DaggerError, match="expected the end of an MCAP file"):
        look(bag)


@pytest.mark.parametrize("gone", ["metadata.yaml", "bag.mcap"])
def test_bag_without_one_of_its_files_is_named(bag: Path, gone: str) -> None:
    (bag / gone).unlink()
    with pytest.raises(DaggerError, match="expected a whole rosbag2 folder"):
        look(bag)
