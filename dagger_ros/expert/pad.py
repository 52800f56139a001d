"""A pad as the `joy` package reports it: which number is which stick or button, and whether it can be believed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from dagger_ros.contract import ContractError, DaggerError, Joystick, Problem
from dagger_ros.contract.fields import Name, Number, Part, Text
from dagger_ros.contract.joystick import ONE_WAY
from dagger_ros.contract.load import load_yaml, problems_of

__all__ = ["Pad", "PadReader", "deflection", "load_pad", "plain_pad"]

Index = Annotated[int, Field(strict=True, ge=0, le=255)]
# Worn sticks do not come back to the middle; this much of the deflection is still at rest for a reconnected pad.
_REST = 0.2
# What always counts.
_STOPS = frozenset({"estop", "hold"})


class PadAxis(Part):
    """One axis: its place in `Joy.axes`, and what it reads untouched and at full positive deflection."""

    index: Index
    rest: Number
    full: Number

    def deflection(self, value: float) -> float:
        """From what it reads, -1 to 1, 0 at rest."""
        return min(1.0, max(-1.0, (value - self.rest) / (self.full - self.rest)))


class PadButton(Part):
    """A place in `Joy.buttons`, or an axis that counts as pressed beyond a share of its deflection."""

    index: Index | None = None
    axis: Name | None = None
    beyond: Number = 0.5

    @property
    def place(self) -> object:
        """What is pressed, whatever it is called; None: nothing."""
        if self.axis is not None:
            return (self.axis, self.beyond > 0)
        return self.index

    def is_down(self, buttons: Sequence[int], deflections: Mapping[str, float]) -> bool:
        """Whether it is pressed, given `Joy.buttons` and the deflection of each axis."""
        if self.axis is None:
            return self.index is not None and buttons[self.index] != 0
        value = deflections[self.axis]
        return value > self.beyond if self.beyond > 0 else value < self.beyond


class Pad(Part):
    """A make of pad."""

    description: Text
    axes: Annotated[dict[Name, PadAxis], Field(min_length=1)]
    buttons: Annotated[dict[Name, PadButton], Field(min_length=1)]

    def problems(self, mapping: Joystick) -> Iterator[Problem]:
        """What a mapping asks for and this pad does not have."""
        for i, entry in enumerate(mapping.axes):
            if entry.axis not in self.axes:
                yield Problem(f"expert.joystick.axes.{i}.axis", f"one of {', '.join(self.axes)}", entry.axis)
        moved = {entry.axis for entry in mapping.axes}
        places: dict[object, str] = {}
        for act, name in mapping.buttons().items():
            button = self.buttons.get(name)
            if button is None:
                yield Problem(f"expert.joystick.{act}", f"one of {', '.join(self.buttons)}", name)
                continue
            if button.axis in moved:
                yield Problem(
                    f"expert.joystick.{act}", f"a button that is not {button.axis}, which moves the robot", name
                )
            first = places.setdefault(button.place, act)
            if first != act:
                yield Problem(
                    f"expert.joystick.{act}", f"a button of its own (on this pad it is that of {first})", name
                )


def load_pad(path: str | Path, mapping: Joystick) -> Pad:
    """Reads the description of a pad.

    Args:
        path: A YAML file as those in `config/joysticks/`.
        mapping: What it is to be used for.

    Raises:
        DaggerError: If it cannot be read.
        ContractError: With everything that is wrong with it, or that the mapping needs and it does not have.
    """
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DaggerError(f"{path}: expected the description of a pad (YAML) here; {error}") from error
    try:
        pad = Pad.model_validate(content)
    except ValidationError as error:
        raise ContractError(str(path), problems_of(error)) from error
    problems = [*_inner_problems(pad), *pad.problems(mapping)]
    if problems:
        raise ContractError(str(path), problems)
    return pad


def plain_pad(mapping: Joystick) -> Pad:
    """A pad that has just what a mapping needs, as a simulated hand holds it."""
    axes = dict.fromkeys(entry.axis for entry in mapping.axes)
    buttons = dict.fromkeys(mapping.buttons().values())
    return Pad(
        description="simulated pad",
        axes={
            name: PadAxis(index=i, rest=1.0, full=-1.0)
            if name.endswith(ONE_WAY)
            else PadAxis(index=i, rest=0.0, full=1.0)
            for i, name in enumerate(axes)
        },
        buttons={name: PadButton(index=i) for i, name in enumerate(buttons)},
    )


def _inner_problems(pad: Pad) -> Iterator[Problem]:
    for name, axis in pad.axes.items():
        if axis.rest == axis.full:
            yield Problem(f"axes.{name}", "a rest and a full that differ", f"{axis.rest:g} twice")
        if (axis.rest != 0) != name.endswith(ONE_WAY):
            yield Problem(f"axes.{name}", f"a name that ends in {ONE_WAY} exactly where rest is not 0", name)
    for name, button in pad.buttons.items():
        if (button.index is None) == (button.axis is None):
            yield Problem(f"buttons.{name}", "either index or axis", "both" if button.axis else "neither")
        if button.axis is not None and button.axis not in pad.axes:
            yield Problem(f"buttons.{name}.axis", f"one of {', '.join(pad.axes)}", button.axis)
        if not 0 < abs(button.beyond) < 1:
            yield Problem(f"buttons.{name}.beyond", "a number between 0 and 1, or -1 and 0", f"{button.beyond:g}")


class PadReader:
    """The newest state of a pad, and whether a hand can be behind it.

    After a start, a silence, a wrong message or a freeze nothing counts until every mapped axis was at rest, and every
    button of the mapping released, for as long as the pad may be silent: one that comes back may repeat what it said
    before, all at once, and a deadman that was pressed all the while is no decision. Only what stops always counts: the
    emergency stop and hold.

    Args:
        pad: Says which number is which.
        mapping: Names the axes and buttons that matter.
        max_age_ns: A pad that was not heard for longer is gone.

    Attributes:
        max_age_ns: As given.
        axes: Deflection of each mapped axis, -1 to 1, from 0 at rest.
        pressed: Acts of the mapping, by key in the contract, whose button is pressed.
    """

    def __init__(self, pad: Pad, mapping: Joystick, max_age_ns: int) -> None:
        self.max_age_ns, self._still_ns = max_age_ns, round(mapping.still_s * 1e9)
        buttons = mapping.buttons()
        self._acts = {act: pad.buttons[button] for act, button in buttons.items()}
        moved = {entry.axis for entry in mapping.axes}
        by_button = {b.axis for b in self._acts.values() if b.axis is not None}
        self._pad_axes = {name: pad.axes[name] for name in sorted(moved | by_button)}
        self._moved = sorted(moved)
        self._needed_axes = sorted({a.index for a in self._pad_axes.values()})
        self._needed_buttons = sorted({b.index for b in self._acts.values() if b.index is not None})
        self.axes: dict[str, float] = dict.fromkeys(self._pad_axes, 0.0)
        self.pressed: frozenset[str] = frozenset()
        self._stops: set[str] = set()  # those that are pressed, also in a message that is not believed otherwise
        self._message_ns = 0
        self._touched: set[str] = set()
        self._heard_ns: int | None = None
        self._stamp_ns = self._changed_ns = 0
        self._values: tuple[list[float], list[int]] = ([], [])
        self._waits_after = "a start"
        self._rest_ns: int | None = None
        self._fault = ""

    def receive(
        self, axes: Sequence[float], buttons: Sequence[int], stamp_ns: int, now_ns: int, *, delay_ns: int = 0
    ) -> list[str]:
        """Takes a message.

        Args:
            axes: `Joy.axes`.
            buttons: `Joy.buttons`.
            stamp_ns: Of its header; the same message with the same stamp again was not made by the pad. 0: no stamp.
            now_ns: Monotonic time of receipt.
            delay_ns: How old its stamp was then, on the robot's clock; 0: no stamp.

        Returns:
            Acts that begin with this message, by key in the contract.
        """
        stopped, self._stops = self._stops, {act for act in _STOPS if self._is_down(act, axes, buttons)}
        begun, self._message_ns = self._stops - stopped, now_ns
        self._fault = self._fault_of(axes, buttons)
        if self._fault:
            self.distrust("a wrong message")
            return self._in_order(begun)
        values = [axes[i] for i in self._needed_axes], [buttons[i] for i in self._needed_buttons]
        if stamp_ns and stamp_ns == self._stamp_ns and values == self._values:
            return self._in_order(begun)
        if stamp_ns < self._stamp_ns:
            self.distrust("a clock that went back")
        if abs(delay_ns) > self.max_age_ns:
            self.distrust(f"a message that was {delay_ns * 1e-9:.2f} s on its way: a slow link, or another clock?")
        if self._heard_ns is not None and now_ns - self._heard_ns > self.max_age_ns:
            self.distrust("a silence")
            self._touched.clear()
        if values != self._values:
            self._values, self._changed_ns = values, now_ns
        self._stamp_ns, self._heard_ns = stamp_ns, now_ns
        self._read_axes(axes)
        before = self.pressed
        self.pressed = frozenset(act for act, button in self._acts.items() if button.is_down(buttons, self.axes))
        if "deadman" in self.pressed and now_ns - self._changed_ns > self._still_ns:
            self.distrust("nothing moved while the deadman was pressed")
        self._wait_for_rest(now_ns)
        begun |= self.pressed - before - _STOPS if not self._waits_after else set()
        return self._in_order(begun)

    @property
    def at_rest(self) -> bool:
        """No button of the mapping is pressed, and no axis that moves the robot is pushed."""
        return not self.pressed and all(abs(self.axes[name]) <= _REST for name in self._moved)

    def is_heard(self, now_ns: int) -> bool:
        """Whether the pad said something within the age that it may be silent."""
        return self._heard_ns is not None and now_ns - self._heard_ns <= self.max_age_ns

    def estop_is_pressed(self, now_ns: int) -> bool:
        """Whether the newest message, however wrong the rest of it is, says so, and is not older than it may be."""
        return "estop" in self._stops and now_ns - self._message_ns <= self.max_age_ns

    def problem(self, now_ns: int) -> str:
        """Why the pad does not count now, in words; empty: it counts."""
        if self._fault:
            return self._fault
        if self._heard_ns is None:
            return "the pad was never heard: is joy_node up?"
        if not self.is_heard(now_ns):
            return f"no message of the pad for {self.max_age_ns * 1e-9:g} s: unplugged, out of range, battery?"
        if self._waits_after:
            return f"waits for sticks at rest and buttons released, after {self._waits_after}"
        return ""

    def distrust(self, after: str) -> None:
        """From now on nothing counts until the pad was at rest, as after a start.

        Args:
            after: What happened, for people.
        """
        self._waits_after, self._rest_ns = after, None

    def _wait_for_rest(self, now_ns: int) -> None:
        """A pad is at rest for as long as it may be silent: a burst of old messages is not."""
        if not self.at_rest:
            self._rest_ns = None
        elif self._rest_ns is None:
            self._rest_ns = now_ns
        elif now_ns - self._rest_ns >= self.max_age_ns:
            self._waits_after = ""

    def _in_order(self, acts: Collection[str]) -> list[str]:
        """As the contract lists them."""
        return [act for act in self._acts if act in acts]

    def _is_down(self, act: str, axes: Sequence[float], buttons: Sequence[int]) -> bool:
        """In any message in which its button can be found, however wrong the rest is."""
        button = self._acts.get(act)
        if button is None:
            return False
        if button.axis is None:
            return button.index is not None and button.index < len(buttons) and buttons[button.index] != 0
        axis = self._pad_axes[button.axis]
        return axis.index < len(axes) and button.is_down(buttons, {button.axis: axis.deflection(axes[axis.index])})

    def _fault_of(self, axes: Sequence[float], buttons: Sequence[int]) -> str:
        for what, got, needed in (("axes", axes, self._needed_axes), ("buttons", buttons, self._needed_buttons)):
            least = 1 + max(needed, default=-1)
            if len(got) < least:
                return f"expected at least {least} {what} in a message of the pad, got {len(got)}: another pad?"
        if not all(math.isfinite(axes[i]) for i in self._needed_axes):
            return "expected finite numbers from the pad, got others"
        return ""

    def _read_axes(self, axes: Sequence[float]) -> None:
        for name, axis in self._pad_axes.items():
            value = axes[axis.index]
            # A trigger reads 0, half pressed, until it is touched for the first time.
            if value != 0:
                self._touched.add(name)
            if name not in self._touched:
                value = axis.rest
            self.axes[name] = axis.deflection(value)


def deflection(value: float, deadzone: float, exponent: float) -> float:
    """What a stick says beyond its deadzone, -1 to 1, continuous at the edge of the deadzone."""
    share = max(0.0, (abs(value) - deadzone) / (1 - deadzone))
    return math.copysign(share**exponent, value) if share else 0.0
