"""A pad is believed only while a hand can be behind it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dagger_ros.contract import ContractError, DaggerError, Joystick, load_contract
from dagger_ros.expert import Pad, PadReader, load_pad
from dagger_ros.expert.pad import deflection

ROOT = Path(__file__).parents[2]
PADS = sorted((ROOT / "config" / "joysticks").glob("*.yaml"))
MS = 1_000_000
AGE_NS, STILL_NS = 100 * MS, 3000 * MS


def mapping(task: str = "peg") -> Joystick:
    section = load_contract(ROOT / "config" / "contracts" / f"{task}.yaml").expert
    assert section is not None
    return section.joystick


class Hand:
    """Holds a pad of 8 axes and 11 buttons, whose triggers rest at 1, and sends its state every 20 ms."""

    def __init__(self, task: str = "peg", pad: str = "xbox") -> None:
        self.pad = load_pad(ROOT / "config" / "joysticks" / f"{pad}.yaml", mapping(task))
        self.reader = PadReader(self.pad, mapping(task), AGE_NS)
        self.axes = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
        self.buttons = [0] * 13
        self.now_ns = 0

    def send(self, *, after_ms: int = 20, **state: float) -> list[str]:
        """Sets axes and buttons by name, and sends the pad's state."""
        for name, value in state.items():
            if name in self.pad.axes:
                self.axes[self.pad.axes[name].index] = value
            else:
                index = self.pad.buttons[name].index
                assert index is not None
                self.buttons[index] = int(value)
        return self.send_raw(self.axes, self.buttons, after_ms=after_ms)

    def send_raw(self, axes: Any, buttons: Any, *, after_ms: int = 20, stamp_ns: int | None = None) -> list[str]:
        self.now_ns += after_ms * MS
        return self.reader.receive(axes, buttons, self.now_ns if stamp_ns is None else stamp_ns, self.now_ns)

    def rest(self, **state: float) -> None:
        """Sets axes and buttons, and holds still for as long as a pad at rest is looked at."""
        for _ in range(1 + AGE_NS // (20 * MS)):
            assert self.send(**state) == []

    @property
    def problem(self) -> str:
        return self.reader.problem(self.now_ns)

    @property
    def drives(self) -> bool:
        return not self.problem and "deadman" in self.reader.pressed


def ready(**options: Any) -> Hand:
    hand = Hand(**options)
    hand.rest()
    assert hand.problem == ""
    return hand


def test_pad_is_believed_when_it_was_at_rest_for_as_long_as_it_may_be_silent() -> None:
    hand = Hand()
    for _ in range(AGE_NS // (20 * MS)):
        hand.send()
        assert hand.problem
    hand.send()
    assert hand.problem == ""


def test_pad_that_was_never_heard_says_so() -> None:
    assert "never heard" in Hand().problem


def test_deadman_that_is_pressed_at_the_start_does_not_count_until_it_was_released() -> None:
    hand = Hand()
    assert hand.send(right_bumper=1) == []
    assert not hand.drives
    assert "waits for sticks at rest and buttons released, after a start" in hand.problem
    hand.rest(right_bumper=0)
    assert hand.problem == ""
    assert hand.send(right_bumper=1) == ["deadman"]
    assert hand.drives


def test_stick_that_is_deflected_at_the_start_must_come_to_rest() -> None:
    hand = Hand()
    hand.send(left_stick_y=0.9)
    assert "waits for sticks at rest" in hand.problem
    hand.rest(left_stick_y=0.15)  # worn: not quite the middle
    assert hand.problem == ""


@pytest.mark.parametrize("pad", ["xbox", "playstation"])
def test_trigger_reads_rest_before_its_first_touch_and_at_one(pad: str) -> None:
    hand = Hand("lane", pad)
    hand.send(right_trigger=0.0)  # SDL's value before the first event
    assert hand.reader.axes["right_trigger"] == 0.0
    hand.send(right_trigger=0.5)
    assert hand.reader.axes["right_trigger"] == 0.25
    hand.send(right_trigger=0.0)  # now half pressed
    assert hand.reader.axes["right_trigger"] == 0.5
    hand.send(right_trigger=-1.0)
    assert hand.reader.axes["right_trigger"] == 1.0
    hand.send(right_trigger=1.0)
    assert hand.reader.axes["right_trigger"] == 0.0


def test_silent_pad_is_gone_after_its_age_and_not_before() -> None:
    hand = ready()
    hand.send(right_bumper=1)
    hand.now_ns += AGE_NS
    assert hand.drives
    hand.now_ns += 1
    assert not hand.drives
    assert "no message of the pad for 0.1 s: unplugged" in hand.problem


def test_pad_that_comes_back_drives_only_after_a_new_press() -> None:
    hand = ready()
    hand.send(right_bumper=1, left_stick_y=1.0)
    assert hand.send(after_ms=500) == []  # repeats what it said before
    assert "after a silence" in hand.problem
    hand.rest(right_bumper=0)
    assert hand.problem
    hand.rest(left_stick_y=0.0)
    assert not hand.problem
    assert not hand.drives
    assert hand.send(right_bumper=1) == ["deadman"]


def test_message_that_the_pad_did_not_make_anew_keeps_nothing_alive() -> None:
    hand = ready()
    stamp_ns = hand.now_ns
    for _ in range(6):
        hand.send_raw(hand.axes, hand.buttons, stamp_ns=stamp_ns)
    assert "no message of the pad" in hand.problem


def test_console_without_stamps_is_believed() -> None:
    hand = Hand()
    for _ in range(6):
        hand.send_raw(hand.axes, hand.buttons, stamp_ns=0)
    assert hand.problem == ""


def test_burst_of_old_messages_is_no_rest() -> None:
    hand = ready()
    hand.send(right_bumper=1)
    hand.now_ns += 5000 * MS  # the network stood still; what was sent meanwhile comes all at once
    for pressed in (1, 0, 0, 0, 0, 0, 0, 1):
        assert hand.send(after_ms=0, right_bumper=pressed) == []
    assert not hand.drives


def test_clock_that_goes_back_waits_for_rest_and_goes_on() -> None:
    hand = ready()
    hand.send(right_bumper=1)
    assert hand.send_raw(hand.axes, hand.buttons, stamp_ns=5) == []
    assert "after a clock that went back" in hand.problem
    hand.buttons[5] = 0
    for stamp_ns in range(6, 13):
        hand.send_raw(hand.axes, hand.buttons, stamp_ns=stamp_ns)
    assert hand.problem == ""


def test_same_stamp_with_another_content_counts() -> None:
    hand = ready()
    hand.send(right_bumper=1)
    stamp_ns = hand.now_ns
    hand.buttons[5] = 0
    hand.send_raw(hand.axes, hand.buttons, stamp_ns=stamp_ns)
    assert hand.reader.pressed == frozenset()


def test_pad_that_stands_still_with_the_deadman_pressed_is_frozen_or_stuck() -> None:
    hand = ready()
    hand.send(right_bumper=1, left_stick_y=1.0)
    for _ in range(STILL_NS // (20 * MS)):
        hand.send()
    assert hand.drives
    hand.send()
    assert not hand.drives
    assert "after nothing moved while the deadman was pressed" in hand.problem
    hand.send(left_stick_y=0.5)
    assert not hand.drives  # that it moves again is no new decision
    hand.rest(right_bumper=0, left_stick_y=0.0)
    hand.send(right_bumper=1)
    assert hand.drives


def test_motion_of_what_the_mapping_does_not_use_is_no_sign_of_a_hand() -> None:
    hand = ready()
    hand.send(right_bumper=1)
    for i in range(1 + STILL_NS // (20 * MS)):
        hand.send_raw([*hand.axes, math.nan, i], [*hand.buttons, i])
    assert not hand.drives


def test_pad_that_stands_still_while_nobody_drives_is_only_at_rest() -> None:
    hand = ready()
    for _ in range(400):
        hand.send()
    assert hand.problem == ""


@pytest.mark.parametrize(
    ("axes", "buttons", "words"),
    [
        ([0.0] * 3, [0] * 13, "expected at least 8 axes in a message of the pad, got 3"),
        ([0.0] * 8, [0] * 4, "expected at least 11 buttons in a message of the pad, got 4"),
        ([math.nan] * 8, [0] * 13, "expected finite numbers"),
        ([0.0, math.inf] + [0.0] * 6, [0] * 13, "expected finite numbers"),
        ([], [], "another pad?"),
    ],
)
def test_wrong_message_stops_and_the_next_good_one_waits_for_rest(axes: Any, buttons: Any, words: str) -> None:
    hand = ready()
    hand.send(right_bumper=1)
    assert hand.send_raw(axes, buttons) == []
    assert not hand.drives
    assert words in hand.problem
    assert hand.send() == []
    assert "after a wrong message" in hand.problem
    hand.rest(right_bumper=0)
    assert hand.problem == ""


def test_act_begins_with_the_press_and_once() -> None:
    hand = ready()
    assert hand.send(start=1) == ["arm"]
    assert hand.send() == []
    hand.send(start=0)
    assert hand.send(dpad_x=1.0) == ["failure.not_found"]
    assert hand.send(dpad_x=-1.0) == ["failure.jammed"]
    hand.send(dpad_x=0.0)
    assert hand.send(south=1, left_stick_press=1) == ["resume", "reasons.control"]


def test_only_what_stops_counts_while_the_pad_is_not_believed() -> None:
    hand = Hand()
    assert hand.send(left_stick_y=1.0, start=1, east=1) == ["estop"]
    assert hand.send(west=1) == ["hold"]
    assert hand.reader.estop_is_pressed(hand.now_ns)
    assert hand.send() == []
    hand.send(east=0, west=0)
    assert not hand.reader.estop_is_pressed(hand.now_ns)
    for axes, stamp_ns in (([math.nan] * 8, None), ([], None), (hand.axes, 1)):  # wrong, and of a clock that went back
        assert hand.send_raw(axes, [0, 1, 1] + [0] * 10, stamp_ns=stamp_ns) == ["hold", "estop"]
        assert hand.reader.estop_is_pressed(hand.now_ns)
        assert hand.send_raw(axes, [0] * 13) == []
    assert hand.send_raw([], [0]) == []


def test_emergency_stop_of_a_pad_that_fell_silent_is_not_pressed_for_ever() -> None:
    hand = Hand()
    hand.send_raw([math.nan] * 8, [0, 1] + [0] * 11)
    assert hand.reader.estop_is_pressed(hand.now_ns + AGE_NS)
    assert not hand.reader.estop_is_pressed(hand.now_ns + AGE_NS + 1)


@pytest.mark.parametrize(("delay_ns", "believed"), [(AGE_NS, True), (AGE_NS + 1, False), (-AGE_NS - 1, False)])
def test_message_that_was_long_on_its_way_or_is_of_another_clock_waits_for_rest(delay_ns: int, believed: bool) -> None:
    hand = ready()
    hand.now_ns += 20 * MS
    hand.buttons[5] = 1
    acts = hand.reader.receive(hand.axes, hand.buttons, hand.now_ns, hand.now_ns, delay_ns=delay_ns)
    assert (acts == ["deadman"]) == believed
    assert hand.drives == believed
    assert believed or "s on its way: a slow link, or another clock?" in hand.problem


def test_deflection_is_zero_within_the_deadzone_and_one_at_the_end() -> None:
    for sign in (-1, 1):
        assert deflection(sign * 0.1, 0.1, 2.0) == 0
        assert deflection(sign * 0.55, 0.1, 2.0) == pytest.approx(sign * 0.25)
        assert deflection(sign * 1.0, 0.1, 2.0) == sign
        assert deflection(sign * 0.3, 0.0, 1.0) == pytest.approx(sign * 0.3)


@pytest.mark.parametrize("path", PADS, ids=lambda p: p.stem)
@pytest.mark.parametrize("task", ["peg", "lane"])
def test_shipped_mapping_fits_each_shipped_pad(path: Path, task: str) -> None:
    assert isinstance(load_pad(path, mapping(task)), Pad)
    assert len(PADS) == 2


AXES = "axes: {left_stick_x: {index: 0, rest: 0.0, full: 1.0}}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("axes: [", "expected the description of a pad"),
        ("a: 2001-99-99", "expected the description of a pad"),
        ("a: 1\na: 2", "key 'a' stands twice"),
        ("[" * 20_000, "expected the description of a pad"),
        ("- 1", "expected a mapping"),
        ("description: d\naxes: {}\nbuttons: {a: {index: 0}}", "axes: "),
        (f"description: d\n{AXES}buttons: {{a: {{index: -1}}}}", "buttons.a.index: expected a number >= 0"),
        (f"description: d\n{AXES}buttons: {{a: {{}}}}", "buttons.a: expected either index or axis; found neither"),
        (f"description: d\n{AXES}buttons: {{a: {{index: 1, axis: left_stick_x}}}}", "found both"),
        (
            f"description: d\n{AXES}buttons: {{a: {{axis: nose}}}}",
            "buttons.a.axis: expected one of left_stick_x; found nose",
        ),
        (f"description: d\n{AXES}buttons: {{a: {{axis: left_stick_x, beyond: 1.0}}}}", "buttons.a.beyond"),
        ("description: d\naxes: {t: {index: 0, rest: 1.0, full: -1.0}}\nbuttons: {a: {index: 0}}", "ends in _trigger"),
        (
            "description: d\naxes: {t: {index: 0, rest: 0.0, full: 0.0}}\nbuttons: {a: {index: 0}}",
            "rest and a full that",
        ),
    ],
)
def test_wrong_pad_file_is_refused_with_what_would_be_right(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "pad.yaml").write_text(text)
    with pytest.raises(DaggerError, match=words):
        load_pad(tmp_path / "pad.yaml", mapping())


def test_one_control_with_two_meanings_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "config" / "joysticks" / "xbox.yaml").read_text()
    path = tmp_path / "pad.yaml"
    path.write_text(text.replace("south: {index: 0}", "south: {index: 1}"))
    with pytest.raises(ContractError, match=r"expert.joystick.estop: expected a button of its own .* that of resume"):
        load_pad(path, mapping())
    path.write_text(text.replace("east: {index: 1}", "east: {axis: left_stick_y, beyond: 0.9}"))
    with pytest.raises(ContractError, match="estop: expected a button that is not left_stick_y"):
        load_pad(path, mapping())


def test_pad_without_an_axis_or_button_of_the_mapping_is_refused_with_all_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"description: small\n{AXES}buttons: {{right_bumper: {{index: 0}}}}")
    with pytest.raises(ContractError) as caught:
        load_pad(path, mapping())
    text = str(caught.value)
    assert "expert.joystick.axes.0.axis: expected one of left_stick_x; found left_stick_y" in text
    assert "expert.joystick.estop: expected one of right_bumper; found east" in text
    with pytest.raises(DaggerError, match="expected the description of a pad"):
        load_pad(tmp_path / "none.yaml", mapping())
