"""Query and takeover rules: who should drive at a tick, when the expert is asked for help, and what becomes a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dagger_ros.contract import DaggerError, Label, Mode
from dagger_ros.supervisor.asking import EnsembleGated, Lazy, RobotGated, Thrifty
from dagger_ros.supervisor.modes import Event
from dagger_ros.supervisor.rule import Limits, Rule, Situation, shadow_label

__all__ = [
    "BETAS",
    "ROBOT_GATED",
    "RULES",
    "BehaviourCloning",
    "Beta",
    "Dagger",
    "HumanGated",
    "RuleOptions",
    "make_rule",
]

# Keeps the coins apart from other uses of the same seed.
_COIN_STREAM = 1

_LET_GO, _HAND_BACK = (Event.RELEASE,), (Event.RELEASE, Event.RESUME)

Beta = Callable[[int], float]

# Probability that the expert drives, by round; round 0 are the demonstrations and never asks.
BETAS: dict[str, Beta] = {
    "indicator": lambda _round: 0.0,
    "exponential": lambda round_: 0.5**round_,
    "linear": lambda round_: max(0.0, 1.0 - round_ / 5),
}
# Rules in which the robot asks for help, by limits that are fitted to its policy.
ROBOT_GATED = ("safe", "lazy", "ensemble", "thrifty")
RULES = ("bc", "dagger", "hg", *ROBOT_GATED)


class BehaviourCloning(Rule):
    """The expert drives every episode and every tick is a label: demonstrations."""

    name = "bc"

    def events(self, situation: Situation) -> Sequence[Event]:
        """Takes over wherever that is possible; the policy never drives."""
        return (Event.HOLD, Event.TAKEOVER)

    def label(self, mode: Mode, *, expert_labels: bool) -> Label:
        """The expert's, while it drives."""
        return Label.EXPERT if mode is Mode.EXPERT and expert_labels else Label.NONE


class Dagger(Rule):
    """DAgger: the expert labels every visited state, and drives each tick with probability beta.

    Args:
        beta: Probability that the expert drives a tick.

    Source: Ross, Gordon and Bagnell (2011), algorithm 3.1: pi_i = beta_i pi* + (1 - beta_i) pi_i.
    """

    name = "dagger"

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta, self.mixes = beta, beta > 0
        self._rng = np.random.default_rng(0)

    def start_episode(self, seed: int) -> None:
        """Draws the coins of the episode from the seed."""
        self._rng = np.random.default_rng([seed, _COIN_STREAM])

    def events(self, situation: Situation) -> Sequence[Event]:
        """Tosses the coin of this tick."""
        if self._rng.random() < self.beta:
            return (Event.TAKEOVER,)
        return (Event.RELEASE, Event.RESUME) if situation.mode is Mode.EXPERT else ()

    def label(self, mode: Mode, *, expert_labels: bool) -> Label:
        """The expert's, whoever drives."""
        return shadow_label(mode, expert_labels=expert_labels)


class HumanGated(Rule):
    """HG-DAgger: the person decides when to take over and when to hand back; only what the person drives is a label.

    Source: Kelly et al. (2018), arXiv 1810.02890.
    """

    name = "hg"

    def events(self, situation: Situation) -> Sequence[Event]:
        """Letting go holds, and only an explicit hand-back resumes. That a pressed deadman drives is so under each."""
        return _HAND_BACK if situation.resume else _LET_GO


@dataclass(frozen=True)
class RuleOptions:
    """What can be chosen about rules.

    Args:
        beta: Of `dagger`: how often the expert drives, one of `BETAS`.
        budget: Of `thrifty`: share of the policy's ticks at which it may ask for help, between 0 and 1.
        expert_noise: Of `lazy`: standard deviation of noise on what the expert executes, in half bound ranges. For
            simulation: a person at the pad wants the robot to do as told.

    Raises:
        DaggerError: If one of them cannot be.
    """

    beta: str = "indicator"
    budget: float = 0.01  # source: ThriftyDAgger, alpha_h
    expert_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.beta not in BETAS:
            raise DaggerError(f"beta: expected one of {', '.join(BETAS)}, got {self.beta!r}")
        if not 0 < self.budget < 1:
            raise DaggerError(f"budget: expected a share of the policy's ticks between 0 and 1, got {self.budget:g}")
        if not 0 <= self.expert_noise < 1:
            raise DaggerError(
                f"expert_noise: expected half bound ranges, from 0 and below 1, got {self.expert_noise:g}"
            )


def make_rule(
    name: str, *, round_index: int, options: RuleOptions = RuleOptions(), limits: Limits | None = None
) -> Rule:
    """The rule of one round.

    Args:
        name: One of `RULES`. Round 0 is demonstrations whatever the rule.
        round_index: Number of the round, >= 0.
        options: Of the rule.
        limits: For those of `ROBOT_GATED`, as they were fitted to the policy of this round.

    Raises:
        DaggerError: For a name that is none of these, or limits that are missing.
    """
    if name not in RULES:
        raise DaggerError(f"rule: expected one of {', '.join(RULES)}, got {name!r}")
    if name == "bc" or round_index == 0:
        return BehaviourCloning()
    if name == "dagger":
        return Dagger(BETAS[options.beta](round_index))
    if name == "hg":
        return HumanGated()
    if limits is None:
        raise DaggerError(f"rule {name}: expected a policy with limits that were fitted for this rule, got none")
    makers: dict[str, Callable[[], Rule]] = {
        "safe": lambda: RobotGated("safe", limits),
        "lazy": lambda: Lazy(limits, options.expert_noise),
        "ensemble": lambda: EnsembleGated("ensemble", limits),
        "thrifty": lambda: Thrifty(limits, options.budget),
    }
    return makers[name]()
