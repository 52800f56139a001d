from __future__ import annotations

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
