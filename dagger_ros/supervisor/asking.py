"""Rules in which the robot asks for help, and takes control back by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dagger_ros.contract import Label, Mode, Scores
from dagger_ros.supervisor.limits import Vector
from dagger_ros.supervisor.modes import Event
from dagger_ros.supervisor.rule import Limits, Rule, Situation, shadow_label

__all__ = ["FEWEST_TICKS", "EnsembleGated", "Lazy", "RobotGated", "Thrifty", "fit_thrifty"]

# Keeps noise apart from other uses of the same seed.
_NOISE_STREAM = 5
# Of `Thrifty`: with fewer ticks there is no quantile to speak of (source: its code); older ones are forgotten.
FEWEST_TICKS, _MOST_TICKS = 25, 512
# So often they are fitted.
_FIT_TICKS = 10
# By how many times the budget the share may be larger, to catch up.
_LARGEST_CHANGE = 4.0


class RobotGated(Rule):
    """The robot asks for help when a score is above its limit, and takes control back when all are below.

    With other limits to take control back than to ask there is hysteresis. Without further ado it is SafeDAgger,
    their limits: `safe`, Zhang and Cho (2016), arXiv 1605.06450.

    Args:
        name: One of `rules.ROBOT_GATED`.
        limits: As they were fitted to the policy.
    """

    robot_gated = True

    def __init__(self, name: str, limits: Limits) -> None:
        super().__init__(limits)
        self.name = name
        self._agreed_ticks = 0

    def start_episode(self, seed: int) -> None:
        """What was agreed on before does not count."""
        self.asks, self._agreed_ticks = False, 0

    def events(self, situation: Situation) -> Sequence[Event]:
        """Asks while the policy drives or is held, and hands back where the expert drives because it was asked."""
        mode, scores = situation.mode, situation.scores
        self.asks = mode in (Mode.POLICY, Mode.HOLD) and self._needs_help(scores)
        self._agreed_ticks = self._agreed_ticks + 1 if mode is Mode.EXPERT and self._can_go_on(scores) else 0
        if mode is Mode.EXPERT:
            agreed = situation.answered and self._agreed_ticks >= self.limits.back_ticks
            goes_on = situation.resume or agreed
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
        back = self.limits.back
        below = all(math.isnan(limit) or score <= limit for score, limit in zip(scores, back, strict=True))
        return below and bool(back.given())


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
        super().start_episode(seed)
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
        return shadow_label(mode, expert_labels=expert_labels)


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
        # (2, N) doubt and risk while the policy drove, the newest N.
        self._met = np.empty((2, _MOST_TICKS))
        self._ticks = self._requests = 0
        self._pay()

    def events(self, situation: Situation) -> Sequence[Event]:
        """Remembers what the policy met."""
        asked = self.asks
        events = super().events(situation)
        # A request that nobody has answered yet is one.
        met = situation.scores.doubt, situation.scores.risk
        if situation.mode is Mode.POLICY and not (asked and self.asks) and math.isfinite(sum(met)):
            self._met[:, self._ticks % _MOST_TICKS] = met
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
        doubt, risk = self._met[:, : self._ticks]
        fitted = fit_thrifty(doubt, risk, share, back_discrepancy=self._fitted.back.discrepancy)
        self._fitted = replace(fitted, back_ticks=self._fitted.back_ticks)

    def _pay(self) -> None:
        """Where the budget does not pay for a request there is no limit. Half a request may be owed or be left."""
        pays = self._requests + 0.5 <= self._budget * self._ticks
        self.limits = self._fitted if pays else replace(self._fitted, ask=Scores())


def fit_thrifty(doubt: Vector, risk: Vector, budget: float, *, back_discrepancy: float) -> Limits:
    """Limits above which doubt or risk lie in a share of some ticks.

    Args:
        doubt: (N,) of each tick.
        risk: (N,) of each tick.
        budget: The share, between 0 and 1.
        back_discrepancy: Limit on the discrepancy for taking control back.

    Returns:
        The same quantile of both, such that one or the other is exceeded in `budget` of the ticks.
    """
    doubts, risks = np.sort(doubt), np.sort(risk)
    # So many ticks have less doubt, and less risk: a value lies above the sorted one at each smaller rank.
    ranks = [np.searchsorted(s, v) for s, v in ((doubts, doubt), (risks, risk))]
    n = len(doubts)
    level = int(np.sort(np.maximum(*ranks))[max(math.ceil((1.0 - budget) * n), 1) - 1])
    ask = Scores(doubt=float(doubts[level]), risk=float(risks[level]))
    return Limits(ask, Scores(discrepancy=back_discrepancy, risk=float(risks[(n - 1) // 2])))
