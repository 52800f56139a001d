"""A ring of items: one writer, any number of readers who get views, and are told when they were too slow.

    writer: slot(), filled in place, commit(stamp)      reader: newest(), next(), at(stamp): an Item, Lapped or None

Nobody waits for anybody. Each slot has a word that is odd while the slot is being written, and says which item is in it
afterwards: a reader looks at it before and after, so that what was overwritten meanwhile is never taken for whole.

Python has no memory fences. What this rests on: numpy loads or stores one aligned element of 8 bytes by a single
instruction, so it is never torn. x86-64 keeps loads in order among themselves, and stores too. ARM does not: there
`RingMemory.fence` stands between the word and the data. It takes a lock that nobody else has, twice; each time is an
atomic operation with acquire on the way in and one with release on the way out, and a release followed by an acquire
orders everything before against everything after. What was run is x86-64 (test/control/test_shared.py: two
processes and checksums).
"""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from dagger_ros.contract import DaggerError

__all__ = ["Item", "Lapped", "RingMemory", "RingReader", "RingWriter", "capacity_for"]

Array = np.ndarray[Any, np.dtype[Any]]

MAGIC = int.from_bytes(b"DagrRing", "little")
HEADER_WORDS = 16
_VERSION = 1
_LINE = 64  # bytes of a cache line: what is written by itself begins on one
# A reader that was overtaken looks again; so often in a row it is no accident.
_TRIES = 4


class Word(IntEnum):
    """The header, 8 bytes each."""

    MAGIC = 0  # written last: the others are there
    VERSION = 1
    LAYOUT = 2  # hash of shape and type of an item
    CAPACITY = 3
    EPOCH = 4  # of the writer
    CLOSED = 5  # 1: the writer has ended or was replaced, nothing will come any more
    FIRST = 8  # oldest item of the present time: stamps before it were later than its own. On a line of its own
    WRITTEN = 9  # so many items were committed


def capacity_for(rate_hz: float, lag_s: float) -> int:
    """How many slots a ring needs.

    In `lag_s` at most ceil(rate * lag) items are committed after the one that a reader holds. That one needs a slot
    too, and so does the one that is being written.

    Args:
        rate_hz: At which items are committed.
        lag_s: So long after the commit an item can still be read, s.
    """
    return math.ceil(rate_hz * lag_s) + 2


@dataclass(frozen=True, eq=False)
class Item:
    """One item.

    Args:
        values: A read-only view of the slot, to be trusted only as long as `RingReader.still_valid` says so; or the
            caller's `out`, whole.
        stamp_ns: As committed, ns.
        sequence: Number of the item, from 0 with each writer.
    """

    values: Array
    stamp_ns: int
    sequence: int


@dataclass(frozen=True)
class Lapped:
    """What was asked for has been overwritten.

    Args:
        lost: So many items can no longer be read; of `at`: 1, the one that was asked for.
    """

    lost: int


