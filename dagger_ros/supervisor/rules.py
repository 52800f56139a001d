"""Query and takeover rules: who should drive at a tick, when the expert is asked for help, and what becomes a label."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dagger_ros.contract import DaggerError, Label, Mode, Scores
from dagger_ros.supervisor.modes import Event

__all__ = [
    "BETAS",
    "FEWEST_TICKS",
    "ROBOT_GATED",
    "RULES",
    "BehaviourCloning",
    "Beta",
    "Dagger",
    "HumanGated",
    "Lazy",
    "Limits",
    "RobotGated",
    "Rule",
    "RuleOptions",
    "Situation",
    "Thrifty",
    "fit_thrifty",
    "make_rule",
]

Vector = np.ndarray[Any, np.dtype[np.float64]]


class Situation(NamedTuple):
    """What a rule decides from.

    Args:
        mode: Who drove so far.
        takeover: The deadman is pressed.
        resume: The expert explicitly gives control back to the policy.
        scores: Of the policy at this tick.
    """

    mode: Mode
    takeover: bool
    resume: bool
    scores: Scores


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
            DaggerError: If they were fitted for another rule, or there are none.
        """
        found = content.get("rule", "none")
        if found != rule:
            raise DaggerError(
                f"rule {rule}: expected a policy whose limits were fitted for this rule (trained by dagger-ros run "
                f"--rule {rule}); found {found}"
            )
        return Limits(Scores(**content["ask"]), Scores(**content["back"]), content["back_ticks"])


class Rule(ABC):
    """Who should drive and what is learned from. One object serves one round.

    Attributes:
        name: As in `RULES`.
        limits: In force; nothing is asked for without.
        asks: At this tick the rule wants the expert to take over; as of the last `events`.
    """

    name = ""
    hands_back = False
    """It may give control to the policy while the deadman is pressed, which must then be pressed anew."""

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


class BehaviourCloning(Rule):
    """The expert drives every episode and every tick is a label: demonstrations."""

    name = "bc"

    def events(self, situation: Situation) -> Sequence[Event]:
        """Takes over wherever that is possible; the policy never drives."""
        return (Event.HOLD, Event.TAKEOVER) if situation.mode is Mode.POLICY else (Event.TAKEOVER,)

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
        self.beta = beta
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
        return _shadow_label(mode, expert_labels=expert_labels)


class HumanGated(Rule):
    """HG-DAgger: the person decides when to take over and when to hand back; only what the person drives is a label.

    Source: Kelly et al. (2018), arXiv 1810.02890.
    """

    name = "hg"

    def events(self, situation: Situation) -> Sequence[Event]:
        """Follows the deadman; letting go holds, and only an explicit hand-back resumes the policy."""
        if situation.takeover:
            return (Event.TAKEOVER,)
        return (Event.RELEASE, Event.RESUME) if situation.resume else (Event.RELEASE,)


class RobotGated(Rule):
    """The robot asks for help when a score is above its limit, and takes control back when all are below.

    With other limits to take control back than to ask there is hysteresis. Without further ado it is SafeDAgger,
    their limits: `safe`, Zhang and Cho (2016), arXiv 1605.06450.

    Args:
        name: One of `ROBOT_GATED`.
        limits: As they were fitted to the policy.
    """

    hands_back = True

    def __init__(self, name: str, limits: Limits) -> None:
        super().__init__(limits)
        self.name = name
        self._agreed_ticks = 0

    def events(self, situation: Situation) -> Sequence[Event]:
        """Asks while the policy drives (or is held since nobody answered), and hands back while the expert does."""
        mode, scores = situation.mode, situation.scores
        self.asks = mode in (Mode.POLICY, Mode.HOLD) and self._needs_help(scores)
        self._agreed_ticks = self._agreed_ticks + 1 if mode is Mode.EXPERT and self._can_go_on(scores) else 0
        if mode is Mode.EXPERT:
            goes_on = situation.resume or self._agreed_ticks >= self.limits.back_ticks
            return (Event.RELEASE, Event.RESUME) if goes_on else ()
        if self.asks:
            return (Event.TAKEOVER,)
        return (Event.RESUME,) if situation.resume else ()

    def _needs_help(self, scores: Scores) -> bool:
        for score, limit in zip(scores[:-1], self.limits.ask[:-1], strict=True):
            if not math.isnan(limit) and not score <= limit:
                return True
        # While nobody labels there is nothing to differ from.
        return scores.discrepancy > self.limits.ask.discrepancy

    def _can_go_on(self, scores: Scores) -> bool:
        return all(math.isnan(limit) or score <= limit for score, limit in zip(scores, self.limits.back, strict=True))


