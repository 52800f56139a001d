"""What a gate decides by beside its contract, as data: said by the supervisor, recorded, and a gate made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.supervisor.gate import Gate
from dagger_ros.supervisor.rule import Limits
from dagger_ros.supervisor.rules import RuleOptions, make_rule

__all__ = ["GateSettings"]


@dataclass(frozen=True)
class GateSettings:
    """The settings of a supervisor; the fields of `msg/GateSettings.msg`.

    Args:
        rule: One of `RULES`.
        round: Number of the round; 0: demonstrations.
        options: Of the rule.
        back_ticks: Of rules that ask for help: see `Limits`.
        auto_arm: See `Gate`, as the next three.
        needs_expert: Likewise.
        doubt_limit: Likewise.
        policy_sha256: Likewise, as 64 hex digits.

    Raises:
        DaggerError: If one of them cannot be.
    """

    rule: str
    round: int
    auto_arm: bool
    options: RuleOptions = RuleOptions()  # noqa: RUF009 - it cannot be changed
    back_ticks: int = 1
    needs_expert: bool = True
    doubt_limit: float = math.inf
    policy_sha256: str = ""

    def __post_init__(self) -> None:
        if not self.doubt_limit > 0:
            raise DaggerError(f"doubt_limit: expected a number > 0 (inf: no limit), got {self.doubt_limit:g}")
        if self.policy_sha256 and len(self.policy_sha256) != 64:
            raise DaggerError(f"policy_sha256: expected 64 hex digits or nothing, got {self.policy_sha256!r}")
        if self.options.expert_noise and not self.auto_arm:
            raise DaggerError(
                f"expert_noise: expected 0 where a person arms the robot, got {self.options.expert_noise:g}"
            )

    @staticmethod
    def read(message: Any) -> GateSettings:
        """Takes a GateSettings message, from rclpy or from a bag.

        Raises:
            DaggerError: If one of them cannot be.
        """
        own = {name: getattr(message, name) for name in _OWN}
        return GateSettings(options=RuleOptions(**{name: getattr(message, name) for name in _OPTIONS}), **own)

    def write(self, message: Any) -> None:
        """Fills a GateSettings message, but for the contract."""
        for name in _OWN:
            setattr(message, name, getattr(self, name))
        for name in _OPTIONS:
            setattr(message, name, getattr(self.options, name))

    def make_gate(self, contract: Contract, limits: Limits | None) -> Gate:
        """A new gate that decides by them.

        Args:
            contract: See `Gate`.
            limits: Of a rule that asks for help, as they were fitted to its policy.

        Raises:
            DaggerError: If there is no such rule, its limits are missing, or the contract does not allow it.
        """
        return Gate(
            contract,
            make_rule(self.rule, round_index=self.round, options=self.options, limits=limits),
            auto_arm=self.auto_arm,
            needs_expert=self.needs_expert,
            doubt_limit=self.doubt_limit,
            policy_sha256=self.policy_sha256.encode(),
        )


_OPTIONS = tuple(field.name for field in fields(RuleOptions))
_OWN = tuple(field.name for field in fields(GateSettings) if field.name != "options")
