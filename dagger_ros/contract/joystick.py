"""What a person's hands do: the mapping of a contract from the axes and buttons of a pad to actions and acts."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from dagger_ros.contract.codes import InterventionReason
from dagger_ros.contract.errors import Problem
from dagger_ros.contract.fields import Flag, Name, Number, Part, Positive

if TYPE_CHECKING:
    from dagger_ros.contract.schema import ActionDimension, Contract

__all__ = ["FAILURE_REASONS", "ONE_WAY", "Joystick", "Modifier", "StickAxis", "StickControl", "joystick_problems"]

# What the seven failure labels of the project are called in a contract.
FAILURE_REASONS = {reason.name.lower(): reason for reason in InterventionReason if 1 <= reason <= 7}
# An axis with such a name goes one way from its rest.
ONE_WAY = "_trigger"
_RATE_UNITS = {"m": "m/s", "rad": "rad/s", "m/s": "m/s^2", "rad/s": "rad/s^2"}


class StickControl(str, enum.Enum):
    """What the deflection of a stick means for a number of the action."""

    ABSOLUTE = "absolute"
    """It is the number, from `centre`."""
    RATE = "rate"
    """It is how fast the number changes, from what was last sent."""
    RELATIVE = "relative"
    """It is added to what was last sent when the deadman was pressed (a clutch)."""


class StickAxis(Part):
    """How one axis of the pad moves one number of the action."""

    dimension: Name
    axis: Name  # as the pad's file calls it
    control: StickControl
    scale: Number  # at full deflection; negative: the other way round
    unit: str  # of `scale`: the dimension's, or with `rate` the same per second
    centre: Number = 0.0  # with `absolute`: the number at rest
    deadzone: Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]  # share of the deflection
    exponent: Positive = 1.0  # above 1: fine near the middle
    when: Name | None = None  # counts only while this modifier is on
    unless: Name | None = None  # counts only while this modifier is off


class Modifier(Part):
    """A button that changes what axes mean."""

    button: Name
    latching: Flag  # each press switches it; otherwise it is on while the button is pressed


class Joystick(Part):
    """What the axes and buttons of a pad do. Their names are those of the pad's file (`config/joysticks/`)."""

    deadman: Name  # the expert drives while it is pressed
    # A pad of which nothing moves for so long with the deadman pressed is taken for frozen, or its deadman for stuck.
    still_s: Positive
    axes: Annotated[tuple[StickAxis, ...], Field(min_length=1)]
    modifiers: Mapping[Name, Modifier] = Field(default_factory=dict)
    arm: Name | None = None
    hold: Name | None = None
    resume: Name | None = None
    estop: Name | None = None
    begin: Name | None = None
    success: Name | None = None
    failure: Mapping[Name, Name] = Field(default_factory=dict)  # button by failure label of the task
    discard: Name | None = None
    undo: Name | None = None
    reasons: Mapping[Name, Name] = Field(default_factory=dict)  # button by failure label of the project

    def buttons(self) -> dict[str, str]:
        """Button of each act that has one, by its key in the contract."""
        named = ("deadman", "arm", "hold", "resume", "estop", "begin", "success", "discard", "undo")
        buttons = {name: button for name in named if (button := getattr(self, name)) is not None}
        buttons |= {f"failure.{label}": button for label, button in self.failure.items()}
        buttons |= {f"reasons.{reason}": button for reason, button in self.reasons.items()}
        return buttons | {f"modifiers.{name}.button": m.button for name, m in self.modifiers.items()}


