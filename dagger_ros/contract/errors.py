"""The errors that are meant for a person: each says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ContractError", "DaggerError", "Problem"]


class DaggerError(Exception):
    """A mistake that the user can mend. The command line prints it without a traceback and exits with 2."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong at one place of a contract.

    Args:
        key: Dotted path from the top of the file, as in `action.lower`.
        expected: What would have been valid.
        found: What is there.
    """

    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.key}: expected {self.expected}; found {self.found}"


class ContractError(DaggerError):
    """A contract that cannot be used, with everything that is wrong with it."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        super().__init__("\n".join([f"{source}: {count}", *(f"  {p}" for p in self.problems)]))
