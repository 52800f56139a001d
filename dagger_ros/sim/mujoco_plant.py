"""A MuJoCo model as a plant, under one contract."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dagger_ros.contract import Contract, DaggerError, Interface, RowLayout
from dagger_ros.sim.actuation import make_actuator
from dagger_ros.sim.camera_shift import CameraShift
from dagger_ros.sim.perturbation import Perturbation
from dagger_ros.sim.plant import Sample, TaskStatus, Vector
from dagger_ros.sim.sources import make_source
from dagger_ros.sim.tasks import TASKS, Task

__all__ = ["MujocoPlant", "load_plant"]

# Keeps the draws of sensors and actuators apart from those of the initial state, and those of each perturbation from
# all others: a rollout without one of them meets the same of the others.
_NOISE_STREAM = 3
_DROPS, _SHIFT, _ADDED, _BIAS = (_NOISE_STREAM, 1), (_NOISE_STREAM, 2), (_NOISE_STREAM, 3), (_NOISE_STREAM, 4)


def load_plant(contract: Contract, contract_path: str | Path, perturbation: Perturbation | None = None) -> MujocoPlant:
    """The plant of a contract's `simulation` section.

    Args:
        contract: A loaded contract.
        contract_path: Its file; the model's path is relative to it.
        perturbation: What to make worse; None: nothing.

    Raises:
        DaggerError: If there is no such section, the model is missing or broken, or it lacks a named element.
    """
    simulation = contract.simulation
    if simulation is None:
        raise DaggerError(f"{contract_path}: expected a section 'simulation' to simulate this contract; it has none")
    if simulation.task not in TASKS:
        raise DaggerError(
            f"{contract_path}: simulation.task: expected one of {', '.join(TASKS)}, got {simulation.task}"
        )
    path = (Path(contract_path).parent / simulation.model).resolve()
    if not path.is_file():
        raise DaggerError(f"{contract_path}: simulation.model: expected an MJCF file at {path}; there is none")
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        task = TASKS[simulation.task](contract)
        _check_judgement(contract, task, contract_path)
        task.edit(spec)
        model = spec.compile()
    except ValueError as error:
        raise DaggerError(f"{path}: expected an MJCF model that compiles; {error}") from error
    perturbation = perturbation or Perturbation()
    seen = [name for name, s in contract.streams.items() if not s.privileged]
    unknown = [name for name in perturbation.observation_streams if name not in seen]
    if unknown:
        raise DaggerError(
            f"perturbation observation_streams: expected streams that a policy sees ({', '.join(seen)}), "
            f"got {', '.join(unknown)}"
        )
    plant = MujocoPlant(contract, model, task, path, perturbation)
    try:
        plant.reset(0)
        plant.observe()
    except (AttributeError, ValueError, IndexError) as error:
        raise DaggerError(
            f"{contract_path}: expected sources and a model that give every stream of task '{simulation.task}'; {error}"
        ) from error
    return plant


def _check_judgement(contract: Contract, task: Task, contract_path: str | Path) -> None:
    if contract.task.metric.name != task.metric:
        raise DaggerError(
            f"{contract_path}: task.metric.name: expected {task.metric}, which the simulated task gives; "
            f"found {contract.task.metric.name}"
        )
    missing = [label for label in task.failures if label not in contract.task.failure_labels]
    if missing:
        raise DaggerError(
            f"{contract_path}: task.failure_labels: expected those that the simulated task gives; "
            f"missing {', '.join(missing)}"
        )


class MujocoPlant:
    """Steps the model by control periods. See `Plant`; make it with `load_plant`."""

    def __init__(self, contract: Contract, model: Any, task: Task, path: Path, perturbation: Perturbation) -> None:
        simulation = contract.simulation
        assert simulation is not None
        self.contract, self.model, self.data = contract, model, mujoco.MjData(model)
        self.time_ns, self.tick = 0, 0
        self.task = task
        self._period_ns = contract.timing.period_ns
        self._substeps = round(self._period_ns * 1e-9 / model.opt.timestep)
        if self._substeps < 1 or abs(self._substeps * model.opt.timestep - self._period_ns * 1e-9) > 1e-9:
            raise DaggerError(
                f"{path}: expected a timestep that divides the control period of {self._period_ns * 1e-9:g} s, "
                f"got {model.opt.timestep:g} s"
            )
        self._perturbation = perturbation
        model.geom_friction[:] *= perturbation.friction
        model.dof_damping[:] *= perturbation.friction
        model.dof_frictionloss[:] *= perturbation.friction
        task.attach(model, self.data, path)
        self._actuator = make_actuator(simulation.actuation, contract, model, path)
        if perturbation.payload_kg:
            _load(model, self.data, self._actuator.body, perturbation.payload_kg)
        streams = contract.streams
        self._reads = [make_source(simulation.sources[n], n, s, model, path) for n, s in streams.items()]
        layout = RowLayout(contract)
        self._wire = [layout.wire_dtype(i) for i in range(len(streams))]
        self._values = [np.zeros(len(s.dimensions)) for s in streams.values()]
        chosen = perturbation.observation_streams or [n for n, s in streams.items() if not s.privileged]
        scale = {n: s.resolution if n in chosen else 0.0 for n, s in streams.items()}
        self._noise = [simulation.observation_noise.get(n, 0.0) for n in streams]
        self._added_noise = [perturbation.observation_noise * scale[n] for n in streams]
        self._bias_scale = [perturbation.observation_bias * scale[n] for n in streams]
        self._shift = CameraShift(contract, model, perturbation.camera_shift)
        self._topics = [
            (topic, [i for i, s in enumerate(streams.values()) if s.topic == topic]) for topic in contract.topics
        ]
        self._spared = {s.topic for s in streams.values() if s.privileged}
        self._drop = perturbation.observation_drop
        self._delay_ticks = self._ticks(perturbation.observation_delay_s)
        self._action_delay_ticks = self._ticks(perturbation.action_delay_s)
        self._gain = perturbation.actuator_gain
        bounds = np.array([(d.lower, d.upper) for d in contract.action.dimensions_])
        middle, reach = bounds.mean(axis=1), perturbation.actuator_limit * np.diff(bounds)[:, 0] / 2
        self._limits = (middle - reach, middle + reach) if perturbation.actuator_limit < 1 else None
        lag_s = simulation.actuator_lag_s + perturbation.actuator_lag_s
        self._follow = 1.0 - np.exp(-model.opt.timestep / lag_s) if lag_s > 0 else 1.0
        noise = [simulation.actuator_noise.get(n, 0.0) for n in contract.action.dimensions]
        self._actuator_noise = np.array(noise)
        self._disturbed = self._follow < 1 or bool(self._actuator_noise.any())
        self._holds_last = contract.action.interface is Interface.POSITION
        measured = contract.action.measured
        self._measured = layout.streams.index(measured) if self._holds_last and measured is not None else None
        self._privileged = [i for i, s in enumerate(streams.values()) if s.privileged]
        self._draw_from(0)
        self._clear()

    def reset(self, seed: int) -> TaskStatus:
        """Draws a new initial state from the seed; the time goes on."""
        mujoco.mj_resetData(self.model, self.data)
        self.task.reset(np.random.default_rng(seed), self._perturbation.start_spread)
        mujoco.mj_forward(self.model, self.data)
        self._draw_from(seed)
        self._clear()
        self._actuator.reset(self.model, self.data)
        if self._measured is not None:
            # A driver of positions that was told nothing yet holds where it is; zeros would be a slam.
            self._reads[self._measured](self.model, self.data, self._wanted)
            self._actual[:] = self._wanted
        self._biases = [
            np.random.default_rng([seed, *_BIAS, i]).normal(0.0, scale, v.shape) if scale else 0.0
            for i, (scale, v) in enumerate(zip(self._bias_scale, self._values, strict=True))
        ]
        self._shift.draw(np.random.default_rng([seed, *_SHIFT]), self.model, self.data, self._biases)
        return self.task.status()

    def observe(self) -> Sequence[Sample]:
        """What is published at this tick; call it once a tick."""
        samples = []
        for topic, indices in self._topics:
            sample = Sample(topic, self.time_ns, tuple((i, self._read(i)) for i in indices))
            if topic in self._spared:
                samples.append(sample)
                continue
            dropped = self._drop > 0 and self._drop_rng.random() < self._drop
            queue = self._delayed[topic]
            queue.append(None if dropped else sample)
            due = queue.popleft() if len(queue) > self._delay_ticks else None
            if due is not None:
                samples.append(due)
        return samples

    def step(self, action: Vector | None) -> TaskStatus:
        """Moves on by one control period; without an action the robot stops as its interface defines it."""
        if action is not None:
            done = action * self._gain
            self._commands.append(done if self._limits is None else np.clip(done, *self._limits))
        elif not self._holds_last:
            self._commands.append(np.zeros_like(self._actual))
        if len(self._commands) > self._action_delay_ticks:
            self._wanted = self._commands.popleft()
        wanted = self._wanted
        if self._disturbed:
            followed = [self._follow_once(wanted) for _ in range(self._substeps)]
            mean = np.mean(followed, axis=0)
        else:
            self._actual[:] = wanted
            followed, mean = [wanted] * self._substeps, wanted
        self._actuator.start_tick(self.model, self.data, mean)
        for actual in followed:
            self._actuator.substep(self.model, self.data, actual)
            mujoco.mj_step(self.model, self.data)
        self.tick += 1
        self.time_ns += self._period_ns
        status = self.task.step()
        if self.task.was_put_back:
            mujoco.mj_forward(self.model, self.data)
            self._actual[:] = 0.0
            self._actuator.reset(self.model, self.data)
        return status

    @property
    def moved_body(self) -> int:
        """Number of the body that the action moves."""
        return self._actuator.body

    def truth(self) -> Vector:
        """(P,) the privileged streams as they are now, without noise, in the contract's order and units."""
        for i in self._privileged:
            self._reads[i](self.model, self.data, self._values[i])
        return np.concatenate([np.empty(0), *(self._values[i] for i in self._privileged)])

    def scene(self) -> Vector:
        """(S,) where everything stands: joint positions, then positions and orientations of what is moved by hand."""
        data = self.data
        result: Vector = np.concatenate([data.qpos, data.mocap_pos.ravel(), data.mocap_quat.ravel()])
        return result

    def show(self, scene: Vector) -> None:
        """Puts everything where it stood; for pictures, not for going on."""
        data = self.data
        ends = np.cumsum([data.qpos.size, data.mocap_pos.size])
        data.qpos[:], positions, orientations = np.split(scene, ends)
        data.mocap_pos[:], data.mocap_quat[:] = positions.reshape(-1, 3), orientations.reshape(-1, 4)
        mujoco.mj_forward(self.model, data)

    def _follow_once(self, wanted: Vector) -> Vector:
        """What the actuators do in one simulation step, after their noise and their lag."""
        if self._actuator_noise.any():
            wanted = wanted + self._actuator_noise * self._rng.standard_normal(wanted.shape)
        self._actual += self._follow * (wanted - self._actual)
        return self._actual.copy()

    def _read(self, index: int) -> Vector:
        values = self._values[index]
        self._reads[index](self.model, self.data, values)
        noisy = values + self._biases[index]
        if self._noise[index]:
            noisy += self._rng.normal(0.0, self._noise[index], values.shape)
        if self._added_noise[index]:
            noisy += self._added_rngs[index].normal(0.0, self._added_noise[index], values.shape)
        rounded: Vector = noisy.astype(self._wire[index]).astype(np.float64)
        return rounded

    def _draw_from(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, _NOISE_STREAM])
        self._drop_rng = np.random.default_rng([seed, *_DROPS])
        self._added_rngs = [np.random.default_rng([seed, *_ADDED, i]) for i in range(len(self._added_noise))]

    def _clear(self) -> None:
        size = len(self.contract.action.dimensions)
        self._actual, self._wanted = np.zeros(size), np.zeros(size)
        self._commands: deque[Vector] = deque()
        self._delayed: dict[str, deque[Sample | None]] = {topic: deque() for topic, _ in self._topics}
        self._biases = [0.0] * len(self._values)

    def _ticks(self, time_s: float) -> int:
        return round(time_s * 1e9 / self._period_ns)


def _load(model: Any, data: Any, body: int, payload_kg: float) -> None:
    """Adds a mass to a body; compensation of gravity does not know of it."""
    mass = model.body_mass[body]
    model.body_gravcomp[body] *= mass / (mass + payload_kg)
    model.body_mass[body] += payload_kg
    mujoco.mj_setConst(model, data)
