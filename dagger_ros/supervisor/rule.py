"""What every rule has: what it decides from, what it may ask for, and what it makes a label of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dagger_ros.contract import DaggerError, Label, Mode, Scores
from dagger_ros.supervisor.limits import Vector
from dagger_ros.supervisor.modes import Event

__all__ = ["Limits", "Rule", "Situation", "shadow_label"]


class Situation(NamedTuple):
    """What a rule decides from.

    Args:
        mode: Who drove so far.
        resume: The expert explicitly gives control back to the policy.
        scores: Of the policy at this tick.
        answered: Where the expert drives: because the rule asked for it, and not because a person wanted to.
    """

    mode: Mode
    resume: bool
    scores: Scores
    answered: bool = True


@dataclass(frozen=True)
class Limits:
    """On the scores, NaN: none.

    Args:
        ask: One score above its limit asks the expert to take over; one that is not known counts as above.
        back: All scores at or below their limits give control back to the policy; one that is not known does not.
        back_ticks: In so many ticks in a row.
    """

    ask: Scores = Scores()  # noqa: RUF009 - it cannot be changed
    back: Scores = Scores()  # noqa: RUF009
    back_ticks: int = 1

    @staticmethod
    def fitted(rule: str, content: Mapping[str, Any]) -> Limits:
        """Takes the limits that a policy carries.

        Args:
            rule: That they are wanted for.
            content: What stands in its `policy.json` as `limits`.

        Raises:
            DaggerError: If they were fitted for another rule, there are none, or they would not limit.
        """
        found = content.get("rule", "none")
        if found != rule:
            raise DaggerError(
                f"rule {rule}: expected a policy whose limits were fitted for this rule (trained by dagger-ros train "
                f"or run --rule {rule}); found {found}"
            )
        for side in ("ask", "back"):
            given = content.get(side)
            if not isinstance(given, Mapping) or not given or not all(map(_is_limit, given.items())):
                raise DaggerError(
                    f"rule {rule}: expected in the policy's limits.{side} finite numbers for at least one of "
                    f"{', '.join(Scores._fields)}; found {given!r}"
                )
        ticks = content.get("back_ticks")
        if not isinstance(ticks, int) or ticks < 1:
            raise DaggerError(f"rule {rule}: expected in the policy's limits.back_ticks a number >= 1; found {ticks!r}")
        return Limits(Scores(**content["ask"]), Scores(**content["back"]), ticks)


class Rule(ABC):
    """Who should drive and what is learned from. One object serves one round.

    Attributes:
        name: As in `RULES`.
        limits: In force; nothing is asked for without.
        asks: At this tick the rule wants the expert to take over; as of the last `events`.
    """

    name = ""
    robot_gated = False
    """It asks for help, and may take control back while the deadman is pressed, which must then be pressed anew."""
    mixes = False
    """The expert and the policy drive in turn, tick by tick."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self.asks = False

    def start_episode(self, seed: int) -> None:  # noqa: B027 - most have nothing to forget
        """Forgets the last episode; all randomness of the next one comes from `seed`."""

    @abstractmethod
    def events(self, situation: Situation) -> Sequence[Event]:
        """What the rule asks for, in order."""

    def disturb(self, action: Vector, half_range: Vector) -> None:  # noqa: B027 - most leave it as it is
        """Changes what is executed of an expert's action; its label stays as it was.

        Args:
            action: (A,) that the expert asks for, changed in place.
            half_range: (A,) half the range of its bounds, in its units.
        """

    def label(self, mode: Mode, *, expert_labels: bool) -> Label:
        """Whose action labels the tick, given whether a fresh label of the expert is there."""
        if mode is Mode.EXPERT:
            return Label.EXPERT if expert_labels else Label.NONE
        return Label.POLICY if mode is Mode.POLICY else Label.NONE


def _is_limit(item: tuple[object, object]) -> bool:
    name, value = item
    return name in Scores._fields and isinstance(value, (int, float)) and math.isfinite(value)


def shadow_label(mode: Mode, *, expert_labels: bool) -> Label:
    """The expert's, whoever drives, where there is one."""
    if mode not in (Mode.POLICY, Mode.EXPERT):
        return Label.NONE
    if expert_labels:
        return Label.EXPERT
    return Label.POLICY if mode is Mode.POLICY else Label.NONE
