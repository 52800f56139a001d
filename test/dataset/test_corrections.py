"""What of an episode is kept where only corrections are."""

from __future__ import annotations

import pytest

from dagger_ros.contract import Mode
from dagger_ros.dataset.corrections import CorrectionFilter, Received

pytest.importorskip("rclpy")
from rclpy.serialization import serialize_message

from dagger_ros.msg import GateDecision

pytestmark = pytest.mark.ros

S = 1_000_000_000


def decision(mode: Mode, time_ns: int) -> Received:
    return Received("decision", time_ns, serialize_message(GateDecision(mode=int(mode))))


def other(time_ns: int, topic: str = "joint_states") -> Received:
    return Received(topic, time_ns, b"data")


def taken(keep: CorrectionFilter, *messages: Received) -> list[Received]:
    return [kept for message in messages for kept in keep.take(message)]


@pytest.fixture
def keep() -> CorrectionFilter:
    return CorrectionFilter(decisions="decision", always=("act",), before_ns=2 * S)


def test_nothing_is_kept_while_the_expert_does_not_drive(keep: CorrectionFilter) -> None:
    modes = [mode for mode in Mode if mode is not Mode.EXPERT]
    assert taken(keep, *(m for i, mode in enumerate(modes) for m in (other(i * S), decision(mode, i * S)))) == []


def test_what_comes_shortly_before_a_takeover_is_kept_in_order(keep: CorrectionFilter) -> None:
    before = [other(0), decision(Mode.POLICY, 1), other(1 * S), decision(Mode.POLICY, 1 * S), other(3 * S)]
    takeover = decision(Mode.EXPERT, 3 * S)
    assert taken(keep, *before) == []
    assert keep.take(takeover) == [*before[2:], takeover]


@pytest.mark.parametrize(("age_ns", "kept"), [(2 * S - 1, True), (2 * S, True), (2 * S + 1, False)])
def test_older_messages_than_the_window_are_forgotten(age_ns: int, kept: bool, keep: CorrectionFilter) -> None:
    old, takeover = other(5 * S - age_ns), decision(Mode.EXPERT, 5 * S)
    keep.take(old)
    keep.take(other(5 * S))
    assert (old in keep.take(takeover)) == kept


def test_all_is_kept_while_the_expert_drives_up_to_the_decision_that_ends_it(keep: CorrectionFilter) -> None:
    keep.take(decision(Mode.EXPERT, 0))
    driven = [other(1), decision(Mode.EXPERT, 2), other(9 * S), decision(Mode.HOLD, 9 * S)]
    assert taken(keep, *driven) == driven
    after = [other(9 * S + 1), decision(Mode.POLICY, 9 * S + 2)]
    assert taken(keep, *after) == []
    again = decision(Mode.EXPERT, 9 * S + 3)
    assert keep.take(again) == [*after, again]  # nothing twice


def test_some_topics_are_kept_whoever_drives(keep: CorrectionFilter) -> None:
    assert keep.take(other(0, "act")) == [other(0, "act")]
    keep.take(decision(Mode.EXPERT, 0))
    assert keep.take(other(1, "act")) == [other(1, "act")]


def test_without_a_time_before_only_what_the_expert_drove_is_kept() -> None:
    keep = CorrectionFilter(decisions="decision", always=(), before_ns=0)
    keep.take(other(1))
    takeover = decision(Mode.EXPERT, 2)
    assert keep.take(takeover) == [takeover]


def test_clock_that_is_set_back_does_not_fill_the_memory(keep: CorrectionFilter) -> None:
    for second in range(100, 110):
        keep.take(other(second * S))
    late, takeover = other(5 * S), decision(Mode.EXPERT, 6 * S)
    keep.take(late)
    assert keep.take(takeover) == [late, takeover]


def test_what_is_held_is_bounded_by_time(keep: CorrectionFilter) -> None:
    for tenth in range(1000):
        keep.take(other(tenth * S // 10))
    assert len(keep.take(decision(Mode.EXPERT, 100 * S))) <= 2 * 10 + 2
