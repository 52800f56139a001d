"""Rings that processes share: what is read is whole, names have one writer, and nothing is left or taken away."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dagger_ros.contract import DaggerError
from dagger_ros.control.ring import Item, Lapped, RingReader
from dagger_ros.control.shared import SharedReader, SharedWriter

if not Path("/dev/shm").is_dir():
    pytest.skip("needs /dev/shm", allow_module_level=True)

SHAPE = (16, 16, 3)
PAYLOAD = np.dtype([("checksum", "u8"), ("pixels", "u1", (20_000,))])
# In another process: prints a line when it has done something, and goes on when it is sent one.
HEAD = """
import sys, zlib
import numpy as np
from dagger_ros.control.shared import SharedReader, SharedWriter
"""
WRITES_PICTURES = f"""{HEAD}
writer = SharedWriter(sys.argv[1], {SHAPE}, np.uint8, 4, epoch=1)
writer.ring.slot()[:] = 7
writer.ring.commit(70)
print("written", flush=True)
sys.stdin.readline()
"""
READS_PICTURES = f"""{HEAD}
item = SharedReader(sys.argv[1], {SHAPE}, np.uint8).ring().newest()
print(item.stamp_ns, int(item.values.sum()), flush=True)
"""
WRITES_CHECKSUMS = f"""{HEAD}
writer = SharedWriter(sys.argv[1], (), np.dtype({PAYLOAD.descr}), 3, epoch=1).ring
print("begun", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[2])):
    slot = writer.slot()
    slot["pixels"] = np.arange(i, i + 20_000, dtype=np.uint64) * 2654435761 >> 8
    slot["checksum"] = zlib.crc32(slot["pixels"])
    writer.commit(i)
