"""Deadlines, stage times, and what is asked of the system, without asking it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")
from dagger_ros.contract import DaggerError
from dagger_ros.nodes import realtime
from dagger_ros.nodes.realtime import Collector, Stages, Ticker, apply_settings, cores_of

pytestmark = pytest.mark.ros


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_ns = 10_000

    def monotonic_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(realtime, "time", clock)
    return clock


def test_ticker_says_when_and_what_was_missed(clock: Clock) -> None:
    ticks: list[tuple[int, int]] = []
    ticker = Ticker(1000, lambda now_ns, missed: ticks.append((now_ns, missed)))
    assert ticker.left_ns(clock.now_ns) == 0
    ticker.tick()
    clock.now_ns += 1100
    assert ticker.left_ns(clock.now_ns) == -100
    ticker.tick()
    assert ticker.late_ns == 100
    clock.now_ns += 3200
    ticker.tick()
    assert ticks == [(10_000, 0), (11_100, 0), (14_300, 2)]
    assert ticker.late_ns == 2300


def test_ticker_is_ahead_of_a_deadline_only_where_deadlines_are_kept(clock: Clock) -> None:
    ticks: list[int] = []
    ticker = Ticker(1000, lambda now_ns, _missed: ticks.append(now_ns))
    ticker.tick()
    clock.now_ns += 900
    ticker.arrive(clock.now_ns)
    assert ticks == [10_000]
    ticker.kept = True
    ticker.arrive(clock.now_ns)
    assert ticks == [10_000, 10_900]
    assert ticker.late_ns == -100


def test_stages_are_those_since_the_last_time() -> None:
    stages = Stages("gate", "publish")
    assert stages.take() == {}
    for i in range(1, 102):
        stages.note(i * 1000, 5000)
    assert stages.take() == {"gate us": "p50 51, p99 100, max 101", "publish us": "p50 5, p99 5, max 5"}
    assert stages.take() == {}
    for _ in range(5000):  # more than are kept
        stages.note(7000, 0)
    assert stages.take()["gate us"] == "p50 7, p99 7, max 7"


@pytest.mark.parametrize(("text", "cores"), [("", set()), ("2", {2}), ("0,2-3", {0, 2, 3}), (" 1 , 1 ", {1})])
def test_cores_are_read_like_taskset_does(text: str, cores: set[int]) -> None:
    assert cores_of(text) == cores


@pytest.mark.parametrize("text", ["a", "1-", "-1", "1..3"])
def test_cores_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(DaggerError, match=r"cpu_affinity: expected cores such as 2 or 0,2-3, got"):
        cores_of(text)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A system that notes what it is asked for, and refuses it where told to."""
    system = SimpleNamespace(asked=[], refuses=False)

    def ask(name: str) -> Any:
        def asked(*arguments: Any) -> int:
            system.asked.append((name, *arguments))
            if system.refuses and name != "mlockall":
                raise PermissionError(1, "Operation not permitted")
            return -1 if system.refuses else 0

        return asked

    for name in ("sched_setscheduler", "sched_setaffinity"):
        monkeypatch.setattr(os, name, ask(name))
    monkeypatch.setattr(os, "sched_param", lambda priority: priority)
    libc = SimpleNamespace(prctl=lambda *_: 0, mlockall=ask("mlockall"))
    monkeypatch.setattr(realtime, "_libc", lambda: libc)
    return system


def test_what_is_not_wanted_is_not_asked_for(system: Any) -> None:
    assert apply_settings(priority=0, cores=set(), lock_memory=False) == []
    assert system.asked == []


def test_process_gets_what_is_wanted_and_its_first_thread_the_priority(system: Any) -> None:
    assert apply_settings(priority=20, cores={1}, lock_memory=True) == []
    assert {call[0] for call in system.asked} == {"sched_setscheduler", "sched_setaffinity", "mlockall"}
    assert system.asked[-1] == ("sched_setscheduler", 0, os.SCHED_FIFO, 20)
    others = [call[3] for call in system.asked[:-1] if call[0] == "sched_setscheduler"]
    assert set(others) == {19}


def test_what_is_refused_is_said_with_what_to_do_and_nothing_fails(system: Any) -> None:
    system.refuses = True
    words = apply_settings(priority=20, cores={999}, lock_memory=True)
    assert len(words) == 3
    assert words[0].startswith("cpu_affinity [999]: Operation not permitted; this process may run on ")
    assert "lock_memory" in words[1]
    assert "ulimit -l" in words[1]
    assert words[2].startswith("realtime_priority 20: Operation not permitted; allow it with `ulimit -r 20`")


@pytest.fixture
def garbage() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_garbage_is_collected_when_asked_and_never_by_itself(garbage: None) -> None:
    collector = Collector()
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0
    for idle in (False, True):
        ring: list[Any] = []
        ring.append(ring)
        del ring
        before = gc.get_stats()
        collector.collect(idle=idle)
        after = gc.get_stats()
        assert after[2 if idle else 0]["collected"] > before[2 if idle else 0]["collected"]
