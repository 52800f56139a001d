from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from dagger_ros.control import Deadlines


def test_lateness_does_not_add_up() -> None:
    deadlines = Deadlines(100)
    assert [deadlines.take(t) for t in (1000, 1150, 1250, 1390)] == [0, 0, 0, 0]


def test_missed_periods_are_counted_once_and_not_made_up_for() -> None:
    deadlines = Deadlines(100)
    assert [deadlines.take(t) for t in (1000, 1100, 1455, 1500, 1600)] == [0, 0, 2, 0, 0]


def test_tick_a_little_early_is_none_missed() -> None:
    deadlines = Deadlines(100)
    assert [deadlines.take(t) for t in (1000, 1099, 1201, 1299)] == [0, 0, 0, 0]


def test_what_comes_shortly_before_the_deadline_is_decided_on_at_once() -> None:
    deadlines = Deadlines(100)
    assert not deadlines.arrive(990)
    assert (deadlines.take(1000), deadlines.due_ns) == (0, 1100)
    assert not deadlines.arrive(1059)
    assert deadlines.arrive(1060)
    assert (deadlines.take(1060), deadlines.due_ns) == (0, 1200)
    assert deadlines.arrive(1250)


@pytest.mark.parametrize("phase", range(0, 100, 7))
def test_what_comes_once_a_period_finds_its_tick_whatever_the_phase(phase: int) -> None:
    ticks = run([1000 + phase + 100 * i for i in range(1, 60)], until=6900)
    assert all(arrived for _, arrived in ticks[12:])
    assert {b - a for (a, _), (b, _) in pairwise(ticks[12:])} == {100}


def test_what_comes_a_little_earlier_or_later_each_time_still_finds_its_tick() -> None:
    rng = np.random.default_rng(0)
    arrivals = [1100 + 100 * i + int(jitter) for i, jitter in enumerate(rng.uniform(-15, 15, 2000))]
    ticks = run(arrivals, until=201_000)
    assert sum(arrived for _, arrived in ticks[20:]) >= 0.99 * len(ticks[20:])


@pytest.mark.parametrize("step", [10, 20, 37, 50, 150, 200, 430])
def test_rate_does_not_follow_what_comes_more_or_less_often(step: int) -> None:
    ticks = [time for time, _ in run(list(range(1000, 21000, step)), until=21000)]
    assert len(ticks) == pytest.approx(200, abs=2)
    assert all(55 <= b - a <= 140 for a, b in pairwise(ticks))


def test_silence_leaves_the_deadlines_as_they_are() -> None:
    ticks = [time for time, _ in run([1030, 1130], until=2000)]
    assert ticks == [1000, 1100, *range(1210, 2000, 100)]


def run(arrivals: list[int], until: int) -> list[tuple[int, bool]]:
    """When a clock of period 100 ticks from 1000 on, and whether for an arrival."""
    deadlines = Deadlines(100)
    deadlines.take(1000)
    ticks = [(1000, False)]
    for now in range(1001, until):
        if now in arrivals and deadlines.arrive(now):
            ticks.append((now, True))
            assert deadlines.take(now) == 0
        elif deadlines.due_ns is not None and now >= deadlines.due_ns:
            ticks.append((now, False))
            assert deadlines.take(now) == 0
    return ticks
