"""Why the supervisor did what it did, as bits that go out with every decision."""

from __future__ import annotations

import enum
from functools import cache

__all__ = ["Reason"]


class Reason(enum.IntFlag):
    """One bit for each thing that the supervisor objected to or did. 0: nothing to object to."""

    OBSERVATION_NEVER = enum.auto()
    """A stream of the contract was never received."""
    OBSERVATION_STALE = enum.auto()
    """A stream is older than its `max_age_s`, by header stamp or by time of receipt."""
    OBSERVATION_FUTURE = enum.auto()
    """A header stamp is ahead of the clock by more than `future_tolerance_s`."""
    OBSERVATION_SIZE = enum.auto()
    """A message lacked a field that the contract selects."""
    OBSERVATION_NOT_FINITE = enum.auto()
    POLICY_NEVER = enum.auto()
    POLICY_STALE = enum.auto()
    POLICY_FUTURE = enum.auto()
    POLICY_SIZE = enum.auto()
    POLICY_NOT_FINITE = enum.auto()
    POLICY_CONTRACT = enum.auto()
    """The policy works under another contract."""
    EXPERT_NEVER = enum.auto()
    EXPERT_STALE = enum.auto()
    EXPERT_FUTURE = enum.auto()
    EXPERT_SIZE = enum.auto()
    EXPERT_NOT_FINITE = enum.auto()
    EXPERT_CONTRACT = enum.auto()
    """The expert node works under another contract."""
    NOT_ARMED = enum.auto()
    """Locked: waits for somebody to arm."""
    HELD = enum.auto()
    """Armed, but nobody drives."""
    ESTOP = enum.auto()
    CLAMPED_BOUND = enum.auto()
    """The requested action was outside the contract's bounds."""
    CLAMPED_RATE = enum.auto()
    """The requested action was further from the last one than the contract's rate limit allows."""
    START_OUT_OF_BOUNDS = enum.auto()
    """The measured position lies outside the contract's bounds; nothing goes out until it does not."""
    OUTPUT_NOT_FINITE = enum.auto()
    """Last check: what would have gone out was not finite, and nothing went out."""

    @classmethod
    def observation_faults(cls) -> Reason:
        """Every bit that makes observations unusable."""
        return _faults("OBSERVATION_")

    @classmethod
    def policy_faults(cls) -> Reason:
        """Every bit that makes the policy's action unusable."""
        return _faults("POLICY_")

    @classmethod
    def expert_faults(cls) -> Reason:
        """Every bit that makes the expert's action unusable."""
        return _faults("EXPERT_")

    def words(self) -> str:
        """Names of the bits that are set, as in `POLICY_STALE|HELD`; empty for none."""
        return "|".join(str(bit.name) for bit in Reason if bit & self)


@cache
def _faults(prefix: str) -> Reason:
    faults = Reason(0)
    for bit in Reason:
        if str(bit.name).startswith(prefix):
            faults |= bit
    return faults
