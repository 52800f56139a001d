"""Runs a rollout again: in another world, with other tiny noise, or with the expert in the policy's place at times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, RowLayout, Scores
from dagger_ros.evaluation.diagnosis.usual import wrong_decisions
from dagger_ros.evaluation.diagnosis.worlds import World
from dagger_ros.evaluation.panel import RolloutKey, RolloutResult
from dagger_ros.evaluation.runner import run_rollout
from dagger_ros.expert import Expert
from dagger_ros.policy import Checkpoint, Policy
from dagger_ros.sim import MujocoPlant, load_plant

__all__ = ["JITTER", "REPEATS", "Laboratory", "Rerun", "Share", "When"]

Vector = np.ndarray[Any, np.dtype[np.float64]]

Rerun = tuple[RolloutResult, np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.float32]]]
"""As `run_rollout` gives it."""

When = Callable[[int, Scores], bool]
"""Whether the expert acts in the policy's place, by tick of the rollout and the policy's scores."""

# What most of so many reruns say counts; the first is exact.
REPEATS = 3
# Noise on what the policy sees in the others, in resolutions of each stream: what it does should not hang on what its
# sensors cannot tell apart; where it does, one rerun says little. It is so small that it makes nothing unfamiliar.
JITTER = 0.3
_JITTER_STREAM = 5


@dataclass(frozen=True)
class Share:
    """Of how many reruns how many succeeded.

    Args:
        healed: Those that succeeded.
        of: All.
        ticks: Mean length of those that succeeded; 0: none did.
        wrong: Mean share of wrong decisions in those that succeeded; 0: none did.
        metric: Mean of the contract's metric over all of them.
    """

    healed: int
    of: int
    ticks: float
    wrong: float
    metric: float

    @property
    def most(self) -> bool:
        """More than half."""
        return 2 * self.healed > self.of

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.healed / self.of if self.of else 0.0

    def __add__(self, other: Share) -> Share:
        healed, of = self.healed + other.healed, self.of + other.of

        def mean(name: str, mine: int, theirs: int) -> float:
            total = mine * getattr(self, name) + theirs * getattr(other, name)
            return float(total / max(mine + theirs, 1))

        by_healed = (mean(name, self.healed, other.healed) for name in ("ticks", "wrong"))
        return Share(healed, of, next(by_healed), next(by_healed), mean("metric", self.of, other.of))

    def __str__(self) -> str:
        return f"{self.healed} of {self.of}"


class Laboratory:
    """Reruns of one policy under one contract.

    Args:
        contract: Of the policy.
        path: Its file.
        policy: What it is, and itself.
        help: As of the panel.
    """

    def __init__(
        self, contract: Contract, path: Path, policy: tuple[Checkpoint, Policy], *, help: str = "none"
    ) -> None:
        self.contract = contract
        self._path, self._policy, self._help = path, policy, help
        self._plants: dict[Any, MujocoPlant] = {}
        self._resolution = RowLayout(contract).resolution()

    def plant(self, world: World) -> MujocoPlant:
        """Of a world; kept."""
        if world.key not in self._plants:
            self._plants[world.key] = load_plant(world.contract, self._path, world.perturbation)
        return self._plants[world.key]

    def run(
        self,
        key: RolloutKey,
        world: World,
        *,
        ticks: int,
        when: When | None = None,
        repeat: int = 0,
        jitter: float = JITTER,
    ) -> Rerun:
        """One rollout.

        Args:
            key: Which one.
            world: Where.
            ticks: Longest.
            when: The expert acts in the policy's place; None: never.
            repeat: Which noise the policy sees; 0: none.
            jitter: Its standard deviation, in resolutions.

        Returns:
            How it ended, (T,) rows, and (T + 1, S) scenes.
        """
        plant = self.plant(world)
        about, network = self._policy
        noise = None
        if repeat:
            noise = np.random.default_rng([key.seed, _JITTER_STREAM, repeat]), jitter * self._resolution
        plant.time_ns = plant.tick = 0  # as in a panel, so that a rerun of the same is the same
        stand_in = _StandIn(network, plant, when, noise)
        return run_rollout(self.contract, plant, (about, stand_in), key, ticks=ticks, help=self._help)

    def repeated(
        self, key: RolloutKey, world: World, *, ticks: int, when: When | None = None, every: bool = False
    ) -> Share:
        """Reruns until most of `REPEATS` agree, or `every` one of them; only one, if the exact one fails."""
        share = self.one(key, world, ticks=ticks, when=when)
        most = REPEATS // 2 + 1
        while share.healed and share.of < REPEATS and (every or max(share.healed, share.of - share.healed) < most):
            share += self.one(key, world, ticks=ticks, when=when, repeat=share.of)
        return share

    def one(
        self,
        key: RolloutKey,
        world: World,
        *,
        ticks: int,
        when: When | None = None,
        repeat: int = 0,
        jitter: float = JITTER,
    ) -> Share:
        """One rerun; arguments as of `run`."""
        result, rows, _ = self.run(key, world, ticks=ticks, when=when, repeat=repeat, jitter=jitter)
        if not result.success:
            return Share(0, 1, 0.0, 0.0, result.metric)
        wrong = wrong_decisions(rows, self.contract, self.plant(world).task)
        return Share(1, 1, float(result.ticks), float(wrong.mean()), result.metric)


class _StandIn:
    """A policy in whose place the expert acts at times. The expert sees the true state."""

    def __init__(
        self,
        policy: Policy,
        plant: MujocoPlant,
        when: When | None,
        noise: tuple[np.random.Generator, Vector] | None,
    ) -> None:
        self._policy, self._plant, self._when, self._noise = policy, plant, when, noise
        self._expert: Expert = plant.task.expert
        self._tick = 0

    def start_episode(self) -> None:
        self._policy.start_episode()
        self._tick = 0

    def act(self, observation: Vector, out: Vector, stamp_ns: int) -> Scores:
        if self._noise is not None:
            rng, scale = self._noise
            observation = observation + scale * rng.standard_normal(len(observation))
        scores = self._policy.act(observation, out, stamp_ns)
        if self._when is not None and self._when(self._tick, scores):
            self._expert.act(self._plant.truth(), out)
        self._tick += 1
        return scores
