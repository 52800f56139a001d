from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagger_ros.contract import NEVER_NS, CdrReader, Contract, RowLayout, StreamReader
from dagger_ros.control import NewestStreams
from dagger_ros.supervisor import Reason
from streams import contracts, messages


def test_newest_sample_wins_and_an_older_one_is_left_out(peg: Contract) -> None:
    layout = RowLayout(peg)
    streams = NewestStreams(layout)
    row = layout.new(1)[0]
    for value, stamp in ((1.0, 100), (2.0, 300), (3.0, 200)):
        streams.put(0, np.full(3, value), stamp, receive_ns=stamp + 5)
    streams.fill(row)
    assert layout.stream(row, 0).tolist() == [2.0, 2.0, 2.0]
    assert (row["stamp_ns"][0], row["receive_ns"][0]) == (300, 305)
    assert (row["stamp_ns"][1:] == NEVER_NS).all()


def test_cleared_streams_were_never_received(peg: Contract) -> None:
    layout = RowLayout(peg)
    streams = NewestStreams(layout)
    streams.put(1, np.zeros(3), 100, 100)
    streams.clear()
    row = layout.new(1)[0]
    streams.fill(row)
    assert (row["receive_ns"] == NEVER_NS).all()
    assert np.isnan(row["observation"]).all()


def test_values_are_copied(peg: Contract) -> None:
    layout = RowLayout(peg)
    streams = NewestStreams(layout)
    values = np.zeros(3)
    streams.put(0, values, 1, 1)
    values[:] = 7.0
    row = layout.new(1)[0]
    streams.fill(row)
    assert layout.stream(row, 0).tolist() == [0.0, 0.0, 0.0]


def received(reader: Any, message: Any) -> Any:
    """The values of a message as one would read them plainly; None: not every one is there."""
    values = np.full(reader.size, np.nan)
    return values if reader.read(message, values) else None


@pytest.mark.ros
@settings(max_examples=60)
@given(contract=contracts(), seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=12), whole=st.booleans())
def test_row_made_from_bytes_is_the_plain_one_bit_for_bit(contract: Contract, seeds: list[int], whole: bool) -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    layout = RowLayout(contract)
    ours = NewestStreams(layout)
    about = list(contract.streams.values())
    of_bytes, of_messages = [CdrReader(s) for s in about], [StreamReader(s) for s in about]
    plain: list[Any] = [np.full(len(s.dimensions), np.nan) for s in about]
    times = [[NEVER_NS] * len(about), [NEVER_NS] * len(about)]
    rows = layout.new(2)
    for now_ns, seed in enumerate(seeds, 1):
        index = seed % len(about)
        message = messages(about[index].type, seed, whole=whole)
        ours.take(index, of_bytes[index], serialization.serialize_message(message), now_ns, now_ns + 5)
        values = received(of_messages[index], message)
        plain[index] = np.full(len(plain[index]), np.nan) if values is None else values
        times[0][index], times[1][index] = now_ns, now_ns + 5
    ours.fill(rows[0])
    for name, privileged in (("observation", False), ("privileged", True)):
        parts = [p for p, s in zip(plain, about, strict=True) if s.privileged is privileged]
        rows[1][name] = np.concatenate([np.empty(0), *parts])
    rows[1]["stamp_ns"], rows[1]["receive_ns"] = times
    rows[0]["reasons"] = 0
    assert rows[0].tobytes() == rows[1].tobytes()


@pytest.mark.ros
@settings(max_examples=60)
@given(contract=contracts(), seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=30))
def test_bytes_count_by_their_order_as_values_do(contract: Contract, seeds: list[int]) -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    layout = RowLayout(contract)
    by_bytes, by_values = NewestStreams(layout), NewestStreams(layout)
    about = list(contract.streams.values())
    of_bytes, of_messages = [CdrReader(s) for s in about], [StreamReader(s) for s in about]
    rows = layout.new(2)
    for i, seed in enumerate(seeds):
        index, stamp_ns = seed % len(about), (i + seed % 5) * 40_000_000
        message = messages(about[index].type, seed, whole=seed % 3 > 0)
        by_bytes.take(index, of_bytes[index], serialization.serialize_message(message), stamp_ns, i)
        by_values.put(index, received(of_messages[index], message), stamp_ns, i)
        if seed % 7 == 0:
            by_bytes.fill(rows[0])
            by_values.fill(rows[1])
    by_bytes.fill(rows[0])
    by_values.fill(rows[1])
    assert rows[0].tobytes() == rows[1].tobytes()
    assert [by_bytes.stamp_ns(i) for i in range(len(about))] == rows[0]["stamp_ns"].tolist()


def test_message_that_lacks_a_field_makes_its_stream_unknown_until_the_next_whole_one(peg: Contract) -> None:
    layout = RowLayout(peg)
    streams, reader = NewestStreams(layout), CdrReader(next(iter(peg.streams.values())))
    streams.put(0, np.ones(3), 1, 1)
    row = layout.new(1)[0]
    streams.take(0, reader, b"", 2, 2)
    streams.fill(row)
    assert np.isnan(layout.stream(row, 0)).all()
    assert row["reasons"] == int(Reason.OBSERVATION_SIZE)
    streams.put(0, np.ones(3), 3, 3)
    row = layout.new(1)[0]
    streams.fill(row)
    assert (layout.stream(row, 0).tolist(), row["reasons"]) == ([1.0, 1.0, 1.0], 0)
