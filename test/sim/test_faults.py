"""The injector itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dagger_ros.contract import DaggerError

pytest.importorskip("mujoco")
from dagger_ros.sim import Fault, FaultInjector, FaultKind, load_faults
from dagger_ros.sim.faults import lacks, set_numbers

S = 10**9


def fault(kind: str, **fields: Any) -> Fault:
    return Fault.model_validate({"name": "f", "kind": kind, "topic": "t", "start_s": 0.0} | fields)


def message(sequence: int = 0, **fields: Any) -> Any:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=5, nanosec=0))
    parts: dict[str, Any] = {"header": header, "sequence": sequence, "data": [1.0, 2.0], "takeover": False}
    return SimpleNamespace(**(parts | fields))


def passed(kind: str, count: int = 4, **fields: Any) -> list[Any]:
    injector = FaultInjector([fault(kind, **fields)], 0)
    return [out for i in range(count) for out in injector.relay("t", message(i), i * S)]


def test_message_of_another_topic_or_time_is_passed_on_as_it_is() -> None:
    injector = FaultInjector([fault("drop", start_s=1.0, duration_s=2.0)], 0)
    first = message()
    assert injector.relay("other", first, S)[0] is first
    counts = [len(injector.relay("t", message(), t)) for t in (S - 1, S, 3 * S - 1, 3 * S)]
    assert counts == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("kind", "value", "sequences"),
    [
        ("drop", 1.0, []),
        ("lose", 2.0, [1, 3]),
        ("freeze", 1.0, [0, 0, 0, 0]),
        ("duplicate", 1.0, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("swap", 1.0, [1, 0, 3, 2]),
        ("burst", 3.0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ],
)
def test_which_messages_are_passed_on(kind: str, value: float, sequences: list[int]) -> None:
    assert [m.sequence for m in passed(kind, value=value)] == sequences


def test_delayed_message_comes_when_it_is_due() -> None:
    injector = FaultInjector([fault("delay", value=1.5)], 0)
    assert injector.relay("t", message(7), S) == []
    assert injector.due(2 * S) == []
    ((topic, out),) = injector.due(5 * S // 2)
    assert (topic, out.sequence) == ("t", 7)
    assert injector.due(9 * S) == []


def test_swapped_message_is_not_lost_when_the_fault_ends() -> None:
    injector = FaultInjector([fault("swap")], 0)
    injector.relay("t", message(7), S)
    injector.switch("f", on=False, now_ns=2 * S)
    assert [m.sequence for _, m in injector.due(2 * S)] == [7]


def test_edit_changes_a_copy() -> None:
    injector, first = FaultInjector([fault("scale", value=10.0)], 0), message()
    (out,) = injector.relay("t", first, 0)
    assert (out.data, first.data) == ([10.0, 20.0], [1.0, 2.0])


def test_numbers_are_found_at_any_depth_and_the_header_is_left_alone() -> None:
    nested = message(pose=SimpleNamespace(position=SimpleNamespace(x=1.0, n=3), name="a"), data=[])
    injector = FaultInjector([fault("add", value=0.5)], 0)
    (out,) = injector.relay("t", nested, 0)
    assert (out.pose.position.x, out.pose.position.n) == (1.5, 3)
    assert out.header.stamp.sec == 5


def test_stamp_is_shifted_and_never_below_zero() -> None:
    assert passed("shift_stamp", 1, value=2.5)[0].header.stamp.nanosec == 500_000_000
    assert passed("shift_stamp", 1, value=-9.0)[0].header.stamp.sec == 0


def test_message_that_nobody_sent_has_the_numbers_asked_for() -> None:
    out = SimpleNamespace(data=False)
    set_numbers(out, 1.0)
    assert out.data is True
    set_numbers(twist := SimpleNamespace(linear=SimpleNamespace(x=0.0, y=0.0)), 0.2)
    assert (twist.linear.x, twist.linear.y) == (0.2, 0.2)


def test_fault_to_be_said_leaves_messages_alone() -> None:
    assert len(passed("say")) == 4


def test_every_kind_is_explained() -> None:
    source = Path(load_faults.__code__.co_filename).read_text()
    for kind in FaultKind:
        assert f'{kind.name} = "{kind.value}"\n    """' in source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("faults: []", "at least 1 entry"),
        ("faults: [{name: a, kind: explode, topic: t}]", "faults.0.kind: expected one of 'drop'"),
        ("faults: [{name: a, kind: drop}]", "faults.0.topic: expected this key; found nothing"),
        ("faults: [{name: a, kind: drop, topic: t, start_s: -1.0}]", "faults.0.start_s: expected a number >= 0"),
        ("faults: [{name: a, kind: drop, topic: t, duration_s: 0.0}]", "faults.0.duration_s: expected a number > 0"),
        ("faults: [{name: A b, kind: drop, topic: t}]", "faults.0.name"),
        ("faults: [{name: a, kind: drop, topic: t}, {name: a, kind: drop, topic: u}]", "each name once"),
        *(
            (f"faults: [{{name: a, kind: {kind}, topic: t, value: {value}}}]", f"faults.0.value: expected {words}")
            for kind, value, words in [
                ("lose", 0.5, "a whole number >= 1 for lose; found 0.5"),
                ("burst", 0.0, "a whole number >= 1 for burst; found 0"),
                ("burst", 2.5, "a whole number >= 1 for burst; found 2.5"),
                ("delay", 0.0, "a number of seconds > 0"),
                ("takeover", 2.0, "1 .pressed. or 0"),
            ]
        ),
        ("faults: [", "expected faults"),
        ("- 1", "expected a mapping"),
    ],
)
def test_wrong_file_is_refused_with_what_would_be_right(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(DaggerError, match=words):
        load_faults(tmp_path / "f.yaml")


def test_fault_that_cannot_happen_to_a_message_says_what_it_lacks() -> None:
    assert lacks(FaultKind.RENAME, message()) == "name"
    assert lacks(FaultKind.SHIFT_STAMP, SimpleNamespace()) == "header or clock"
    for kind in (FaultKind.SHIFT_STAMP, FaultKind.FLAP, FaultKind.DROP, FaultKind.SCALE):
        assert lacks(kind, message()) == ""


def test_shipped_example_is_valid() -> None:
    assert load_faults(Path(__file__).parents[2] / "config" / "faults" / "example.yaml")
    with pytest.raises(DaggerError, match="expected faults"):
        load_faults("/nowhere.yaml")
