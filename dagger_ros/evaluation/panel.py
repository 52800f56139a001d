"""A panel: a named, hashed list of held-out rollouts, the same for every policy; and how one policy did on it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.contract.fields import Count, Name, Positive, Text
from dagger_ros.contract.load import problems_of
from dagger_ros.evaluation.statistics import wilson
from dagger_ros.sim import Perturbation

__all__ = ["NotFiniteError", "Panel", "PanelResult", "RolloutKey", "RolloutResult", "load_panel", "same_rollouts"]

ROLLOUTS = "rollouts.json"
_SCHEMA = "dagger_ros.panel/1"


class NotFiniteError(DaggerError):
    """A policy answered finite observations with NaN or infinity."""


class RolloutKey(NamedTuple):
    """Which rollout of a panel."""

    condition: str
    seed: int

    def __str__(self) -> str:
        return f"{self.condition}-{self.seed}"


class Panel(BaseModel):
    """A named list of held-out rollouts: every condition from the same initial states.

    Args:
        name: Of the panel; a folder has it too.
        first_seed: Seed of the first rollout of each condition; the others follow. Collection never uses seeds from
            10^9 on.
        count: Rollouts of each condition.
        conditions: What is made worse in each; settings of `sim.Perturbation` by name of the condition.
        help: `operator`: the simulated operator of the task may take over, which gives interventions on matched
            rollouts; `none`: nobody does.
        horizon_s: Longest rollout, at most the contract's; None: that one.
        metric: Name of the metric that the panel is for; None: whatever the contract has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    description: Text
    first_seed: Annotated[int, Field(ge=1_000_000_000, strict=True)]
    count: Count
    conditions: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    help: Literal["none", "operator"] = "none"
    horizon_s: Positive | None = None
    metric: Name | None = None

    @property
    def rollouts(self) -> list[RolloutKey]:
        """All of them, condition by condition."""
        seeds = range(self.first_seed, self.first_seed + self.count)
        return [RolloutKey(condition, seed) for condition in self.conditions for seed in seeds]

    @property
    def sha256(self) -> str:
        """Over the content but for the description; equal panels have equal hashes."""
        content = json.dumps(self.model_dump(mode="json", exclude={"description"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def perturbation(self, condition: str) -> Perturbation:
        """Of one condition.

        Raises:
            DaggerError: If its settings are none.
        """
        try:
            return Perturbation(**self.conditions[condition])
        except TypeError as error:
            valid = ", ".join(item.name for item in fields(Perturbation))
            raise DaggerError(f"conditions.{condition}: expected only {valid}; {error}") from error

    def ticks(self, contract: Contract) -> int:
        """Longest rollout, in control ticks."""
        if self.horizon_s is None:
            return contract.horizon_ticks
        return max(1, round(self.horizon_s * contract.timing.control_rate_hz))

    def check(self, contract: Contract) -> None:
        """Refuses a contract that the panel is not for.

        Raises:
            DaggerError: If its metric is another one, or its rollouts end before the panel's.
        """
        if self.horizon_s is not None and self.horizon_s > contract.task.horizon_s:
            raise DaggerError(
                f"panel {self.name}: horizon_s: expected at most the {contract.task.horizon_s:g} s of contract "
                f"{contract.name}, got {self.horizon_s:g}"
            )
        if self.metric is not None and self.metric != contract.task.metric.name:
            raise DaggerError(
                f"panel {self.name}: it is for metric {self.metric}; contract {contract.name} has "
                f"{contract.task.metric.name}"
            )


@dataclass(frozen=True)
class RolloutResult:
    """One rollout of a policy.

    Args:
        condition: Of the panel.
        seed: Of everything random in it.
        success: The contract's criterion held.
        failure: Failure label of the contract; empty with success.
        metric: The contract's.
        ticks: Control ticks.
        driven: Share of them that the policy drove.
        clamped: Share of them at which the supervisor limited the command.
        doubt: Mean of the policy's doubt; None: it has none.
        expert_ticks: Ticks that the operator drove.
        takeovers: Times that the operator took control.
        not_finite: First tick at which the policy answered finite observations with NaN or infinity; -1: none.
    """

    condition: str
    seed: int
    success: bool
    failure: str
    metric: float
    ticks: int
    driven: float
    clamped: float
    doubt: float | None
    expert_ticks: int
    takeovers: int
    not_finite: int = -1

    @property
    def key(self) -> RolloutKey:
        """Which one."""
        return RolloutKey(self.condition, self.seed)


@dataclass(frozen=True)
class PanelResult:
    """How one policy did.

    Args:
        panel: Name of the panel.
        panel_sha256: Hash of the panel.
        contract_sha256: Hash of the contract.
        policy: Name of the policy.
        policy_sha256: Hash of its weights.
        metric_name: The contract's metric.
        rollouts: In the order of the panel.
    """

    panel: str
    panel_sha256: str
    contract_sha256: str
    policy: str
    policy_sha256: str
    metric_name: str
    rollouts: tuple[RolloutResult, ...]
    schema: str = _SCHEMA

    @property
    def success_rate(self) -> float:
        """Share of rollouts that met the contract's criterion."""
        return float(self.successes.mean())

    @property
    def metric_mean(self) -> float:
        """Mean of the contract's metric."""
        return float(self.metrics.mean())

    @property
    def successes(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(R,) of each rollout."""
        return np.array([r.success for r in self.rollouts])

    @property
    def metrics(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(R,) of each rollout, in the metric's unit."""
        return np.array([r.metric for r in self.rollouts], dtype=float)

    @property
    def interventions(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(R,) share of each rollout that the operator drove."""
        return np.array([r.expert_ticks / r.ticks for r in self.rollouts])

    def summary(self) -> dict[str, Any]:
        """What stands in result.json; the interval is Wilson's, at 95 %."""
        by_condition = {
            name: [r.success for r in self.rollouts if r.condition == name]
            for name in dict.fromkeys(r.condition for r in self.rollouts)
        }
        return {
            "name": self.panel,
            "sha256": self.panel_sha256,
            "n": len(self.rollouts),
            "success_rate": self.success_rate,
            "success_ci95": list(wilson(int(self.successes.sum()), len(self.rollouts))),
            "metric": {"name": self.metric_name, "mean": self.metric_mean},
            "intervention_rate": float(self.interventions.mean()),
            "takeovers": sum(r.takeovers for r in self.rollouts),
            "failures": dict(sorted(Counter(r.failure for r in self.rollouts if not r.success).items())),
            "conditions": {
                name: {"n": len(s), "success_rate": sum(s) / len(s), "success_ci95": list(wilson(sum(s), len(s)))}
                for name, s in by_condition.items()
            },
        }

    def check(self, panel: Panel, contract: Contract, folder: Path) -> None:
        """Refuses a result that is not of a panel under a contract.

        Args:
            panel: It should be of.
            contract: It should be of.
            folder: Where it was read, for the message.

        Raises:
            DaggerError: If it is of others.
        """
        if (self.panel_sha256, self.contract_sha256) != (panel.sha256, contract.sha256):
            raise DaggerError(
                f"{folder}: expected rollouts of panel {panel.name} ({panel.sha256[:12]}) under contract "
                f"{contract.name} ({contract.sha256[:12]}), found {self.panel} ({self.panel_sha256[:12]}) under "
                f"{self.contract_sha256[:12]}; take another folder, or the panel and contract as they were"
            )
        if [r.key for r in self.rollouts] != panel.rollouts:
            raise DaggerError(f"{folder / ROLLOUTS}: expected the {len(panel.rollouts)} rollouts of panel {panel.name}")

    def check_finite(self) -> None:
        """Refuses a policy that answered with NaN: what it did then is the supervisor's stop, not the policy.

        Raises:
            NotFiniteError: Names rollout and tick.
        """
        bad = [r for r in self.rollouts if r.not_finite >= 0]
        if bad:
            raise NotFiniteError(
                f"{self.policy}: expected finite actions, got NaN or infinity in {len(bad)} of {len(self.rollouts)} "
                f"rollouts of panel {self.panel}, first at tick {bad[0].not_finite} of {bad[0].key}; such a policy is "
                "not judged. Look at its training and at its inputs"
            )

    def to_json(self) -> bytes:
        """The text of `rollouts.json`."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @staticmethod
    def read(folder: Path) -> PanelResult:
        """Reads what `PanelRunner.run` left in a folder.

        Raises:
            DaggerError: If it is missing or not of this format.
        """
        path = folder / ROLLOUTS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rollouts = tuple(RolloutResult(**r) for r in content.pop("rollouts"))
            return PanelResult(**content, rollouts=rollouts)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DaggerError(f"{path}: expected the rollouts of a panel ({_SCHEMA}); {error}") from error


def same_rollouts(results: Sequence[PanelResult]) -> None:
    """Refuses to compare what was not measured alike.

    Args:
        results: Of the policies to compare.

    Raises:
        DaggerError: If contract, panel or rollouts differ.
    """
    first, *others = results
    for other in others:
        said: Mapping[str, tuple[object, object]] = {
            "contract": (first.contract_sha256[:12], other.contract_sha256[:12]),
            f"panel ({first.panel}, {other.panel})": (first.panel_sha256[:12], other.panel_sha256[:12]),
            "rollouts": ([str(r.key) for r in first.rollouts], [str(r.key) for r in other.rollouts]),
        }
        for name, (here, there) in said.items():
            if here != there:
                raise DaggerError(
                    f"compare: expected the same {name} for {first.policy} and {other.policy}, got {here} and {there}; "
                    "evaluate both on one panel"
                )


def load_panel(path: str | Path) -> Panel:
    """Reads a panel from YAML.

    Raises:
        DaggerError: If it cannot be read or is not valid; names every key.
    """
    try:
        panel = Panel.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
        for condition in panel.conditions:
            panel.perturbation(condition)
    except OSError as error:
        raise DaggerError(f"{path}: expected a panel (YAML) here; {error.strerror}") from error
    except ValidationError as error:
        raise DaggerError("\n".join([f"{path}: not a panel", *(f"  {p}" for p in problems_of(error))])) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DaggerError(f"{path}: expected a panel (YAML); {error}") from error
    except DaggerError as error:
        raise DaggerError(f"{path}: {error}") from error
    return panel
