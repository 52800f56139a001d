"""Query and takeover rules: who should drive at a tick, and which ticks become labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from dagger_ros.contract import DaggerError, Label, Mode
from dagger_ros.supervisor.modes import Event

__all__ = [
    "BETAS",
    "RULES",
    "BehaviourCloning",
    "Beta",
    "Dagger",
    "HumanGated",
    "Rule",
    "make_rule",
]


class Rule(Protocol):
    """Who should drive and what is learned from. One object serves one round."""

    def start_episode(self, seed: int) -> None:
        """Forgets the last episode; all randomness of the next one comes from `seed`."""

    def events(self, mode: Mode, *, takeover: bool, resume: bool) -> Sequence[Event]:
        """What the rule asks for in this mode, in order.

        Args:
            mode: Who drives.
            takeover: The expert wants control, or keeps it.
            resume: The expert explicitly gives control back to the policy.
        """

    def label(self, mode: Mode, *, expert_labels: bool) -> Label:
        """Whose action labels the tick, given whether a fresh label of the expert is there."""


class BehaviourCloning:
    """The expert drives every episode and every tick is a label: demonstrations."""

    def start_episode(self, seed: int) -> None:
        """Nothing to forget."""

    def events(self, mode: Mode, *, takeover: bool, resume: bool) -> Sequence[Event]:
        """Takes over wherever that is possible; the policy never drives."""
        return (Event.HOLD, Event.TAKEOVER) if mode is Mode.POLICY else (Event.TAKEOVER,)

    def label(self, mode: Mode, *, expert_labels: bool) -> Label:
        """The expert's, while it drives."""
        return Label.EXPERT if mode is Mode.EXPERT and expert_labels else Label.NONE


class Dagger:
    """DAgger: the expert labels every visited state, and drives each tick with probability beta.

    Args:
        beta: Probability that the expert drives a tick.

    Source: Ross, Gordon and Bagnell (2011), algorithm 3.1: pi_i = beta_i pi* + (1 - beta_i) pi_i.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self._rng = np.random.default_rng(0)

    def start_episode(self, seed: int) -> None:
        """Draws the coins of the episode from the seed."""
        self._rng = np.random.default_rng([seed, _COIN_STREAM])

    def events(self, mode: Mode, *, takeover: bool, resume: bool) -> Sequence[Event]:
        """Tosses the coin of this tick."""
        if self._rng.random() < self.beta:
            return (Event.TAKEOVER,)
        return (Event.RELEASE, Event.RESUME) if mode is Mode.EXPERT else ()

    def label(self, mode: Mode, *, expert_labels: bool) -> Label:
        """The expert's, whoever drives."""
        if mode not in (Mode.POLICY, Mode.EXPERT):
            return Label.NONE
        if expert_labels:
            return Label.EXPERT
        return Label.POLICY if mode is Mode.POLICY else Label.NONE


class HumanGated:
    """HG-DAgger: the person decides when to take over and when to hand back; only what the person drives is a label.

    Source: Kelly et al. (2018), arXiv 1810.02890.
    """

    def start_episode(self, seed: int) -> None:
        """Nothing to forget."""

    def events(self, mode: Mode, *, takeover: bool, resume: bool) -> Sequence[Event]:
        """Follows the deadman; letting go holds, and only an explicit hand-back resumes the policy."""
        if takeover:
            return (Event.TAKEOVER,)
        return (Event.RELEASE, Event.RESUME) if resume else (Event.RELEASE,)

    def label(self, mode: Mode, *, expert_labels: bool) -> Label:
        """The expert's while it drives, the policy's own while that drives."""
        if mode is Mode.EXPERT and expert_labels:
            return Label.EXPERT
        return Label.POLICY if mode is Mode.POLICY else Label.NONE


# Keeps the coins apart from other uses of the same seed.
_COIN_STREAM = 1

Beta = Callable[[int], float]

# Probability that the expert drives, by round; round 0 are the demonstrations and never asks.
BETAS: dict[str, Beta] = {
    "indicator": lambda _round: 0.0,
    "exponential": lambda round_: 0.5**round_,
    "linear": lambda round_: max(0.0, 1.0 - round_ / 5),
}
RULES = ("bc", "dagger", "hg")


def make_rule(name: str, *, round_index: int, beta: str = "indicator") -> Rule:
    """The rule of one round.

    Args:
        name: One of `RULES`. Round 0 is demonstrations whatever the rule.
        round_index: Number of the round, >= 0.
        beta: One of `BETAS`, for `dagger`.

    Raises:
        DaggerError: For a name that is none of these.
    """
    if name not in RULES:
        raise DaggerError(f"rule: expected one of {', '.join(RULES)}, got {name!r}")
    if beta not in BETAS:
        raise DaggerError(f"beta: expected one of {', '.join(BETAS)}, got {beta!r}")
    if name == "bc" or round_index == 0:
        return BehaviourCloning()
    return HumanGated() if name == "hg" else Dagger(BETAS[beta](round_index))
