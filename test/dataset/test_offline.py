"""Rows to an episode on disk and back."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from conftest import ROOT, contract_path
from dagger_ros.contract import DURATIONS, Contract, DaggerError, Mode, RowLayout
from dagger_ros.dataset import (
    EpisodeInfo,
    RecordedTopic,
    percentiles_s,
    read_episode,
    read_rows,
    unfinished_episodes,
    write_rows,
)
from dagger_ros.dataset.rows import timing

STORE = get_typestore(Stores.ROS2_KILTED)
DECISION = "dagger_ros/msg/GateDecision"
DEFINITIONS = {DECISION: (ROOT / "msg" / "GateDecision.msg").read_text()}
ODD = {"f": np.uint64(0xFFF8000000000123).view(np.float64), "i": -(2**62), "u": 200}
INFO = EpisodeInfo(0, 3, -1, "bc", "", "", "", "ada", 0, 9, True, "", None, {}, [])


def rows_of(layout: RowLayout, count: int = 5) -> Any:
    """Every number odd: a NaN with a payload, or one that needs its whole type."""
    rows = layout.new(count)
    for name in rows.dtype.names or ():
        kind = rows.dtype[name].base.kind
        if kind in ODD:
            rows[name] = np.array(ODD[kind], "i8").astype(rows.dtype[name].base) if kind == "i" else ODD[kind]
    rows["reasons"] = 2**54 + 1
    rows["time_ns"] = 10 * np.arange(count)
    rows["help"], rows["operator_id"], rows["policy"] = True, b"ada", b"pi_001"
    return rows


def joy(time_ns: int) -> tuple[str, int, bytes]:
    """A message of a topic that nobody reads."""
    message = STORE.types["std_msgs/msg/Bool"](data=True)
    return "estop", time_ns, bytes(STORE.serialize_cdr(message, "std_msgs/msg/Bool"))


def write(folder: Path, rows: Any, contract: Contract, **options: Any) -> EpisodeInfo:
    messages = options.pop("messages", [joy(10), joy(15)])
    topics = {"estop": RecordedTopic("std_msgs/msg/Bool", reliable=True, latched=False)}
    info = replace(INFO, contract_sha256=contract.sha256)
    options = {"contract_text": contract_path(contract.name).read_text(), "definitions": DEFINITIONS} | options
    return write_rows(folder, rows, RowLayout(contract), messages, topics, info, **options)


def test_rows_come_back_bit_for_bit(contract: Contract, tmp_path: Path) -> None:
    layout = RowLayout(contract)
    rows = rows_of(layout)
    info = write(tmp_path / "episodes/000003", rows, contract)
    assert read_rows(tmp_path / "episodes/000003/bag", layout).tobytes() == rows.tobytes()
    assert read_episode(tmp_path / "episodes/000003") == info
    assert info.messages == {"estop": 2, "supervisor/decision": 5}


def test_bag_of_a_version_that_timed_nothing_is_read(peg: Contract, tmp_path: Path) -> None:
    lines = DEFINITIONS[DECISION].splitlines(keepends=True)
    before = "".join(line for line in lines if not line.startswith(tuple(f"float64 {name} " for name in DURATIONS)))
    rows = rows_of(RowLayout(peg))
    write(tmp_path / "episodes/000003", rows, peg, definitions={DECISION: before})
    read = read_rows(tmp_path / "episodes/000003/bag", RowLayout(peg))
    for name in DURATIONS:
        assert np.isnan(read[name]).all()
        rows[name] = read[name]
    assert len(lines) - len(before.splitlines()) == len(DURATIONS)
    assert read.tobytes() == rows.tobytes()


def test_total_is_from_what_the_driver_acted_on_until_its_command(peg: Contract) -> None:
    rows = RowLayout(peg).new(4)
    rows["mode"] = Mode.POLICY, Mode.EXPERT, Mode.HOLD, Mode.POLICY
    rows["time_ns"], rows["gate_s"], rows["command_s"], rows["late_s"] = 10**9, 1e-3, 2e-3, -4e-3
    rows["policy_stamp_ns"][:3], rows["expert_stamp_ns"][:2] = 9 * 10**8, 8 * 10**8
    times = timing(rows)
    assert list(times) == ["inference", "late", "gate", "command", "total"]
    assert times["total"].tolist() == pytest.approx([0.103, 0.203, np.nan, np.nan], nan_ok=True)
    assert times["late"].tolist() == [-4e-3] * 4
    assert np.isnan(times["inference"]).all()
    assert percentiles_s(times["total"]) == pytest.approx((0.153, 0.202, 0.203))
    assert np.isnan(percentiles_s(times["inference"])).all()


def test_message_of_the_time_of_a_tick_stands_before_its_decision(peg: Contract, tmp_path: Path) -> None:
    write(tmp_path / "e", rows_of(RowLayout(peg)), peg)
    with Reader(tmp_path / "e/bag") as reader:
        order = [(connection.topic, time_ns) for connection, time_ns, _ in reader.messages()]
    assert order[:5] == [
        ("/supervisor/decision", 0),
        ("/estop", 10),
        ("/supervisor/decision", 10),
        ("/estop", 15),
        ("/supervisor/decision", 20),
    ]


def test_rows_that_were_recorded_at_other_times_keep_their_order(peg: Contract, tmp_path: Path) -> None:
    layout = RowLayout(peg)
    rows = rows_of(layout)[::-1].copy()
    with pytest.raises(DaggerError, match="expected rows, each with a time not before the last one's, got 5 rows"):
        write(tmp_path / "e", rows, peg)
    write(tmp_path / "e", rows, peg, recorded_ns=[1, 2, 2, 2, 30])
    assert read_rows(tmp_path / "e/bag", layout).tobytes() == rows.tobytes()


def test_episode_that_is_there_is_left_as_it_is(peg: Contract, tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    with pytest.raises(DaggerError, match="expected no episode of this number yet"):
        write(tmp_path / "e", rows_of(RowLayout(peg)), peg)
    assert not list((tmp_path / "e").iterdir())


def test_nothing_is_left_of_an_episode_whose_messages_end_in_an_error(peg: Contract, tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, int, bytes]]:
        yield joy(1)
        raise DaggerError("no more")

    with pytest.raises(DaggerError, match="no more"):
        write(tmp_path / "episodes/000003", rows_of(RowLayout(peg)), peg, messages=broken())
    assert not list(tmp_path.rglob("*.mcap"))
    assert not list((tmp_path / "episodes").iterdir())
    assert unfinished_episodes(tmp_path) == []


@pytest.mark.parametrize("most", [4_000, 20_000])  # the beginning of a bag is larger than the one
def test_nothing_is_left_of_an_episode_that_the_disk_does_not_take(most: int, peg: Contract, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(DaggerError, match=r"000003.*: expected a (disk that takes|folder that can be written)"):
            write(tmp_path / "episodes/000003", rows_of(RowLayout(peg), 5_000), peg)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.ros
def test_decision_is_what_a_node_would_read(peg: Contract, tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    from rclpy.serialization import deserialize_message

    from dagger_ros.contract import read_decision
    from dagger_ros.msg import GateDecision

    layout = RowLayout(peg)
    rows = rows_of(layout)
    write(tmp_path / "e", rows, peg)
    again = layout.new(len(rows))
    with Reader(tmp_path / "e/bag") as reader:
        connections = [c for c in reader.connections if c.msgtype == "dagger_ros/msg/GateDecision"]
        for row, (_, _, data) in zip(again, reader.messages(connections=connections), strict=True):
            message = deserialize_message(data, GateDecision)
            assert read_decision(message, row)
            assert message.reasons_text == "OBSERVATION_NEVER|OUTPUT_NOT_FINITE"
    assert again.tobytes() == rows.tobytes()