def joystick_problems(key: str, joystick: Joystick, contract: Contract) -> Iterator[Problem]:
    """How the mapping fits the rest of its contract."""
    dimensions = {d.name: d for d in contract.action.dimensions_}
    for i, entry in enumerate(joystick.axes):
        place = f"{key}.axes.{i} ({entry.axis})"
        dimension = dimensions.get(entry.dimension)
        if dimension is None:
            yield Problem(f"{place}.dimension", f"one of {', '.join(dimensions)}", entry.dimension)
        else:
            yield from _axis_problems(place, entry, dimension)
        if contract.action.interface.value == "effort" and entry.control is not StickControl.ABSOLUTE:
            expected = "absolute for an effort interface: at rest nothing was sent that the others could start from"
            yield Problem(f"{place}.control", expected, entry.control.value)
        for name in ("when", "unless"):
            modifier = getattr(entry, name)
            if modifier is not None and modifier not in joystick.modifiers:
                valid = ", ".join(joystick.modifiers) or "no modifier is defined"
                yield Problem(f"{place}.{name}", f"a key of modifiers ({valid})", modifier)
    for name in dimensions:
        if all(entry.dimension != name for entry in joystick.axes):
            yield Problem(f"{key}.axes", f"an axis for each number of the action, also for {name}", "nothing")
    yield from _clash_problems(key, joystick.axes)
    for act, button in joystick.buttons().items():
        first = next(a for a, b in joystick.buttons().items() if b == button)
        if first != act:
            yield Problem(f"{key}.{act}", f"a button of its own ({button} is already that of {first})", button)
    for label in joystick.failure:
        if label not in contract.task.failure_labels:
            yield Problem(f"{key}.failure.{label}", f"one of {', '.join(contract.task.failure_labels)}", label)
    for reason in joystick.reasons:
        if reason not in FAILURE_REASONS:
            yield Problem(f"{key}.reasons.{reason}", f"one of {', '.join(FAILURE_REASONS)}", reason)


def _axis_problems(place: str, entry: StickAxis, dimension: ActionDimension) -> Iterator[Problem]:
    rate = entry.control is StickControl.RATE
    unit = _RATE_UNITS.get(dimension.unit, f"{dimension.unit}/s") if rate else dimension.unit
    if entry.unit != unit:
        yield Problem(f"{place}.unit", f"{unit} for {dimension.name} with control {entry.control.value}", entry.unit)
    if entry.scale == 0:
        yield Problem(f"{place}.scale", "a number that is not 0", "0")
    if entry.control is StickControl.ABSOLUTE:
        ends = [entry.centre, entry.centre + entry.scale]
        if not entry.axis.endswith(ONE_WAY):
            ends.append(entry.centre - entry.scale)
        if min(ends) < dimension.lower or max(ends) > dimension.upper:
            expected = f"a scale that stays within the bounds of {dimension.name}, "
            expected += f"{dimension.lower:g} to {dimension.upper:g}, at full deflection"
            yield Problem(f"{place}.scale", expected, f"{min(ends):g} to {max(ends):g}")
        return
    if entry.centre != 0:
        yield Problem(f"{place}.centre", "no such key, or 0, without control absolute", f"{entry.centre:g}")
    limits = dimension.limits()
    fastest = limits.get("velocity_limit") or limits.get("acceleration_limit") or limits.get("rate_limit")
    largest = fastest if rate else dimension.upper - dimension.lower
    if largest is not None and abs(entry.scale) > largest:
        what = "the fastest change" if rate else "the range"
        yield Problem(f"{place}.scale", f"at most {what} of {dimension.name}, {largest:g} {unit}", f"{entry.scale:g}")


def _clash_problems(key: str, axes: Sequence[StickAxis]) -> Iterator[Problem]:
    """Two entries may share an axis or a number only if a modifier keeps them apart."""
    for i, one in enumerate(axes):
        for j, other in enumerate(axes[:i]):
            apart = (one.when is not None and one.when == other.unless) or (
                one.unless is not None and one.unless == other.when
            )
            for name in ("axis", "dimension"):
                if getattr(one, name) == getattr(other, name) and not apart:
                    expected = f"another {name} than axes.{j}, or 'when' here and 'unless' there with one modifier"
                    yield Problem(f"{key}.axes.{i}.{name}", expected, getattr(one, name))
            if one.dimension == other.dimension and (one.control, one.centre) != (other.control, other.centre):
                expected = f"control and centre as in axes.{j}, which moves {one.dimension} too"
                yield Problem(f"{key}.axes.{i}.control", expected, f"{one.control.value}, {one.centre:g}")
