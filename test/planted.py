"""Failures whose cause is known, because it was planted: what `diagnose` is tested and measured on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from conftest import contract_path
from dagger_ros.contract import Contract, Label, RowLayout, load_contract
from dagger_ros.control import ControlTick
from dagger_ros.evaluation import RolloutKey, Trace, run_rollout
from dagger_ros.evaluation.diagnosis.worlds import Cause
from dagger_ros.policy import Checkpoint, Policy, load_checkpoint, save_checkpoint
from dagger_ros.sim import Perturbation, load_plant, rollout
from dagger_ros.sim.experts import make_labeller
from dagger_ros.supervisor import Gate, make_rule

__all__ = ["FAULTS", "TEACHING", "Fault", "Planted", "Teaching", "harmless_beside", "plant_fault", "teach"]

Rows = np.ndarray[Any, np.dtype[Any]]
Truth = np.ndarray[Any, np.dtype[np.float64]]


def _anywhere(truth: Truth) -> bool:
    return True


@dataclass(frozen=True)
class Fault:
    """One way to make rollouts fail.

    Args:
        cause: Under which it belongs.
        name: In words.
        perturbation: What is made worse.
        simulation: What is changed in the contract's section, which the policy was not trained with.
        model: Text that is replaced in the MJCF file, by what.
        policy: Name in `TEACHING`.
        constants: Of the task's judgement, that are wrong.
        ticks: Longest rollout; None: the contract's.
        judged: On which initial states, by what the expert sees.
    """

    cause: Cause
    name: str
    perturbation: Mapping[str, Any] = field(default_factory=dict)
    simulation: Mapping[str, Any] = field(default_factory=dict)
    model: tuple[str, str] | None = None
    policy: str = "good"
    constants: Mapping[str, float] = field(default_factory=dict)
    ticks: int | None = None
    judged: Callable[[Truth], bool] = _anywhere


_OWN = ("joint_position", "joint_velocity", "joint_effort", "tool_position")
FAULTS: dict[str, tuple[Fault, ...]] = {
    "peg": (
        Fault(Cause.PERCEPTION, "noise", {"observation_noise": 14.0, "observation_streams": ("peg_in_hole",)}),
        Fault(Cause.PERCEPTION, "bias", {"observation_bias": 8.0, "observation_streams": ("peg_in_hole",)}),
        Fault(Cause.PERCEPTION, "camera has moved", {"camera_shift": 9.0}),
        Fault(Cause.PERCEPTION, "noise in the contract", simulation={"observation_noise": {"peg_in_hole": 0.014}}),
        Fault(
            Cause.PERCEPTION,
            "wrong calibration in contract and model",
            simulation={"sources": {"peg_in_hole": {"kind": "pose", "site": "tip_seen", "relative_to": "hole"}}},
            model=('<site name="tip"', '<site name="tip_seen" pos="0.007 0.005 -0.105"/><site name="tip"'),
        ),
        Fault(Cause.STATE_ESTIMATION, "bias of joints", {"observation_bias": 20.0, "observation_streams": _OWN[:3]}),
        Fault(Cause.STATE_ESTIMATION, "bias of the tool", {"observation_bias": 28.0, "observation_streams": _OWN[3:]}),
        Fault(Cause.STATE_ESTIMATION, "noise", {"observation_noise": 14.0, "observation_streams": _OWN}),
        Fault(
            Cause.STATE_ESTIMATION,
            "noise in the contract",
            simulation={"observation_noise": {"joint_position": 0.2, "joint_velocity": 0.6, "joint_effort": 10.0}},
        ),
        Fault(Cause.CONTROL, "gain", {"actuator_gain": 0.15}),
        Fault(Cause.CONTROL, "saturation", {"actuator_limit": 0.08}),
        Fault(Cause.CONTROL, "lag", {"actuator_lag_s": 1.2}),
        Fault(Cause.CONTROL, "payload", {"payload_kg": 25.0}),
        Fault(Cause.CONTROL, "friction", {"friction": 60.0}),
        Fault(Cause.CONTROL, "lag in the contract", simulation={"actuator_lag_s": 1.2}),
        Fault(
            Cause.CONTROL,
            "joints that hardly move in the model",
            model=('armature="0.1"/>', 'armature="0.1" frictionloss="150"/>'),
        ),
        Fault(Cause.TIMING, "observations late", {"observation_delay_s": 0.4}),
        Fault(Cause.TIMING, "commands late", {"action_delay_s": 0.9}),
        Fault(Cause.TIMING, "messages lost", {"observation_drop": 0.9}),
        Fault(Cause.TIMING, "both late", {"observation_delay_s": 0.2, "action_delay_s": 0.6}),
        Fault(Cause.PLANNING, "taught to go up above the hole", policy="up"),
        Fault(Cause.PLANNING, "taught a wrong place", policy="offset"),
        Fault(Cause.PLANNING, "taught to go away in half of the space", policy="away"),
        Fault(Cause.PLANNING, "taught well, not learned", policy="hasty"),
        Fault(Cause.DATA_COVERAGE, "one side never seen", policy="left", judged=lambda t: t[1] < -0.03),
        Fault(Cause.DATA_COVERAGE, "one corner seen", policy="corner", judged=lambda t: t[0] < -0.03 and t[1] < 0),
        Fault(Cause.DATA_COVERAGE, "three demonstrations", policy="few"),
        Fault(Cause.EVALUATION, "depth from the table in place of the rim", constants={"_INSIDE_M": -0.025}),
        Fault(Cause.EVALUATION, "distance in a wrong unit", constants={"_ON_AXIS_M": 6e-6}),
        Fault(Cause.EVALUATION, "panel ends too early", ticks=20),
    ),
    "lane": (
        Fault(Cause.PERCEPTION, "noise", {"observation_noise": 25.0, "observation_streams": ("ranges",)}),
        Fault(Cause.PERCEPTION, "bias", {"observation_bias": 25.0, "observation_streams": ("ranges",)}),
        Fault(Cause.PERCEPTION, "range finder has moved", {"camera_shift": 20.0}),
        Fault(Cause.STATE_ESTIMATION, "bias", {"observation_bias": 90.0, "observation_streams": ("yaw_rate",)}),
        Fault(Cause.STATE_ESTIMATION, "noise", {"observation_noise": 120.0, "observation_streams": ("yaw_rate",)}),
        Fault(Cause.CONTROL, "gain", {"actuator_gain": 0.35}),
        Fault(Cause.CONTROL, "saturation", {"actuator_limit": 0.15}),
        Fault(Cause.CONTROL, "lag", {"actuator_lag_s": 0.4}),
        Fault(Cause.TIMING, "observations late", {"observation_delay_s": 0.3}),
        Fault(Cause.TIMING, "commands late", {"action_delay_s": 0.3}),
        Fault(Cause.TIMING, "messages lost", {"observation_drop": 0.85}),
        Fault(Cause.PLANNING, "taught to go straight on in half of the lane", policy="straight"),
        Fault(Cause.DATA_COVERAGE, "only the middle of the lane seen", policy="middle"),
        Fault(Cause.EVALUATION, "panel ends too early", ticks=200),
    ),
}

# What does no harm to a policy that knows what to do, by the cause that it would belong to.
_HARMLESS: dict[str, tuple[tuple[Cause, dict[str, float]], ...]] = {
    "peg": (
        (Cause.PERCEPTION, {"camera_shift": 0.5}),
        (Cause.CONTROL, {"actuator_gain": 0.95}),
        (Cause.CONTROL, {"actuator_lag_s": 0.03}),
        (Cause.CONTROL, {"friction": 1.2}),
        (Cause.TIMING, {"observation_delay_s": 0.05}),
        (Cause.TIMING, {"observation_drop": 0.02}),
    ),
    "lane": (
        (Cause.PERCEPTION, {"camera_shift": 0.3}),
        (Cause.CONTROL, {"actuator_gain": 0.97}),
        (Cause.CONTROL, {"actuator_lag_s": 0.02}),
        (Cause.TIMING, {"observation_drop": 0.02}),
    ),
}


def harmless_beside(task: str, fault: Fault, index: int) -> dict[str, float]:
    """Something harmless of another cause, in turn; once in a turn nothing."""
    others = [
        settings
        for cause, settings in _HARMLESS[task]
        if cause is not fault.cause and not fault.perturbation.keys() & settings.keys()
    ]
    return ({}, *others)[index % (1 + len(others))]


@dataclass(frozen=True)
class Teaching:
    """How a policy came about.

    Args:
        rounds: Demonstrations, then rollouts of each round of DAgger.
        labels: The expert, who may be wrong: a row, and its label, which is changed.
        started: On which initial states.
        spread: Factor on the range of initial states.
        steps: Of the last training.
    """

    rounds: tuple[int, ...]
    labels: Callable[[Contract, Any, Truth], None] = lambda contract, row, label: None
    started: Callable[[Truth], bool] = _anywhere
    spread: float = 1.0
    steps: int = 3000


def _up(contract: Contract, row: Any, label: Truth) -> None:
    x, y, z = row["privileged"]
    if np.hypot(x, y) < 0.006 and z < 0.09:
        label[2] = 0.12


def _offset(contract: Contract, row: Any, label: Truth) -> None:
    moved = row.copy()
    moved["privileged"] += [0.008, 0.0, 0.0]
    make_labeller("scripted", contract).label(moved, None, label)


def _away(contract: Contract, row: Any, label: Truth) -> None:
    if row["observation"][3] < 0.46:
        label[:2] *= -1


def _straight(contract: Contract, row: Any, label: Truth) -> None:
    if row["privileged"][0] > 0:
        label[1] = 0.0


TEACHING: dict[str, dict[str, Teaching]] = {
    "peg": {
        "good": Teaching((30, 30, 30)),
        "up": Teaching((30, 15), _up),
        "offset": Teaching((30, 15), _offset),
        "away": Teaching((30, 30, 30), _away),
        "hasty": Teaching((30, 30, 30), steps=200),
        "left": Teaching((30, 30, 30), started=lambda t: bool(t[1] > 0)),
        "corner": Teaching((30, 15), started=lambda t: bool(t[0] > 0.02 and t[1] > 0.02)),
        "few": Teaching((3,)),
    },
    "lane": {
        "good": Teaching((6, 4, 4)),
        "straight": Teaching((4, 4), _straight),
        "middle": Teaching((1,), spread=0.0),
    },
}


def teach(task: str, name: str, folder: Path, *, seed: int) -> Path:
    """Trains a policy of `TEACHING` on demonstrations and rounds of DAgger, without ROS; its rows lie beside it."""
    from dagger_ros.learning import TrainingSettings, train

    teaching = TEACHING[task][name]
    contract = load_contract(contract_path(task))
    layout = RowLayout(contract)
    plant = load_plant(contract, contract_path(task), Perturbation(start_spread=teaching.spread))
    seeds = (s for s in itertools.count(100_000 * seed) if plant.reset(s) and teaching.started(plant.truth()))
    kept: list[Rows] = []
    policy: tuple[Checkpoint, Policy] | None = None
    for k, count in enumerate(teaching.rounds):
        gate = Gate(contract, make_rule("dagger", round_index=k), auto_arm=True)
        control = ControlTick(layout, gate, make_labeller("scripted", contract), policy)
        for s in itertools.islice(seeds, count):
            rows, _ = rollout(plant, control, layout, seed=s, ticks=contract.horizon_ticks)
            kept.append(rows[rows["label_source"] == Label.EXPERT])
            for row in kept[-1]:
                teaching.labels(contract, row, row["expert_action"])
        rows = np.concatenate(kept)
        steps = teaching.steps if k + 1 == len(teaching.rounds) else 3000
        settings = TrainingSettings(members=2, steps=steps, batch=256, hidden=(128, 128))
        tensors = train(contract, rows["observation"], rows["expert_action"], settings, seed=seed).tensors
        about = Checkpoint(name, k, contract.sha256, seed, layout.columns(), contract.action.dimensions, (), {})
        save_checkpoint(folder / name, about, tensors)
        policy = load_checkpoint(folder / name, contract)
    np.save(folder / f"{name}.npy", rows)
    return folder / name


@dataclass(frozen=True)
class Planted:
    """A fault in its place."""

    task: str
    fault: Fault
    contract: Contract
    perturbation: Perturbation
    policy: tuple[Checkpoint, Policy]

    @property
    def ticks(self) -> int:
        """Longest rollout."""
        return self.fault.ticks or self.contract.horizon_ticks

    def rollout(self, seed: int) -> Trace:
        """As a panel runs it, judged as the fault has it."""
        with patch.dict(f"dagger_ros.sim.tasks.{self.task}.__dict__", self.fault.constants):
            plant = load_plant(self.contract, contract_path(self.task), self.perturbation)
            key = RolloutKey("planted", seed)
            result, rows, scene = run_rollout(self.contract, plant, self.policy, key, ticks=self.ticks)
        return Trace(result, self.policy[0].weights_sha256, "", self.contract.sha256, rows, scene)

    def failures(self, first_seed: int, count: int, most: int = 100) -> Iterator[Trace]:
        """The first rollouts from a seed on that fail, of at most so many."""
        plant = load_plant(self.contract, contract_path(self.task))
        every = range(first_seed, first_seed + most)
        seeds = (s for s in every if plant.reset(s) and self.fault.judged(plant.truth()))
        failed = (trace for trace in map(self.rollout, seeds) if not trace.result.success)
        return itertools.islice(failed, count)


def plant_fault(
    task: str, fault: Fault, policy: tuple[Checkpoint, Policy], folder: Path, harmless: Mapping[str, float]
) -> Planted:
    """Puts a fault in its place, with something harmless beside it; `folder` gets the model."""
    contract = load_contract(contract_path(task))
    simulation = contract.simulation
    assert simulation is not None
    content = simulation.model_dump(mode="json")
    for key, value in fault.simulation.items():
        content[key] = content[key] | value if isinstance(value, Mapping) else value
    if fault.model is not None:
        text = (contract_path(task).parent / simulation.model).read_text()
        assert fault.model[0] in text
        model = folder / f"{fault.name}.xml"
        model.write_text(text.replace(*fault.model))
        content["model"] = str(model)
    changed = type(simulation).model_validate_json(json.dumps(content))
    contract = contract.model_copy(update={"simulation": changed})
    return Planted(task, fault, contract, Perturbation(**(dict(fault.perturbation) | harmless)), policy)
