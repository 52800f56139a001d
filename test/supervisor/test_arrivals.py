from __future__ import annotations

import pytest

from dagger_ros.supervisor.arrivals import TOLERATED, Arrival, Arrivals, LeakyBucket

NEXT, GAP, DUPLICATE, OUT_OF_ORDER = Arrival.NEXT, Arrival.GAP, Arrival.DUPLICATE, Arrival.OUT_OF_ORDER


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2], [NEXT, NEXT, NEXT]),
        ([7, 8], [NEXT, NEXT]),
        ([0, 2, 3], [NEXT, GAP, NEXT]),
        ([0, 0, 1], [NEXT, DUPLICATE, NEXT]),
        ([5, 4, 6], [NEXT, OUT_OF_ORDER, NEXT]),
        ([5, 3, 5, 6], [NEXT, OUT_OF_ORDER, DUPLICATE, NEXT]),
    ],
)
def test_message_is_judged_by_the_one_before(numbers: list[int], expected: list[Arrival]) -> None:
    arrivals = Arrivals(1, gaps_count=True)
    assert [arrivals.take(n) for n in numbers] == expected


def test_step_is_the_largest_distance_without_a_gap() -> None:
    arrivals = Arrivals(10, gaps_count=False)
    assert [arrivals.take(n) for n in (0, 10, 21)] == [NEXT, NEXT, GAP]


def test_only_what_is_newer_counts() -> None:
    assert [a for a in Arrival if a.counts] == [NEXT, GAP]


def test_source_that_was_started_again_is_followed_after_some_messages() -> None:
    arrivals = Arrivals(1, gaps_count=True)
    arrivals.take(1000)
    kinds = [arrivals.take(n) for n in range(TOLERATED + 3)]
    assert kinds == [OUT_OF_ORDER] * TOLERATED + [NEXT] * 3


def test_newer_message_in_between_ends_the_count_of_older_ones() -> None:
    arrivals = Arrivals(1, gaps_count=True)
    arrivals.take(100)
    for _ in range(3):
        for n in range(TOLERATED - 1):
            arrivals.take(n)
        assert arrivals.take(arrivals._last + 1 if arrivals._last is not None else 0) is NEXT
    assert arrivals.take(0) is OUT_OF_ORDER


def test_single_faults_are_forgiven_and_many_are_not() -> None:
    arrivals = Arrivals(1, gaps_count=True)
    n = 0
    for _ in range(20):
        n += 2
        arrivals.take(n)
        for _ in range(4):
            n += 1
            arrivals.take(n)
        assert not arrivals.invalid
    for _ in range(TOLERATED):
        assert not arrivals.invalid
        n += 2
        arrivals.take(n)
    assert arrivals.invalid
    arrivals.take(n + 1)
    assert not arrivals.invalid


def test_two_writers_that_take_turns_are_found_out() -> None:
    arrivals = Arrivals(1, gaps_count=True)
    for i in range(40):
        arrivals.take(1000 + i)
        arrivals.take(i)
    assert arrivals.invalid


def test_gaps_count_only_where_they_are_a_fault() -> None:
    for count in (True, False):
        arrivals = Arrivals(1, gaps_count=count)
        for n in range(0, 20, 2):
            arrivals.take(n)
        assert arrivals.invalid == count


def test_cleared_arrivals_know_nothing() -> None:
    arrivals = Arrivals(1, gaps_count=True)
    for n in (9, 9, 9, 9, 9, 9, 9):
        arrivals.take(n)
    assert arrivals.invalid
    arrivals.clear()
    assert not arrivals.invalid
    assert arrivals.take(0) is NEXT


def test_bucket_never_holds_more_than_makes_it_full_nor_less_than_nothing() -> None:
    bucket = LeakyBucket()
    bucket.drain(3.0)
    assert bucket.level == 0.0
    for _ in range(TOLERATED - 1):
        bucket.add()
    assert not bucket.full
    for _ in range(10):
        bucket.add()
    assert bucket.full
    bucket.drain()
    assert bucket.level == TOLERATED - 0.25
    bucket.drain(1.75)
    assert bucket.level == TOLERATED - 2


def test_source_that_falls_behind_again_is_followed_again_after_as_many() -> None:
    for messages in (0, 1):  # after one that was followed, and after one that is cleared
        arrivals = Arrivals(1, gaps_count=True)
        arrivals.take(1000)
        for n in range(TOLERATED):
            arrivals.take(n + 500)
        if messages:
            arrivals.clear()
            arrivals.take(504)
        kinds = [arrivals.take(n) for n in range(TOLERATED + 1)]
        assert kinds == [OUT_OF_ORDER] * TOLERATED + [NEXT]


def test_duplicates_do_not_move_a_source_back() -> None:
    arrivals = Arrivals(1, gaps_count=True)
    for n in (7, 7, 7, 7, 7, 7, 7, 7):
        arrivals.take(n)
    assert arrivals.take(8) is NEXT
