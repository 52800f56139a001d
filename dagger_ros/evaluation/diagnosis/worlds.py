"""Where a rollout is run again: its plant, with what belongs to a cause taken out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Any

from dagger_ros.contract import Contract
from dagger_ros.sim import Perturbation

__all__ = ["REMOVABLE", "Cause", "World"]

_NOISE = ("observation_noise", "observation_bias")
_CONTROL = ("actuator_lag_s", "actuator_gain", "actuator_limit", "friction", "payload_kg")
_TIMING = ("observation_delay_s", "observation_drop", "action_delay_s")


class Cause(str, enum.Enum):
    """Why a rollout failed."""

    PERCEPTION = "perception"
    STATE_ESTIMATION = "state_estimation"
    PLANNING = "planning"
    CONTROL = "control"
    TIMING = "timing"
    DATA_COVERAGE = "data_coverage"
    EVALUATION = "evaluation"


REMOVABLE = (Cause.PERCEPTION, Cause.STATE_ESTIMATION, Cause.CONTROL, Cause.TIMING)


@dataclass(frozen=True)
class World:
    """What a plant is made of.

    Args:
        contract: Of the plant; that of the policy may have other noise.
        perturbation: What is made worse.
    """

    contract: Contract
    perturbation: Perturbation

    def without(self, *causes: Cause) -> World:
        """The same without what these causes stand for; of the contract's own noise and lag nothing is left either."""
        world = self
        for cause in causes:
            world = _WITHOUT[cause](world)
        return world

    def has(self, cause: Cause) -> bool:
        """Whether there is anything of a cause that can be removed."""
        return self.without(cause) != self

    def perturbs(self, cause: Cause) -> bool:
        """Whether some of it is a perturbation, not the contract's own."""
        return self.without(cause).perturbation != self.perturbation

    @property
    def plain(self) -> World:
        """As the contract describes it."""
        return World(self.contract, Perturbation(start_spread=self.perturbation.start_spread))

    @property
    def key(self) -> tuple[str, Perturbation]:
        """Equal for equal plants of one contract."""
        simulation = self.contract.simulation
        return simulation.model_dump_json() if simulation else "", self.perturbation


def _without_perception(world: World) -> World:
    """What sees the world shows it as it is: where a privileged stream shows the same thing, exactly that."""
    contract = world.contract
    true = {n: twin for n in contract.perception if (twin := _twin(contract, n)) is not None}
    world = _quiet(world, set(contract.perception), true)
    return replace(world, perturbation=_default(world.perturbation, ("camera_shift",)))


def _without_state_estimation(world: World) -> World:
    seen = {n for n, s in world.contract.streams.items() if not s.privileged}
    return _quiet(world, seen - set(world.contract.perception), {})


def _without_control(world: World) -> World:
    world = _simulated(world, actuator_lag_s=0.0, actuator_noise={})
    return replace(world, perturbation=_default(world.perturbation, _CONTROL))


def _without_timing(world: World) -> World:
    return replace(world, perturbation=_default(world.perturbation, _TIMING))


_WITHOUT = {
    Cause.PERCEPTION: _without_perception,
    Cause.STATE_ESTIMATION: _without_state_estimation,
    Cause.CONTROL: _without_control,
    Cause.TIMING: _without_timing,
}


def _quiet(world: World, streams: set[str], true: dict[str, str]) -> World:
    """Takes noise and bias from some streams; `true` names privileged ones that some are read in place of."""
    contract, perturbation = world.contract, world.perturbation
    simulation = contract.simulation
    assert simulation is not None
    noise = {n: v for n, v in simulation.observation_noise.items() if n not in streams}
    sources = simulation.sources | {n: simulation.sources[twin] for n, twin in true.items()}
    world = _simulated(world, observation_noise=noise, sources=sources)
    if not any(getattr(perturbation, name) for name in _NOISE):
        return world
    chosen = perturbation.observation_streams or [n for n, s in contract.streams.items() if not s.privileged]
    left = tuple(n for n in chosen if n not in streams)
    if len(left) == len(chosen):
        return world
    if left:
        return replace(world, perturbation=replace(perturbation, observation_streams=left))
    return replace(world, perturbation=_default(perturbation, (*_NOISE, "observation_streams")))


def _twin(contract: Contract, name: str) -> str | None:
    """The privileged stream that shows what another one shows."""
    stream = contract.streams[name]
    for other, s in contract.streams.items():
        if s.privileged and (s.type, s.select, s.unit, s.frame) == (
            stream.type,
            stream.select,
            stream.unit,
            stream.frame,
        ):
            return other
    return None


def _simulated(world: World, **update: Any) -> World:
    contract = world.contract
    assert contract.simulation is not None
    simulation = contract.simulation.model_copy(update=update)
    return replace(world, contract=contract.model_copy(update={"simulation": simulation}))


def _default(perturbation: Perturbation, names: tuple[str, ...]) -> Perturbation:
    nothing = Perturbation()
    return replace(perturbation, **{name: getattr(nothing, name) for name in names})