class RingMemory:
    """Header, words, stamps and items in one block of memory.

    Args:
        shape: Of an item; () for one row of a structured type.
        dtype: Of an item.
        capacity: Slots, at least 2; see `capacity_for`. None: what the header of `buffer` says.
        buffer: Where it lies; None: in memory of its own.

    Raises:
        DaggerError: If the buffer holds something else, or nothing yet where that is needed.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, capacity: int | None, buffer: Any = None) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        if capacity is None:
            capacity = self._read_capacity(buffer)
        if capacity < 2 or self.dtype.hasobject:
            raise DaggerError(f"ring: expected at least 2 slots and a plain type, got {capacity} and {self.dtype}")
        self.capacity = capacity
        size = self.bytes_for(shape, dtype, capacity)
        content = np.zeros(size, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)
        if content.size < size:
            raise DaggerError(f"ring: expected {size} bytes for {self.words()}, got {content.size}")
        table = HEADER_WORDS + 2 * capacity
        self.header = content[: 8 * HEADER_WORDS].view(np.uint64)
        words = content[8 * HEADER_WORDS : 8 * table].view(np.uint64)
        self.locks, self.stamps = words[:capacity], words[capacity:].view(np.int64)
        start, step = _up(8 * table), self._step(shape, dtype)
        item_bytes = self.dtype.itemsize * math.prod(shape)
        # Made once: a view for each slot to write, and one to read.
        starts = [start + i * step for i in range(capacity)]
        self.slots: list[Array] = [content[s : s + item_bytes].view(self.dtype).reshape(shape) for s in starts]
        self.views = [slot.view() for slot in self.slots]
        for view in self.views:
            view.setflags(write=False)
        self._lock = threading.Lock()

    @classmethod
    def bytes_for(cls, shape: tuple[int, ...], dtype: Any, capacity: int) -> int:
        """Size of the whole, bytes."""
        return _up(8 * (HEADER_WORDS + 2 * capacity)) + capacity * cls._step(shape, dtype)

    @staticmethod
    def _step(shape: tuple[int, ...], dtype: Any) -> int:
        return _up(np.dtype(dtype).itemsize * math.prod(shape))

    def layout(self) -> int:
        """Hash of shape and type, 64 bits."""
        text = f"{self.shape} {self.dtype.descr}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def words(self) -> str:
        """Shape and type in words."""
        return f"items of shape {self.shape}, {self.dtype if self.dtype.names is None else 'structured'}"

    def fence(self) -> None:
        """What was loaded and stored before stays before what comes after; see the top of the file."""
        with self._lock:
            pass
        with self._lock:
            pass

    def _read_capacity(self, buffer: Any) -> int:
        content = np.frombuffer(buffer, np.uint8)
        if content.size < 8 * HEADER_WORDS:
            raise DaggerError(f"ring: expected at least a header of {8 * HEADER_WORDS} bytes, got {content.size}")
        header = content[: 8 * HEADER_WORDS].view(np.uint64)
        found = [int(header[w]) for w in (Word.MAGIC, Word.VERSION, Word.LAYOUT)]
        wanted = [MAGIC, _VERSION, self.layout()]
        for what, got, expected in zip(("a ring", "version", "layout"), found, wanted, strict=True):
            if got != expected:
                raise DaggerError(
                    f"ring: expected {what} {expected:#x} ({self.words()}), got {got:#x}; "
                    "writer and reader must be of one release and one contract"
                )
        return int(header[Word.CAPACITY])


class RingWriter:
    """Fills slots in place.

    Args:
        memory: All zeros. Who begins anew takes new memory, so that no reader takes an item for another one.
        epoch: Tells this writer from the ones before it, 0 or more.
    """

    def __init__(self, memory: RingMemory, *, epoch: int = 0) -> None:
        self.memory = memory
        self._count, self._newest_ns, self._is_open = 0, -(2**63), False
        header = memory.header
        if header.any():
            raise DaggerError("ring: expected memory in which nothing was written yet")
        header[Word.VERSION], header[Word.LAYOUT], header[Word.CAPACITY] = _VERSION, memory.layout(), memory.capacity
        header[Word.EPOCH] = epoch
        memory.fence()
        header[Word.MAGIC] = MAGIC

    def slot(self) -> Array:
        """The slot of the next item, to be filled; the same one until `commit`."""
        memory, index = self.memory, self._count % self.memory.capacity
        if not self._is_open:
            memory.locks[index] = 2 * self._count + 1
            memory.fence()
            self._is_open = True
        return memory.slots[index]

    def commit(self, stamp_ns: int) -> int:
        """Hands the slot to the readers.

        Args:
            stamp_ns: Of the item, ns. If it is before the last one, time has begun anew (a bag that is played again):
                `at` then finds nothing of before.

        Returns:
            The item's number.
        """
        self.slot()
        memory, number = self.memory, self._count
        memory.stamps[number % memory.capacity] = stamp_ns
        memory.fence()
        memory.locks[number % memory.capacity] = 2 * number + 2
        if stamp_ns < self._newest_ns:
            memory.header[Word.FIRST] = number
        memory.fence()
        memory.header[Word.WRITTEN] = number + 1
        self._count, self._newest_ns, self._is_open = number + 1, stamp_ns, False
        return number


class RingReader:
    """Reads items, each reader at its own pace.

    With `out` an item is copied there, and what is given back is whole. Without, `Item.values` is a view of the slot:
    use it, then ask `still_valid`; if not, what was made of it is worth nothing.

    Args:
        memory: Of a ring that a writer has begun.
    """

    def __init__(self, memory: RingMemory) -> None:
        self.memory = memory
        self.epoch = int(memory.header[Word.EPOCH])
        self._next = self._oldest(self._written())
        self._found = 0  # item that `at` gave last

    @property
    def closed(self) -> bool:
        """Whether the writer has ended, so that nothing will come any more."""
        return bool(self.memory.header[Word.CLOSED])

    def newest(self, out: Array | None = None) -> Item | Lapped | None:
        """The item that was committed last; None: none yet. Lapped: the writer was faster than several tries."""
        for _ in range(_TRIES):
            written = self._written()
            if written == 0:
                return None
            item = self._item(written - 1, out)
            if item is not None:
                return item
        return Lapped(1)

    def next(self, out: Array | None = None) -> Item | Lapped | None:
        """The item after the one that this gave last, at first the oldest that is there; None: there is none yet.

        Lapped: so many were overwritten; the next call goes on with the oldest that is left.
        """
        written = self._written()
        if self._next >= written:
            return None
        item = self._item(self._next, out)
        if item is not None:
            self._next += 1
            return item
        before, self._next = self._next, max(self._next + 1, self._oldest(self._written()))
        return Lapped(self._next - before)

    def at(self, stamp_ns: int, out: Array | None = None) -> Item | Lapped | None:
        """The newest item whose stamp is not after `stamp_ns`; None: there was none. Lapped: it was overwritten.

        Begins at the item that the last call found, and halves what is left otherwise.
        """
        header = self.memory.header
        for _ in range(_TRIES):
            written = self._written()
            first = int(header[Word.FIRST])
            if first >= max(written, 1):
                continue  # it began anew this moment
            oldest = max(first, self._oldest(written))
            low = self._search(stamp_ns, oldest, written)
            if low < oldest:
                return Lapped(1) if oldest > first else None
            item = self._item(low, out)
            # It is still there, so no later one that the search looked at was overwritten meanwhile either.
            if item is not None:
                self._found = low
                return item
        return Lapped(1)

    def still_valid(self, item: Item) -> bool:
        """Whether the slot of a view has not been written to since it was given; asked after its last use."""
        self.memory.fence()
        return self._holds(item.sequence)

    def _search(self, stamp_ns: int, oldest: int, written: int) -> int:
        """Number of the newest item of [oldest, written) that is not after a stamp; oldest - 1: none."""
        low, high = oldest - 1, written
        for probe in (self._found, self._found + 1):
            if low < probe < high:
                if self._stamp(probe) <= stamp_ns:
                    low = probe
                else:
                    high = probe
        while high - low > 1:
            probe = (low + high) // 2
            if self._stamp(probe) <= stamp_ns:
                low = probe
            else:
                high = probe
        return low

    def _item(self, number: int, out: Array | None) -> Item | None:
        """An item, if it is still there when all of it has been read."""
        memory, index = self.memory, number % self.memory.capacity
        if not self._holds(number):
            return None
        memory.fence()
        stamp_ns = int(memory.stamps[index])
        values = memory.views[index]
        if out is not None:
            np.copyto(out, values)
            values = out
        memory.fence()
        return Item(values, stamp_ns, number) if self._holds(number) else None

    def _holds(self, number: int) -> bool:
        return int(self.memory.locks[number % self.memory.capacity]) == 2 * number + 2

    def _stamp(self, number: int) -> int:
        return int(self.memory.stamps[number % self.memory.capacity])

    def _written(self) -> int:
        written = int(self.memory.header[Word.WRITTEN])
        self.memory.fence()
        return written

    def _oldest(self, written: int) -> int:
        """Number of the oldest item whose slot cannot be the one that is being written."""
        return max(0, written - self.memory.capacity + 1)


def _up(size: int) -> int:
    """The next multiple of a cache line."""
    return -(-size // _LINE) * _LINE
