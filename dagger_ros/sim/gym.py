"""A contract as a Gymnasium environment, for learners from outside: the plant under the same supervisor as a rollout.

Needs the package `gymnasium`, 0.29 or newer (`pip install gymnasium`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dagger_ros.contract import DaggerError, Goal, RowLayout, Scores, load_contract
from dagger_ros.control import ControlTick, NewestStreams
from dagger_ros.policy import Checkpoint
from dagger_ros.sim.experts import make_labeller
from dagger_ros.sim.mujoco_plant import load_plant
from dagger_ros.sim.perturbation import Perturbation
from dagger_ros.sim.plant import TaskStatus, Vector
from dagger_ros.sim.rollout import observe
from dagger_ros.supervisor import Gate, make_rule

try:
    import gymnasium
except ImportError as error:
    raise DaggerError("expected the package gymnasium, 0.29 or newer; pip install gymnasium") from error

__all__ = ["ContractEnv"]

# Seeds of panels begin here: an environment that draws its own seeds never draws one of those.
_SEEDS = 1_000_000_000


class ContractEnv(gymnasium.Env):  # type: ignore[misc]  # of any type, see pyproject.toml
    """One episode is one rollout: with equal seeds and actions it is that of a panel, bit for bit.

    An observation is what a policy sees: the streams of the contract that are not privileged, in its order and
    units. NaN stands where nothing was received yet, which only a perturbation that delays or drops brings about.
    An action is what a policy proposes; the supervisor limits it, or stops the robot. Actions of type float64 are
    not rounded.

    The rewards of an episode add up to the contract's metric, with its sign changed where less is better. An episode
    is truncated when it ends at the contract's horizon without success; any other end terminates it.

    `info` holds `success`, `failure` (the contract's label, empty while there is none), `metric` and `progress` of
    the task, `expert_action` (A,) float64, what the scripted expert would do for the observation that is returned
    beside it, and `executed_action` (A,) float64, what the supervisor let through; NaN: nothing.

    Args:
        contract: The task contract, a YAML file with a section `simulation`.
        perturbation: What is made worse; None: nothing.
        dtype: Of observations and of the spaces.

    Attributes:
        expert_action: (A,) float64, as in `info`; a new array at each step.

    Raises:
        DaggerError: If the contract cannot be simulated.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        contract: str | Path,
        *,
        perturbation: Perturbation | None = None,
        dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        self.contract = load_contract(contract)
        self._plant = load_plant(self.contract, contract, perturbation)
        self._layout = layout = RowLayout(self.contract)
        self._labeller = make_labeller("scripted", self.contract)
        self._asked = _Asked(np.full(layout.action_size, np.nan))
        names = layout.columns(), self.contract.action.dimensions
        about = Checkpoint("gymnasium", -1, self.contract.sha256, -1, *names, (), {})
        # As a panel judges: the policy drives, and nobody takes over.
        gate = Gate(self.contract, make_rule("hg", round_index=1), auto_arm=True, needs_expert=False)
        self._control = ControlTick(layout, gate, None, (about, self._asked))
        self._sign = 1.0 if self.contract.task.metric.goal is Goal.MAXIMIZE else -1.0
        self._streams = NewestStreams(layout)
        self._empty, self._rows = layout.new(1), layout.new(1)
        self._row = self._rows[0]  # a view
        self._ticks, self._metric, self._over = 0, 0.0, True
        self.expert_action = self._asked.action.copy()
        bound = np.full(layout.observation_size, np.inf, dtype)
        self.observation_space = gymnasium.spaces.Box(-bound, bound, dtype=np.dtype(dtype).type)
        lower, upper = np.array([(d.lower, d.upper) for d in self.contract.action.dimensions_], dtype).T
        self.action_space = gymnasium.spaces.Box(lower, upper, dtype=np.dtype(dtype).type)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Vector, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Of the initial state and of all noise; and of the seeds of later episodes that are given none.
            options: There are none.
        """
        super().reset(seed=seed)
        seed = int(self.np_random.integers(_SEEDS)) if seed is None else seed
        status = self._plant.reset(seed)
        self._control.start_episode(seed)
        self._labeller.start_episode(seed)
        self._streams.clear()
        self._ticks, self._metric, self._over = 0, 0.0, False
        return self._observe(), self._info(status)

    def step(self, action: Any) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """Moves on by one control period.

        Args:
            action: (A,) in the contract's order and units.

        Raises:
            DaggerError: If it has another shape, or no episode goes on.
        """
        action, asked = np.asarray(action, np.float64), self._asked.action
        if action.shape != asked.shape:
            raise DaggerError(f"step: expected an action of shape {asked.shape}, got {action.shape}")
        if self._over:
            raise DaggerError("step: expected an episode that goes on, got one that is over; call reset() first")
        asked[:] = action
        self._control(self._row, None)
        executed = self._row["executed_action"].copy()
        status = self._plant.step(executed if np.isfinite(executed).all() else None)
        self._ticks += 1
        at_horizon = self._ticks >= self.contract.horizon_ticks
        truncated = at_horizon and not status.success
        self._over = status.done or at_horizon
        reward = self._sign * (status.metric - self._metric)
        self._metric = status.metric
        observation = self._observe()
        return observation, reward, self._over and not truncated, truncated, self._info(status, executed)

    def _observe(self) -> Vector:
        """Fills the row of the next tick."""
        row = self._row
        self._rows[:] = self._empty
        observe(self._plant, self._streams, row)
        self.expert_action = np.full_like(self.expert_action, np.nan)
        self._labeller.label(row, None, self.expert_action)
        observation: Vector = row["observation"].astype(self.observation_space.dtype)
        return observation

    def _info(self, status: TaskStatus, executed: Vector | None = None) -> dict[str, Any]:
        return {
            "success": status.success,
            "failure": status.failure,
            "metric": status.metric,
            "progress": status.progress,
            "expert_action": self.expert_action,
            "executed_action": np.full_like(self.expert_action, np.nan) if executed is None else executed,
        }


@dataclass(frozen=True)
class _Asked:
    """A policy that proposes what `step` was given."""

    action: Vector

    def start_episode(self) -> None:
        pass

    def act(self, observation: Vector, out: Vector, stamp_ns: int) -> Scores:
        out[:] = self.action
        return Scores(doubt=0.0)