class Lazy(RobotGated):
    """LazyDAgger: few switches, by hysteresis, and by noise that shows states which the policy will get to.

    Source: Hoque et al. (2021), arXiv 2104.00053, and its code.

    Args:
        limits: As they were fitted to the policy.
        noise: Standard deviation of what is added to the expert's actions that are executed, in half bound ranges.
    """

    def __init__(self, limits: Limits, noise: float) -> None:
        super().__init__("lazy", limits)
        self._noise = noise
        self._rng = np.random.default_rng(0)

    def start_episode(self, seed: int) -> None:
        """Draws the noise of the episode from the seed."""
        self._rng = np.random.default_rng([seed, _NOISE_STREAM])

    def disturb(self, action: Vector, half_range: Vector) -> None:
        """Adds noise."""
        if self._noise:
            action += self._noise * half_range * self._rng.standard_normal(len(action))


class EnsembleGated(RobotGated):
    """EnsembleDAgger: the policy drives while it agrees with the expert and with itself.

    Source: Menda, Driggs-Campbell and Kochenderfer (2018), arXiv 1807.08364. As in DAgger every visited state is
    labelled; where nobody labels, doubt alone decides.
    """

    def label(self, mode: Mode, *, expert_labels: bool) -> Label:
        """The expert's, whoever drives."""
        return _shadow_label(mode, expert_labels=expert_labels)


class Thrifty(RobotGated):
    """ThriftyDAgger: asks where it is new or risky, as often as its budget allows.

    The limits on doubt and risk are fitted again and again to what the policy met while it drove in this round: those
    that a share of these ticks lies above. Differences from the source, which fits them after each episode, and each
    to the whole budget: both together are exceeded as often as the budget says; what was not asked for so far is made
    up for; and what the budget does not pay for is not asked.

    Source: Hoque et al. (2021), arXiv 2109.08273, and its code.

    Args:
        limits: As they were fitted to the policy, until enough ticks were driven.
        budget: Share of the policy's ticks at which help may be asked for, between 0 and 1.
    """

    def __init__(self, limits: Limits, budget: float) -> None:
        super().__init__("thrifty", limits)
        self._budget, self._fitted = budget, limits
        # (N, 2) doubt and risk while the policy drove, the newest N.
        self._met = np.empty((_MOST_TICKS, 2))
        self._ticks = self._requests = 0
        self._pay()

    def events(self, situation: Situation) -> Sequence[Event]:
        """Remembers what the policy met."""
        asked = self.asks
        events = super().events(situation)
        # A request that nobody has answered yet is one.
        met = situation.scores.doubt, situation.scores.risk
        if situation.mode is Mode.POLICY and not (asked and self.asks) and math.isfinite(sum(met)):
            self._met[self._ticks % _MOST_TICKS] = met
            self._ticks += 1
            self._requests += self.asks
            if self._ticks >= FEWEST_TICKS and self._ticks % _FIT_TICKS == 0:
                self._fit()
            self._pay()
        return events

    def _fit(self) -> None:
        # What is left of the budget is for the ticks until the next fit.
        left = self._budget * self._ticks - self._requests
        share = self._budget + min(max(left / _FIT_TICKS, 0.0), _LARGEST_CHANGE * self._budget)
        share = min(share, 1.0)
        met = self._met[: min(self._ticks, _MOST_TICKS)]
        fitted = fit_thrifty(met[:, 0], met[:, 1], share, back_discrepancy=self._fitted.back.discrepancy)
        self._fitted = replace(fitted, back_ticks=self._fitted.back_ticks)

    def _pay(self) -> None:
        """Where the budget does not pay for a request there is no limit. Half a request may be owed or be left."""
        pays = self._requests + 0.5 <= self._budget * self._ticks
        self.limits = self._fitted if pays else replace(self._fitted, ask=Scores())


def fit_thrifty(doubt: Vector, risk: Vector, budget: float, *, back_discrepancy: float) -> Limits:
    """Limits above which doubt or risk lie in a share of some ticks.

    Args:
        doubt: (N,) of each tick.
        risk: (N,) of each tick; NaN: not known.
        budget: The share, between 0 and 1.
        back_discrepancy: Limit on the discrepancy for taking control back.

    Returns:
        The same quantile of both, such that one or the other is exceeded in `budget` of the ticks.
    """
    ranks = [np.searchsorted(np.sort(values), values, side="right") / len(values) for values in (doubt, risk)]
    level = float(np.quantile(np.maximum(*ranks), 1.0 - budget))
    ask = [float(np.quantile(values, level, method="inverted_cdf")) for values in (doubt, risk)]
    return Limits(Scores(doubt=ask[0], risk=ask[1]), Scores(discrepancy=back_discrepancy, risk=float(np.median(risk))))


def _shadow_label(mode: Mode, *, expert_labels: bool) -> Label:
    if mode not in (Mode.POLICY, Mode.EXPERT):
        return Label.NONE
    if expert_labels:
        return Label.EXPERT
    return Label.POLICY if mode is Mode.POLICY else Label.NONE


# Keep coins and noise apart from other uses of the same seed.
_COIN_STREAM, _NOISE_STREAM = 1, 5
# Of `Thrifty`: with fewer ticks there is no quantile to speak of (source: its code); older ones are forgotten.
FEWEST_TICKS, _MOST_TICKS = 25, 1024
# So often they are fitted.
_FIT_TICKS = 10
# By how many times the budget the share may be larger, to catch up.
_LARGEST_CHANGE = 4.0

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
