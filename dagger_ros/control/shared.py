"""Rings in memory that processes of one machine share, found by name.

A name belongs to one writer at a time: it holds a lock on the segment, which the system takes from it when it ends,
however it ends. The next writer takes what a dead one left away and makes a new segment, so that a reader still sees
whole items in the old one, and learns from `CLOSED` that it has to look for the new one.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from dagger_ros.contract import DaggerError
from dagger_ros.control.ring import HEADER_WORDS, MAGIC, RingMemory, RingReader, RingWriter, Word

__all__ = ["SharedReader", "SharedWriter"]

# Two writers that start at once may take each other's segment away; one of them wins within a few tries.
_TRIES = 10


class SharedWriter:
    """The one writer of a name.

    Args:
        name: Of the segment, as in `/dev/shm`.
        shape: Of an item.
        dtype: Of an item.
        capacity: Slots; see `capacity_for`.
        epoch: Tells this writer from the ones before it, as a time of start does.

    Attributes:
        ring: To write to.

    Raises:
        DaggerError: If another writer of that name lives, or the memory cannot be had.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any, capacity: int, *, epoch: int) -> None:
        self._segment = _new_segment(name, RingMemory.bytes_for(shape, dtype, capacity))
        self.ring = RingWriter(RingMemory(shape, dtype, capacity, self._segment.content()), epoch=epoch)

    def close(self) -> None:
        """Ends the ring: readers are told, and the name is free. Views that are held stay readable."""
        self.ring.memory.header[Word.CLOSED] = 1
        self._segment.remove()


class SharedReader:
    """Finds the ring of whoever writes under a name now.

    Args:
        name: Of the segment.
        shape: Of an item.
        dtype: Of an item.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self._name, self._shape, self._dtype = name, shape, dtype
        self._segment: _Segment | None = None
        self._ring: RingReader | None = None

    def ring(self) -> RingReader | None:
        """The ring of the writer that runs; None: there is none. Of one that was killed: what it wrote last.

        It is another object, of another epoch, when another writer has begun.

        Raises:
            DaggerError: If what goes by that name is no such ring.
        """
        if self._ring is not None and self._ring.closed:
            self._ring = self._segment = None
        if self._ring is None:
            self._attach()
        return self._ring

    def _attach(self) -> None:
        try:
            segment = _Segment(self._name)
        except (FileNotFoundError, ValueError):  # not there, or empty: it is being made
            return
        except OSError as error:
            raise DaggerError(f"{self._name}: expected shared memory that this user may read; {error}") from error
        if not segment.is_begun():
            return
        try:
            self._ring = RingReader(RingMemory(self._shape, self._dtype, None, segment.content()))
        except DaggerError as error:
            raise DaggerError(f"{self._name}: {error}") from error
        self._segment = segment


class _Segment(SharedMemory):
    """Shared memory that lives until it is removed by name, whatever becomes of the processes that opened it.

    Args:
        name: Of the segment.
        size: To be made, bytes; 0: it is there.
    """

    _fd: int  # SharedMemory's own

    def __init__(self, name: str, size: int = 0) -> None:
        if sys.version_info >= (3, 13):
            super().__init__(name, create=size > 0, size=size, track=False)
        else:
            with _untracked():
                super().__init__(name, create=size > 0, size=size)

    def lock(self) -> bool:
        """Makes this process the owner until it ends or closes; False: another one is."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def content(self) -> memoryview[int]:
        """All of it."""
        return memoryview(self.buf or b"")

    def header(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """The words that every ring begins with."""
        return np.frombuffer(self.content(), np.uint64, count=min(HEADER_WORDS, self.size // 8))

    def is_begun(self) -> bool:
        """Whether its writer has written the header."""
        return bool(self.header()[:1].any())

    def remove(self) -> None:
        """Frees the name, then the lock."""
        with suppress(FileNotFoundError):
            if sys.version_info >= (3, 13):
                self.unlink()
            else:
                with _untracked():
                    self.unlink()
        self.__del__()

    def __del__(self) -> None:
        # While somebody holds a view, the memory stays mapped; the file is closed all the same.
        with suppress(BufferError):
            self.close()
        if self._fd >= 0:
            with open(self._fd, "rb"):
                self._fd = -1


@contextmanager
def _untracked() -> Iterator[None]:
    """Before Python 3.13 a tracker takes note of each segment that is opened, and unlinks it when that process ends."""
    kept = resource_tracker.register, resource_tracker.unregister
    for name in ("register", "unregister"):
        setattr(resource_tracker, name, lambda *_: None)
    try:
        yield
    finally:
        resource_tracker.register, resource_tracker.unregister = kept


def _new_segment(name: str, size: int) -> _Segment:
    """A segment of zeros that is this process's own."""
    for _ in range(_TRIES):
        try:
            segment = _Segment(name, size)
        except FileExistsError:
            _take_away(name)
            continue
        except OSError as error:
            raise DaggerError(f"{name}: expected {size} bytes of shared memory; {error}") from error
        # Who came between may have taken it away again, and said so.
        if segment.lock() and not segment.header().any():
            return segment
    raise DaggerError(f"{name}: expected to be the only writer of this name; others begin and end all the time")


def _take_away(name: str) -> None:
    """Removes the segment of a writer that is dead.

    Raises:
        DaggerError: If it lives, or the segment is nothing of ours.
    """
    try:
        segment = _Segment(name)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DaggerError(
            f"{name}: expected to make shared memory of this name, and something is there that cannot be read "
            f"({error}); if no program uses it, remove /dev/shm/{name}"
        ) from error
    if not segment.lock():
        raise DaggerError(f"{name}: expected to be the only writer of this name; another one is running, end it first")
    header = segment.header()
    if header[:1].tolist() != [MAGIC] and (header.size < HEADER_WORDS or header.any()):
        raise DaggerError(
            f"{name}: expected a ring of a writer that has ended, or nothing; there is shared memory of something "
            f"else. If no program uses it, remove /dev/shm/{name}"
        )
    header[Word.CLOSED] = 1
    segment.remove()
