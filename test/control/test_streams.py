from __future__ import annotations

import numpy as np

from dagger_ros.contract import NEVER_NS, Contract, RowLayout
from dagger_ros.control import NewestStreams


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
