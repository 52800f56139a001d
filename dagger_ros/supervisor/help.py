"""A request for help: how long it stands, and when nobody has answered it."""

from __future__ import annotations

import numpy as np

from dagger_ros.contract import NEVER_NS, Mode, Scores

__all__ = ["HelpWatch", "help_words"]


class HelpWatch:
    """Follows what a rule asks for.

    A request that was made stands, so that a score on the edge of its limit does not flap, until the expert takes
    over, a person lets the policy go on, or the robot is locked or stopped.

    Args:
        answer_s: How long the policy may go on without an answer; None: nobody asks.

    Attributes:
        asked: Help is asked for at this tick.
    """

    def __init__(self, answer_s: float | None) -> None:
        self._answer_ns = 0 if answer_s is None else round(answer_s * 1e9)
        self.forget()

    def forget(self) -> None:
        """Nothing is asked for."""
        self._since_ns = NEVER_NS
        self.asked = False

    def go_on(self, now_ns: int) -> None:
        """A request stands, and nobody knows since when."""
        self._since_ns, self.asked = now_ns, True

    def watch(self, mode: Mode, *, asks: bool, dismissed: bool, now_ns: int) -> bool:
        """Takes one tick.

        Args:
            mode: Who drives now.
            asks: The rule wants the expert to take over.
            dismissed: A person lets the policy go on.
            now_ns: Monotonic time.

        Returns:
            Whether the policy has driven on for too long without an answer.
        """
        waits = mode in (Mode.POLICY, Mode.HOLD)
        if dismissed or not waits:
            self._since_ns = NEVER_NS
        if asks and waits and self._since_ns == NEVER_NS:
            self._since_ns = now_ns
        self.asked = asks or self._since_ns != NEVER_NS
        return mode is Mode.POLICY and self._since_ns != NEVER_NS and now_ns - self._since_ns > self._answer_ns


def help_words(scores: Scores, ask: Scores) -> str:
    """Which scores are above their limits, for people."""
    words = []
    for name, limit in ask.given().items():
        score = getattr(scores, name)
        if not score <= limit:
            words.append(f"{name} is not known" if np.isnan(score) else f"{name} {score:.3g} above {limit:.3g}")
    return ", ".join(words) or "a score was above its limit"
