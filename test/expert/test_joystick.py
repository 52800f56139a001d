"""The sticks become actions, and the deadman says who drives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import position_contract
from conftest import contract_path
from dagger_ros.contract import Contract, ContractError, InterventionReason, RowLayout, load_contract, parse_contract
from dagger_ros.contract.joystick import joystick_problems
from dagger_ros.expert import JoystickLabeller, load_pad

ROOT = Path(__file__).parents[2]
PEG = load_contract(contract_path("peg"))
MS = 1_000_000
TICK_MS = 50


def with_axes(contract: Contract, *axes: dict[str, Any], **joystick: Any) -> Contract:
    """A contract with another mapping of the sticks."""
    content = contract.model_dump(mode="json", by_alias=True)
    content["expert"] = PEG.model_dump(mode="json", by_alias=True)["expert"]
    content["expert"]["joystick"] |= {"axes": [{"deadzone": 0.0, "centre": 0.0} | a for a in axes]} | joystick
    result = Contract.model_validate(content)
    assert result.expert is not None
    assert not list(joystick_problems("j", result.expert.joystick, result))
    return result


class Person:
    """Holds a pad under a contract, and is asked at each tick."""

    def __init__(self, contract: Contract = PEG, *, shadow: bool = False) -> None:
        assert contract.expert is not None
        mapping = contract.expert.joystick
        self.pad = load_pad(ROOT / "config" / "joysticks" / "xbox.yaml", mapping)
        self.labeller = JoystickLabeller(contract, mapping, self.pad, operator_id="ada", shadow=shadow)
        layout = RowLayout(contract)
        self.row, self.previous = layout.new(2)
        self.previous["executed_action"] = 0.0
        self.axes = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
        self.buttons = [0] * 11
        self.now_ns = 0
        self.out = np.empty(layout.action_size)
        for _ in range(3):
            self.tick()

    def tick(self, *, silent: bool = False, **state: float) -> Any:
        """Sets axes and buttons, sends them unless the pad is silent, and gives what is asked for."""
        self.now_ns += TICK_MS * MS
        for name, value in state.items():
            if name in self.pad.axes:
                axis = self.pad.axes[name]
                self.axes[axis.index] = axis.rest + value * (axis.full - axis.rest)
            else:
                index = self.pad.buttons[name].index
                assert index is not None
                self.buttons[index] = int(value)
        if not silent:
            self.labeller.receive(self.axes, self.buttons, self.now_ns, self.now_ns)
        self.row["monotonic_ns"] = self.now_ns
        return self.labeller.label(self.row, self.previous, self.out)


def test_sticks_are_the_action_within_the_bounds() -> None:
    person = Person()
    intent = person.tick(right_bumper=1, left_stick_y=1.0, left_stick_x=-1.0, right_stick_y=0.03)
    assert person.out.tolist() == [0.24, -0.24, 0.0]
    assert intent.takeover
    assert intent.label
    assert not intent.resume


def test_modifier_makes_the_same_stick_finer_while_it_is_pressed() -> None:
    person = Person()
    person.tick(right_bumper=1, left_stick_y=1.0, left_bumper=1)
    assert person.out.tolist() == [0.06, 0.0, 0.0]
    person.tick(left_bumper=0)
    assert person.out.tolist() == [0.24, 0.0, 0.0]


def test_latching_modifier_switches_with_each_press() -> None:
    axes = [
        {"dimension": d, "axis": a, "control": "absolute", "scale": scale, "unit": "m/s", key: "precise"}
        for d, a in (("vx", "left_stick_y"), ("vy", "left_stick_x"), ("vz", "right_stick_y"))
        for scale, key in ((0.2, "unless"), (0.1, "when"))
    ]
    person = Person(with_axes(PEG, *axes, modifiers={"precise": {"button": "left_bumper", "latching": True}}))
    seen = []
    for pressed in (0, 1, 0, 0, 1, 0):
        person.tick(right_bumper=1, left_stick_y=1.0, left_bumper=pressed)
        seen.append(person.out[0])
    assert seen == [0.2, 0.1, 0.1, 0.1, 0.2, 0.2]


def test_stick_that_another_number_takes_over_lets_the_first_one_rest() -> None:
    axis = {"control": "absolute", "scale": 0.2, "unit": "m/s"}
    axes = [
        {"dimension": "vx", "axis": "left_stick_y", "unless": "precise"} | axis,
        {"dimension": "vz", "axis": "left_stick_y", "when": "precise"} | axis,
        {"dimension": "vy", "axis": "left_stick_x"} | axis,
    ]
    person = Person(with_axes(PEG, *axes))
    person.tick(right_bumper=1, left_stick_y=1.0)
    assert person.out.tolist() == [0.2, 0.0, 0.0]
    person.tick(left_bumper=1)
    assert person.out.tolist() == [0.0, 0.0, 0.2]


def test_release_lets_go_whatever_the_stick_says() -> None:
    person = Person()
    person.tick(right_bumper=1, left_stick_y=1.0)
    intent = person.tick(right_bumper=0)
    assert not intent.takeover
    assert not intent.label


def test_lost_pad_gives_no_action_and_no_wish() -> None:
    person = Person()
    person.tick(right_bumper=1, left_stick_y=1.0)
    person.tick(silent=True)
    assert person.tick(silent=True).takeover  # as old as it may be
    intent = person.tick(silent=True)
    assert np.isnan(person.out).all()
    assert not (intent.takeover)
    assert not (intent.label)
    assert not (intent.resume)


def test_reason_belongs_to_one_correction() -> None:
    person = Person()
    person.tick(left_stick_press=1)
    assert person.tick(right_bumper=1).reason is InterventionReason.CONTROL
    person.tick(right_stick_press=1)
    assert person.tick().reason is InterventionReason.PERCEPTION
    assert person.tick(right_bumper=0).reason is InterventionReason.NONE
    person.tick(left_stick_press=0)
    person.tick(left_stick_press=1)
    person.labeller.start_episode(0)
    assert person.tick().reason is InterventionReason.NONE


def test_shadow_labels_and_never_takes_control() -> None:
    person = Person(shadow=True)
    intent = person.tick(left_stick_y=1.0)
    assert not intent.label
    intent = person.tick(right_bumper=1)
    assert intent.label
    assert not intent.takeover
    assert person.out[0] == 0.24


ARM = position_contract()
UNIT = ARM.action.dimensions_[0].unit
STICKS = ("left_stick_x", "left_stick_y", "right_stick_x", "right_stick_y", "dpad_x", "dpad_y")


def arm(control: str, scale: float, **first: Any) -> Contract:
    """Six joints commanded by position, one axis each."""
    unit = "rad/s" if control == "rate" else "rad"
    axes = [
        {"dimension": d.name, "axis": axis, "control": control, "scale": scale, "unit": unit}
        for d, axis in zip(ARM.action.dimensions_, STICKS, strict=True)
    ]
    axes[0] |= first
    buttons = {"success": None, "failure": {}, "discard": None}  # on this pad the cross moves joints
    return with_axes(ARM, *axes, **buttons)


def test_rate_moves_from_the_last_emitted_action_and_stays_when_the_stick_does() -> None:
    person = Person(arm("rate", 0.5))
    person.previous["executed_action"] = 0.3
    person.tick(right_bumper=1, left_stick_x=1.0)
    assert person.out[0] == pytest.approx(0.3 + 0.5 * 0.05)
    person.previous["executed_action"] = 0.29  # what the limits made of it meanwhile is not followed
    person.tick()
    assert person.out[0] == pytest.approx(0.3 + 2 * 0.5 * 0.05)
    person.tick(left_stick_x=0.0)
    assert person.out[0] == pytest.approx(0.3 + 2 * 0.5 * 0.05)
    assert person.out[1:].tolist() == [0.3] * 5


def test_rate_runs_no_further_ahead_of_what_is_sent_than_three_periods() -> None:
    """Otherwise a robot whose limits hold it back would go on long after the stick is at rest."""
    person = Person(arm("rate", 0.5))
    person.previous["executed_action"] = 0.3
    person.tick(right_bumper=1, left_stick_x=1.0)
    for _ in range(20):
        person.tick()
    assert person.out[0] == pytest.approx(0.3 + 3 * 0.5 * 0.05)
    person.previous["executed_action"] = 0.1  # pushed back
    person.tick(left_stick_x=0.0)
    assert person.out[0] == pytest.approx(0.1 + 3 * 0.5 * 0.05)


def test_rate_of_a_hand_that_does_not_know_what_was_sent_is_no_action() -> None:
    person = Person(arm("rate", 0.5))
    person.tick(right_bumper=1, left_stick_x=1.0)
    assert np.isfinite(person.out).all()
    person.labeller.label(person.row, None, person.out)
    assert np.isnan(person.out).all()


@pytest.mark.parametrize("control", ["rate", "relative"])
def test_label_in_the_shadow_starts_from_where_the_policy_is(control: str) -> None:
    person = Person(arm(control, 0.2), shadow=True)
    step = 0.2 * (0.05 if control == "rate" else 1.0)
    for place in (0.3, 0.5, 0.1):
        person.previous["executed_action"] = place
        person.tick(right_bumper=1, left_stick_x=1.0)
        assert person.out[0] == pytest.approx(place + step)
        assert person.out[1] == place


def test_rate_stops_at_the_bound() -> None:
    person = Person(arm("rate", 0.5))
    upper = ARM.action.dimensions_[0].upper
    person.previous["executed_action"][0] = upper - 0.01
    person.tick(right_bumper=1, left_stick_x=1.0)
    person.tick()
    assert person.out[0] == upper
    person.previous["executed_action"][0] = upper
    person.tick(left_stick_x=-1.0)
    assert person.out[0] == pytest.approx(upper - 0.025)


def test_relative_is_added_to_where_the_deadman_was_pressed() -> None:
    person = Person(arm("relative", 0.2))
    person.previous["executed_action"] = 0.3
    person.tick(right_bumper=1, left_stick_x=1.0)
    person.previous["executed_action"] = 0.5
    person.tick(left_stick_x=0.5)
    assert person.out[0] == pytest.approx(0.4)
    person.tick(right_bumper=0)
    person.tick(right_bumper=1)
    assert person.out[0] == pytest.approx(0.6)  # clutched anew


def test_relative_axis_that_is_switched_off_stays_and_is_clutched_anew() -> None:
    person = Person(arm("relative", 0.2, unless="precise"))
    person.previous["executed_action"] = 0.0
    person.tick(right_bumper=1, left_stick_x=1.0)
    person.tick(left_bumper=1)
    assert person.out[0] == pytest.approx(0.2)
    person.tick(left_stick_x=0.5)
    assert person.out[0] == pytest.approx(0.2)
    person.tick(left_bumper=0)
    assert person.out[0] == pytest.approx(0.3)


def test_pad_that_is_distrusted_gives_no_action_until_it_was_at_rest() -> None:
    person = Person()
    person.tick(right_bumper=1, left_stick_y=1.0)
    person.labeller.reader.distrust("two of them")
    for _ in range(5):
        assert not person.tick().takeover
        assert np.isnan(person.out).all()
    for _ in range(3):
        person.tick(right_bumper=0, left_stick_y=0.0)
    assert person.tick(right_bumper=1).takeover


def test_rate_counts_the_time_and_not_the_calls() -> None:
    person = Person(arm("rate", 0.5))
    person.previous["executed_action"] = 0.0
    person.tick(right_bumper=1)
    person.axes[0] = 1.0
    person.tick()
    for _ in range(3):  # asked again at once
        person.labeller.label(person.row, person.previous, person.out)
    assert person.out[0] == pytest.approx(0.025)
    person.now_ns += 40 * MS
    person.tick()  # late, and no further than by one and a half periods
    assert person.out[0] == pytest.approx(0.025 + 0.5 * 1.5 * 0.05)


def test_position_that_was_never_sent_is_no_start() -> None:
    person = Person(arm("rate", 0.5))
    person.previous["executed_action"] = math.nan
    person.tick(right_bumper=1)
    assert np.isnan(person.out).all()
    person.labeller.label(person.row, None, person.out)


GOOD = (ROOT / "config" / "contracts" / "peg.yaml").read_text()
VX = "dimension: vx, axis: left_stick_y, control: absolute, scale: 0.24, unit: m/s"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (VX, VX.replace("vx", "nose"), "expert.joystick.axes.0 (left_stick_y).dimension: expected one of vx, vy, vz"),
        (VX, VX.replace("m/s", "rad"), "unit: expected m/s for vx with control absolute; found rad"),
        (VX, VX.replace("0.24", "0.25"), "expected a scale that stays within the bounds of vx, -0.24 to 0.24"),
        (VX, VX.replace("0.24", "-0.25"), "at full deflection; found -0.25 to 0.25"),
        (VX, VX.replace("0.24", "0.0"), "scale: expected a number that is not 0"),
        (VX, VX.replace("absolute", "fast"), "expert.joystick.axes.0.control: expected one of 'absolute'"),
        (VX, VX.replace("absolute", "rate"), "unit: expected m/s^2 for vx with control rate"),
        (VX, VX.replace("absolute", "relative").replace("0.24", "0.5"), "at most the range of vx, 0.48 m/s; found 0.5"),
        (
            VX,
            VX.replace("absolute", "rate").replace("m/s", "m/s^2").replace("0.24", "4.5"),
            "at most the fastest change of vx, 4 m/s^2; found 4.5",
        ),
        (VX, VX.replace("absolute", "relative") + ", centre: 0.1", "no such key, or 0, without control absolute"),
        (VX, VX + ", centre: 0.1", "found -0.14 to 0.34"),
        (VX, VX.replace("vx", "vy"), "axes.0 and"),
        ("dimension: vz, axis: right_stick_y", "dimension: vy, axis: right_stick_y", "also for vz; found nothing"),
        ("unless: precise", "unless: gentle", "expected a key of modifiers (precise); found gentle"),
        ("resume: south", "resume: start", "a button of its own (start is already that of arm); found start"),
        ("button: left_bumper", "button: right_bumper", "already that of deadman"),
        ("deadman: right_bumper", "deadmen: right_bumper", "expert.joystick.deadman: expected this key"),
        ("deadzone: 0.06", "deadzone: 1.0", "deadzone: expected a number < 1"),
        ("still_s: 3.0", "still_s: 0.0", "expert.joystick.still_s: expected a number > 0"),
        ("jammed: dpad_right", "bored: dpad_right", "expert.joystick.failure.bored: expected one of not_found, jammed"),
        ("control: left_stick_press", "tired: left_stick_press", "expert.joystick.reasons.tired: expected one of perc"),
    ],
)
def test_wrong_mapping_is_refused_with_what_would_be_right(old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ContractError) as caught:
        parse_contract(GOOD.replace(old, new), source="c")
    if words != "axes.0 and":
        assert words in str(caught.value)
        return
    assert "expert.joystick.axes.2.dimension: expected another dimension than axes.0" in str(caught.value)
    assert "an axis for each number of the action, also for vx" not in str(caught.value)  # its other entry is left


def test_joystick_operator_needs_a_mapping() -> None:
    text = GOOD.replace("source: scripted", "source: joystick")
    assert parse_contract(text, source="c").operator.source == "joystick"
    start, end = text.index("expert:\n"), text.index("simulation:\n")
    with pytest.raises(ContractError, match=r"expert\.joystick: expected what the axes"):
        parse_contract(text[:start] + text[end:], source="c")


def test_noise_of_a_stick_at_rest_moves_nothing_and_a_stick_that_never_rests_is_not_believed() -> None:
    rng = np.random.default_rng(0)
    person = Person()
    for _ in range(50):
        person.tick(right_bumper=1, left_stick_y=float(rng.uniform(-0.05, 0.05)))
        assert (person.out == 0).all()
    broken = Person()
    broken.tick(silent=True)
    broken.tick(silent=True)
    broken.tick(silent=True)
    for i in range(50):
        intent = broken.tick(right_bumper=1, left_stick_y=0.9 * (-1) ** i)
        assert not intent.takeover
        assert np.isnan(broken.out).all()


def test_latched_modifier_is_forgotten_with_a_pad_that_is_not_believed() -> None:
    content = PEG.model_dump(mode="json", by_alias=True)
    content["expert"]["joystick"]["modifiers"]["precise"]["latching"] = True
    person = Person(Contract.model_validate(content))
    person.tick(left_bumper=1)
    assert person.labeller.is_on("precise")
    person.labeller.reader.distrust("two of them")
    person.tick(left_bumper=0)
    assert not person.labeller.is_on("precise")
