"""A person at a pad: the sticks become actions, the buttons become acts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dagger_ros.contract import Contract, ExpertIntent, InterventionReason, Joystick, Row
from dagger_ros.contract.joystick import FAILURE_REASONS, StickControl
from dagger_ros.expert.labeller import Vector
from dagger_ros.expert.pad import Pad, PadReader, deflection

__all__ = ["JoystickLabeller"]

_REASON = "reasons."
# Of a control period: a stick that moves a number moves it no further after a late tick, as the supervisor has it.
_LONGEST_STEP = 1.5
# So long after a stick is at rest a number that it moves may still follow: what was sent is heard a little later.
_LEAD_PERIODS = 3


class JoystickLabeller:
    """The expert at a joystick, as `Labeller`.

    While the deadman is pressed the sticks are the expert's action, and a label. What the pad says counts only while
    it is alive and a hand can be behind it (`PadReader`); otherwise the action is NaN, and nobody takes over.

    Args:
        contract: Of the task.
        mapping: Of the contract.
        pad: Which number of a message is which stick or button.
        operator_id: Who it is.
        shadow: The deadman does not take control: what the sticks say while it is pressed is the label of what the
            policy (or the rule) does.
    """

    def __init__(self, contract: Contract, mapping: Joystick, pad: Pad, *, operator_id: str, shadow: bool) -> None:
        self.operator_id = operator_id
        self.reader = PadReader(pad, mapping, round(contract.timing.expert_max_age_s * 1e9))
        self._mapping, self._shadow = mapping, shadow
        self._period_s = contract.timing.period_ns * 1e-9
        dimensions = contract.action.dimensions_
        self._place = {d.name: i for i, d in enumerate(dimensions)}
        self._lower = np.array([d.lower for d in dimensions])
        self._upper = np.array([d.upper for d in dimensions])
        self._intent = ExpertIntent()
        self._latched: set[str] = set()
        self._label_ns = 0
        self._pressed = False
        self._reason = InterventionReason.NONE
        # Numbers that go back to their centre with the stick.
        self._springs = np.zeros(len(dimensions), bool)
        self._centre = np.zeros(len(dimensions))
        for entry in mapping.axes:
            if entry.control is StickControl.ABSOLUTE:
                self._springs[self._place[entry.dimension]] = True
                self._centre[self._place[entry.dimension]] = entry.centre
        # What relative axes start from, and what the sticks made of the last emitted action since the deadman was
        # pressed.
        self._base, self._target, self._sent = np.full((3, len(dimensions)), np.nan)
        self._active: set[int] = set()

    def start_episode(self, seed: int) -> None:
        """A reason that was given before was given for something else."""
        self._reason = InterventionReason.NONE

    def receive(
        self, axes: Sequence[float], buttons: Sequence[int], stamp_ns: int, now_ns: int, *, delay_ns: int = 0
    ) -> list[str]:
        """Takes a message of the pad; see `PadReader.receive`."""
        acts = self.reader.receive(axes, buttons, stamp_ns, now_ns, delay_ns=delay_ns)
        for act in acts:
            if act.startswith(_REASON):
                self._reason = FAILURE_REASONS[act.removeprefix(_REASON)]
            elif act.startswith("modifiers."):
                self._latched ^= {act.split(".")[1]}
        return acts

    def label(self, row: Row, previous: Row | None, out: Vector) -> ExpertIntent:
        """What the hands say at this tick; `row` needs no more than its monotonic time."""
        intent, before = self._intent, self._pressed
        now_ns = int(row["monotonic_ns"])
        step_s = min(max(now_ns - self._label_ns, 0) * 1e-9, _LONGEST_STEP * self._period_s)
        self._label_ns = now_ns
        sound = not self.reader.problem(now_ns)
        if not sound:
            self._latched.clear()
        self._pressed = pressed = sound and "deadman" in self.reader.pressed
        self._sent[:] = np.nan if previous is None else previous["executed_action"]
        # In the shadow somebody else drives: what the sticks ask for starts from where that is.
        if not pressed or not before or self._shadow:
            self._target[:] = self._sent
            self._active.clear()
        if before and not pressed:
            self._reason = InterventionReason.NONE
        self._act(out, step_s)
        if not sound:
            out[:] = np.nan
        intent.label, intent.takeover = pressed, pressed and not self._shadow
        intent.reason = self._reason
        return intent

    def is_on(self, modifier: str) -> bool:
        """Whether a modifier of the mapping is on."""
        if self._mapping.modifiers[modifier].latching:
            return modifier in self._latched
        return f"modifiers.{modifier}.button" in self.reader.pressed

    def _act(self, out: Vector, step_s: float) -> None:
        """The action that the sticks ask for; a number whose axis is switched off rests, or stays as it was."""
        np.copyto(out, self._target)
        np.copyto(out, self._centre, where=self._springs)
        for i, entry in enumerate(self._mapping.axes):
            place = self._place[entry.dimension]
            if not self._counts(entry.when, entry.unless):
                self._active.discard(i)
                continue
            push = entry.scale * deflection(self.reader.axes[entry.axis], entry.deadzone, entry.exponent)
            if entry.control is StickControl.ABSOLUTE:
                out[place] += push
            elif entry.control is StickControl.RELATIVE:
                if i not in self._active:
                    self._base[place] = self._target[place]
                out[place] = self._base[place] + push
            elif self._pressed:
                # No further ahead than the stick gets in a few periods: limits may hold back what is sent.
                lead = abs(entry.scale) * _LEAD_PERIODS * self._period_s
                ahead = out[place] + push * step_s - self._sent[place]
                out[place] = self._sent[place] + np.clip(ahead, -lead, lead)
            self._active.add(i)
        np.clip(out, self._lower, self._upper, out=out)
        if self._pressed:
            self._target[:] = out

    def _counts(self, when: str | None, unless: str | None) -> bool:
        return (when is None or self.is_on(when)) and (unless is None or not self.is_on(unless))
