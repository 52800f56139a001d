"""What is read from a ring is whole and the right item, or it is said that it is not."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import contract_path
from dagger_ros.contract import DaggerError, RowLayout, load_contract
from dagger_ros.control.ring import Item, Lapped, RingMemory, RingReader, RingWriter, capacity_for

SHAPE, CAPACITY = (4, 3), 4


class Interrupted(RingMemory):
    """Between any two steps of who reads it, something else happens."""

    def __init__(self, buffer: Any) -> None:
        super().__init__(SHAPE, np.uint8, None, buffer)
        self.buffer = buffer
        self.acts: list[Callable[[], object]] = []

    def fence(self) -> None:
        super().fence()
        if self.acts:
            self.acts.pop(0)()


class Ring:
    """A ring of four slots; item n is filled with n."""

    def __init__(self) -> None:
        buffer = np.zeros(RingMemory.bytes_for(SHAPE, np.uint8, CAPACITY), np.uint8)
        self.writer = RingWriter(RingMemory(SHAPE, np.uint8, CAPACITY, buffer))
        self.between = Interrupted(buffer)
        self.reader = RingReader(self.between)
        self.stamps_ns: list[int] = []

    def commit(self, *stamps_ns: int) -> None:
        for stamp_ns in stamps_ns:
            self.writer.slot()[:] = len(self.stamps_ns)
            assert self.writer.commit(stamp_ns) == len(self.stamps_ns)
            self.stamps_ns.append(stamp_ns)

    def begin(self) -> None:
        """Writes half of the next item."""
        self.writer.slot()[:2] = len(self.stamps_ns)

    def number(self, item: Item | Lapped | None) -> int:
        """Of an item that must be whole."""
        assert isinstance(item, Item)
        assert (item.values == item.sequence % 256).all()
        assert item.stamp_ns == self.stamps_ns[item.sequence]
        return item.sequence


@pytest.fixture
def ring() -> Ring:
    return Ring()


def test_nothing_is_read_before_the_first_commit(ring: Ring) -> None:
    ring.begin()
    assert ring.reader.newest() is None
    assert ring.reader.next() is None
    assert ring.reader.at(2**62) is None


def test_items_are_views_of_the_ring_that_cannot_be_written(ring: Ring) -> None:
    ring.commit(10)
    item = ring.reader.newest()
    assert ring.number(item) == 0
    assert np.shares_memory(item.values, ring.writer.memory.slots[0])
    with pytest.raises(ValueError, match="read-only"):
        item.values[:] = 0


def test_reader_that_keeps_up_gets_every_item_in_order(ring: Ring) -> None:
    for i in range(3 * CAPACITY):
        ring.commit(i)
        assert ring.number(ring.reader.next()) == i
        assert ring.reader.next() is None


def test_lapped_reader_is_told_how_many_it_lost_and_goes_on_with_the_oldest(ring: Ring) -> None:
    ring.commit(*range(10))
    assert ring.reader.next() == Lapped(7)
    assert [ring.number(ring.reader.next()) for _ in range(3)] == [7, 8, 9]
    assert ring.reader.next() is None


def test_reader_that_comes_late_begins_with_the_oldest_and_has_lost_nothing(ring: Ring) -> None:
    ring.commit(*range(10))
    assert ring.number(RingReader(ring.between).next()) == 7


def test_view_is_valid_until_its_slot_is_begun_again(ring: Ring) -> None:
    ring.commit(0)
    item = ring.reader.newest()
    assert isinstance(item, Item)
    ring.commit(*range(1, CAPACITY))
    assert ring.reader.still_valid(item)
    ring.begin()
    assert not ring.reader.still_valid(item)
    ring.commit(9)
    assert not ring.reader.still_valid(item)


@pytest.mark.parametrize("commits", [0, 1, CAPACITY - 1, CAPACITY, 3 * CAPACITY])
@pytest.mark.parametrize("fence", range(5))
@pytest.mark.parametrize("look", ["newest", "next", "at"])
def test_whatever_the_writer_does_meanwhile_what_is_copied_is_whole(
    ring: Ring, look: str, fence: int, commits: int
) -> None:
    ring.commit(*range(CAPACITY))
    assert ring.number(ring.reader.next()) == 0

    def overtake() -> None:
        ring.commit(*range(len(ring.stamps_ns), len(ring.stamps_ns) + commits))
        ring.begin()

    out = np.zeros(SHAPE, np.uint8)
    ring.between.acts = [*[lambda: None] * fence, overtake]
    found = {"newest": ring.reader.newest, "next": ring.reader.next, "at": lambda o: ring.reader.at(2, o)}[look](out)
    ring.between.acts = []
    if isinstance(found, Item):
        assert found.values is out
        wanted = {"newest": range(CAPACITY - 1, CAPACITY + commits), "next": [1], "at": [2]}[look]
        assert ring.number(found) in wanted
    else:
        assert look != "newest"
        assert isinstance(found, Lapped)


def test_reader_that_is_overtaken_at_every_try_is_told(ring: Ring) -> None:
    ring.commit(*range(CAPACITY))

    def overtake() -> None:
        ring.commit(*range(len(ring.stamps_ns), len(ring.stamps_ns) + CAPACITY))

    ring.between.acts = [overtake] * 100
    assert ring.reader.newest(np.zeros(SHAPE, np.uint8)) == Lapped(1)
    assert ring.reader.at(3) == Lapped(1)


def test_stamps_that_go_back_begin_a_new_time(ring: Ring) -> None:
    ring.commit(100, 200, 10)
    assert ring.number(ring.reader.at(150)) == 2
    assert ring.reader.at(9) is None
    ring.commit(20)
    assert [ring.number(ring.reader.at(t)) for t in (10, 19, 20, 500)] == [2, 2, 3, 3]


def test_time_that_begins_anew_during_a_look_up_is_no_gap(ring: Ring) -> None:
    ring.commit(100)
    ring.between.acts = [lambda: ring.commit(10)]
    assert ring.number(ring.reader.at(150)) == 1


def test_what_was_asked_for_and_overwritten_is_told_from_what_never_was(ring: Ring) -> None:
    ring.commit(10, 20)
    assert ring.reader.at(9) is None
    ring.commit(30, 40, 50)
    assert ring.reader.at(20) == Lapped(1)
    assert ring.number(ring.reader.at(30)) == 2


@given(st.data())
def test_every_read_equals_that_of_a_plain_list(data: st.DataObject) -> None:
    ring, stamps_ns, read = Ring(), [], 0
    for _ in range(data.draw(st.integers(0, 40))):
        act = data.draw(st.sampled_from(["commit", "commit", "newest", "next", "at"]))
        if act == "commit":
            stamps_ns.append((stamps_ns[-1] if stamps_ns else 0) + data.draw(st.integers(0, 3)))
            ring.commit(stamps_ns[-1])
        elif act == "newest":
            newest = ring.reader.newest()
            assert newest is None if not stamps_ns else ring.number(newest) == len(stamps_ns) - 1
        elif act == "next":
            following, there = ring.reader.next(), read < len(stamps_ns)
            lost = max(0, len(stamps_ns) - CAPACITY + 1 - read)
            if there and read >= len(stamps_ns) - CAPACITY:  # the oldest is whole as long as nothing is begun
                assert ring.number(following) == read
                read += 1
            else:
                assert following == (Lapped(lost) if there else None)
                read += lost if there else 0
        else:
            stamp_ns = data.draw(st.integers(-1, (stamps_ns[-1] if stamps_ns else 0) + 2))
            wanted, oldest = bisect.bisect_right(stamps_ns, stamp_ns) - 1, max(0, len(stamps_ns) - CAPACITY + 1)
            found = ring.reader.at(stamp_ns)
            if wanted >= oldest:
                assert ring.number(found) == wanted
            else:
                assert found == (Lapped(1) if oldest > 0 else None)


def test_rows_of_a_contract_are_items_too() -> None:
    layout = RowLayout(load_contract(contract_path("peg")))
    memory = RingMemory((), layout.dtype, 3)
    writer, reader = RingWriter(memory), RingReader(memory)
    writer.slot()["observation"] = 0.5
    writer.commit(7)
    item = reader.newest()
    assert isinstance(item, Item)
    assert item.values["observation"].tolist() == [0.5] * layout.observation_size


def test_capacity_keeps_an_item_for_the_time_that_a_reader_may_lag() -> None:
    rate_hz, lag_s = 30.0, 0.1
    memory = RingMemory(SHAPE, np.uint8, capacity_for(rate_hz, lag_s))
    writer, reader = RingWriter(memory), RingReader(memory)
    writer.commit(0)
    item = reader.newest()
    assert isinstance(item, Item)
    for i in range(3):  # what is committed in 0.1 s
        writer.commit(i + 1)
    writer.slot()
    assert memory.capacity == 5
    assert reader.still_valid(item)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RingMemory(SHAPE, np.uint8, 1), "at least 2 slots"),
        (lambda: RingMemory(SHAPE, object, 4), "a plain type"),
        (lambda: RingMemory(SHAPE, np.uint8, 4, bytearray(100)), r"expected \d+ bytes for items of shape \(4, 3\)"),
        (lambda: RingMemory(SHAPE, np.uint8, None, bytearray(100)), "at least a header of 128 bytes, got 100"),
        (lambda: RingMemory(SHAPE, np.uint8, None, bytearray(1000)), "expected a ring .* got 0x0"),
        (lambda: RingMemory((3, 4), np.uint8, None, Ring().between.buffer), "expected layout"),
        (lambda: RingWriter(Ring().between), "nothing was written yet"),
    ],
)
def test_memory_that_does_not_fit_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(DaggerError, match=words):
        make()
