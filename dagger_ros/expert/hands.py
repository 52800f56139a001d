"""The hands of a simulated person: wishes become axes and buttons of a pad, and come back as a person's would."""

from __future__ import annotations

import numpy as np

from dagger_ros.contract import Contract, DaggerError, ExpertIntent, Joystick, Row
from dagger_ros.contract.joystick import StickAxis, StickControl
from dagger_ros.expert.joystick import JoystickLabeller
from dagger_ros.expert.labeller import Labeller, Vector
from dagger_ros.expert.pad import Pad

__all__ = ["OperatorAtPad", "PadHands", "unreached"]

# Keeps the draws of the hands apart from other uses of the same seed.
_HANDS_STREAM = 4
# Standard deviation of a thumb on a stick, share of the full deflection, in each tick.
_TREMOR = 0.02


def unreached(mapping: Joystick, contract: Contract) -> list[str]:
    """Numbers of the action that simulated hands cannot move with a mapping."""
    return sorted(set(contract.action.dimensions) - {e.dimension for e in mapping.axes if _is_known(e)})


def _is_known(entry: StickAxis) -> bool:
    """Hands take the coarse entry of each number, for which no modifier is pressed."""
    return entry.when is None and entry.control is StickControl.ABSOLUTE


class PadHands:
    """What the axes and buttons of a pad read when somebody wants an action.

    Args:
        mapping: Of the contract; axes with control `absolute`.
        pad: Which number is which.
        contract: Names the numbers of the action, and says for how long a pad must be at rest to be believed.

    Raises:
        DaggerError: If the mapping gives simulated hands no axis for one of them.
    """

    def __init__(self, mapping: Joystick, pad: Pad, contract: Contract) -> None:
        self._pad, self._buttons = pad, mapping.buttons()
        dimensions, timing = contract.action.dimensions, contract.timing
        # Who taps without a pause leaves a pad that is not believed no time to be seen at rest.
        self._pause_ticks = 2 + round(2 * timing.expert_max_age_s * timing.control_rate_hz)
        missing = unreached(mapping, contract)
        if missing:
            raise DaggerError(
                "expert.joystick.axes: expected for each number of the action an axis with control absolute that needs "
                f"no modifier, since simulated hands know no other; found none for {', '.join(missing)}"
            )
        self._entries = [(dimensions.index(e.dimension), e) for e in mapping.axes if _is_known(e)]
        self.axes = [0.0] * (1 + max(a.index for a in pad.axes.values()))
        self.buttons = [0] * (1 + max(b.index or 0 for b in pad.buttons.values()))
        self._paused_ticks = 0
        self._rng = np.random.default_rng(0)
        self.start_episode(0)

    def start_episode(self, seed: int) -> None:
        """Hands off; the tremor of the next episode comes from `seed`."""
        self._rng = np.random.default_rng([seed, _HANDS_STREAM])
        self._paused_ticks = self._pause_ticks  # ready
        self.let_go()

    def let_go(self) -> None:
        """The next tick begins: every stick at rest, every button released."""
        self._paused_ticks += 1
        for axis in self._pad.axes.values():
            self.axes[axis.index] = axis.rest
        self.buttons[:] = [0] * len(self.buttons)

    def press(self, act: str) -> None:
        """Presses the button of an act, by its key in the contract; one that has none is not pressed."""
        if act not in self._buttons:
            return
        button = self._pad.buttons[self._buttons[act]]
        if button.axis is not None:
            axis = self._pad.axes[button.axis]
            self.axes[axis.index] = axis.rest + float(np.sign(button.beyond)) * (axis.full - axis.rest)
        elif button.index is not None:
            self.buttons[button.index] = 1

    def tap(self, act: str) -> None:
        """Presses as `press`, and then not again for a while: who still wants the same then presses again."""
        if self._paused_ticks > self._pause_ticks:
            self._paused_ticks = 0
            self.press(act)

    def push(self, action: Vector) -> None:
        """Moves the sticks so that they ask for an action, as well as a hand can."""
        for place, entry in self._entries:
            push = float(np.clip((action[place] - entry.centre) / entry.scale, -1.0, 1.0))
            reach = entry.deadzone + (1 - entry.deadzone) * abs(push) ** (1 / entry.exponent) if push else 0.0
            shaky = np.copysign(reach, push) + _TREMOR * self._rng.standard_normal()
            axis = self._pad.axes[entry.axis]
            # As a Joy message carries it.
            self.axes[axis.index] = float(np.float32(axis.rest + np.clip(shaky, -1, 1) * (axis.full - axis.rest)))


class OperatorAtPad:
    """A labeller whose wishes go through a pad: all that a person's go through is gone through.

    Args:
        operator: Who decides.
        joystick: What the contract makes of the pad.
        hands: Who moves it.
    """

    def __init__(self, operator: Labeller, joystick: JoystickLabeller, hands: PadHands) -> None:
        self.operator_id = operator.operator_id
        self._operator, self._joystick, self._hands = operator, joystick, hands
        self._wanted: Vector | None = None
        self._begins = True

    def start_episode(self, seed: int) -> None:
        """All three forget the last episode."""
        self._operator.start_episode(seed)
        self._joystick.start_episode(seed)
        self._hands.start_episode(seed)
        self._begins = True

    def label(self, row: Row, previous: Row | None, out: Vector) -> ExpertIntent:
        """What the operator wants, as the pad says it."""
        if self._wanted is None:
            self._wanted = np.empty_like(out)
        wish = self._operator.label(row, previous, self._wanted)
        now_ns = int(row["monotonic_ns"])
        self._hands.let_go()
        if self._begins:  # the pad lay there, at rest, before the episode began
            self._begins = False
            for before_ns in (now_ns - self._joystick.reader.max_age_ns, now_ns):
                self._joystick.receive(self._hands.axes, self._hands.buttons, 0, before_ns)
        if wish.takeover:
            self._hands.press("deadman")
            self._hands.push(self._wanted)
        if wish.resume:
            self._hands.tap("resume")
        acts = self._joystick.receive(self._hands.axes, self._hands.buttons, 0, now_ns)
        intent = self._joystick.label(row, previous, out)
        intent.resume, intent.reason = "resume" in acts, wish.reason
        return intent