print("written", flush=True)
sys.stdin.readline()
"""


class Others:
    """Other processes, and the names of this test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, self.name, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def hear(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise AssertionError(process.communicate()[1])
        return line

    def tell(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        with suppress(FileNotFoundError):
            Path("/dev/shm", self.name).unlink()


@pytest.fixture
def others(request: pytest.FixtureRequest) -> Iterator[Others]:
    others = Others(f"dagger_ros_test.{os.getpid()}.{zlib.crc32(request.node.name.encode())}")
    yield others
    others.end()


def writer(others: Others, *, epoch: int = 1) -> SharedWriter:
    return SharedWriter(others.name, SHAPE, np.uint8, 4, epoch=epoch)


def reader(others: Others) -> SharedReader:
    return SharedReader(others.name, SHAPE, np.uint8)


def newest(ring: RingReader | None) -> Item:
    assert ring is not None
    item = ring.newest()
    assert isinstance(item, Item)
    return item


def test_what_two_processes_exchange_as_fast_as_they_can_is_whole_or_said_to_be_lost(others: Others) -> None:
    count = 4_000
    process = others.start(WRITES_CHECKSUMS, count)
    assert others.hear(process) == "begun"
    ring = SharedReader(others.name, (), PAYLOAD).ring()
    assert ring is not None
    others.tell(process)
    copy, seen, lost, views, spoilt = np.zeros((), PAYLOAD), 0, 0, 0, 0
    while seen + lost < count:
        item = ring.next(copy)
        if isinstance(item, Lapped):
            lost += item.lost
        elif item is not None:
            assert item.sequence == seen + lost
            assert zlib.crc32(item.values["pixels"]) == item.values["checksum"]
            seen += 1
        view = ring.newest()
        if isinstance(view, Item):
            checksum, wanted = zlib.crc32(view.values["pixels"]), int(view.values["checksum"])
            views += 1
            if not ring.still_valid(view):
                spoilt += 1
            else:
                assert checksum == wanted
    assert others.hear(process) == "written"
    assert newest(ring).sequence == count - 1
    assert seen > 0
    assert views > spoilt


def test_views_lie_in_the_memory_of_the_writer(others: Others) -> None:
    shared = writer(others)
    found = reader(others).ring()
    shared.ring.slot()[:] = 1
    shared.ring.commit(5)
    item = newest(found)
    assert not item.values.flags.writeable
    shared.ring.memory.slots[0][0, 0, 0] = 99
    assert item.values[0, 0, 0] == 99
    shared.close()


def test_reader_waits_for_a_writer_and_finds_the_next_one(others: Others) -> None:
    found = reader(others)
    assert found.ring() is None
    first = writer(others, epoch=1)
    first.ring.commit(1)
    assert newest(found.ring()).stamp_ns == 1
    first.close()
    assert found.ring() is None
    second = writer(others, epoch=2)
    second.ring.commit(2)
    ring = found.ring()
    assert ring is not None
    assert (ring.epoch, newest(ring).stamp_ns) == (2, 2)
    second.close()


def test_view_outlives_writer_and_reader(others: Others) -> None:
    shared, found = writer(others), reader(others)
    shared.ring.slot()[:] = 3
    shared.ring.commit(1)
    item = newest(found.ring())
    shared.close()
    del shared, found
    assert (item.values == 3).all()


def test_second_writer_of_a_name_is_refused_while_the_first_one_lives(others: Others) -> None:
    process = others.start(WRITES_PICTURES)
    others.hear(process)
    with pytest.raises(DaggerError, match="another one is running, end it first"):
        writer(others)
    assert newest(reader(others).ring()).stamp_ns == 70


def test_killed_writer_leaves_its_last_item_and_the_next_writer_takes_the_name(others: Others) -> None:
    process = others.start(WRITES_PICTURES)
    others.hear(process)
    found = reader(others)
    old = newest(found.ring())
    process.kill()
    process.wait()
    assert newest(found.ring()).stamp_ns == 70
    shared = writer(others, epoch=2)
    ring = found.ring()
    assert ring is not None
    assert (ring.epoch, ring.newest()) == (2, None)
    assert (old.values == 7).all()
    shared.close()
    assert not Path("/dev/shm", others.name).exists()


def test_reader_that_ends_takes_nothing_away_and_complains_of_nothing(others: Others) -> None:
    shared = writer(others)
    shared.ring.slot()[:] = 1
    shared.ring.commit(5)
    for _ in range(2):
        process = others.start(READS_PICTURES)
        assert others.hear(process) == f"5 {16 * 16 * 3}"
        assert process.communicate() == ("", "")
        assert process.returncode == 0
    assert newest(reader(others).ring()).stamp_ns == 5
    shared.close()


def test_no_process_is_started_to_watch_over_the_memory(others: Others) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    shared = writer(others)
    assert reader(others).ring() is not None
    shared.close()
    assert children.read_text() == before


def test_writer_that_was_killed_before_it_had_begun_is_replaced(others: Others) -> None:
    Path("/dev/shm", others.name).write_bytes(bytes(5_000))
    assert reader(others).ring() is None
    shared = writer(others)
    assert reader(others).ring() is not None
    shared.close()


def foreign(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (foreign(b"something else " * 20), "there is shared memory of something else.*remove /dev/shm/"),
        (foreign(b"short"), "there is shared memory of something else"),
        (foreign(b""), "something is there that cannot be read.*remove /dev/shm/"),
    ],
)
def test_writer_leaves_what_is_not_a_ring_alone(others: Others, make: Callable[[Path], Any], words: str) -> None:
    path = Path("/dev/shm", others.name)
    make(path)
    with pytest.raises(DaggerError, match=words):
        writer(others)
    assert path.exists()


def test_reader_refuses_what_is_not_the_ring_that_it_wants(others: Others) -> None:
    shared = writer(others)
    with pytest.raises(DaggerError, match=rf"{others.name}: ring: expected layout .*\(8, 8, 3\).* one contract"):
        SharedReader(others.name, (8, 8, 3), np.uint8).ring()
    shared.ring.memory.header[1] = 9
    with pytest.raises(DaggerError, match=r"expected version 0x1 .* got 0x9; writer and reader must be of one release"):
        reader(others).ring()
    shared.close()
    Path("/dev/shm", others.name).write_bytes(b"something else " * 20)
    with pytest.raises(DaggerError, match="expected a ring"):
        reader(others).ring()


def test_ring_cut_short_is_refused(others: Others) -> None:
    shared = writer(others)
    shared.ring.commit(1)
    path = Path("/dev/shm", others.name)
    content = path.read_bytes()
    path.unlink()  # not cut under the feet of who has it in memory
    path.write_bytes(content[:1000])
    with pytest.raises(DaggerError, match=r"expected \d+ bytes for items of shape \(16, 16, 3\), uint8, got 1000"):
        reader(others).ring()
