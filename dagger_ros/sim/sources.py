"""Where a MuJoCo model gives the values of each stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np

from dagger_ros.contract import DaggerError, Stream
from dagger_ros.contract.schema import BodySource, JointsSource, LidarSource, PoseSource, SensorSource, Source
from dagger_ros.sim.plant import Vector

__all__ = ["element", "make_source"]

Read = Callable[[Any, Any, Vector], None]


def element(model: Any, kind: str, name: str, *, path: Path, wanted_by: str) -> int:
    """Number of a named element of a model.

    Args:
        model: MjModel.
        kind: As in `joint`, `site`, `body`, `actuator`, `sensor`, `camera`.
        name: Its name.
        path: The MJCF file, for the message.
        wanted_by: Key of the contract that names it, for the message.

    Raises:
        DaggerError: If the model has no such element; says which ones it has.
    """
    object_type = getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}")
    number = mujoco.mj_name2id(model, object_type, name)
    if number < 0:
        counts = {"joint": "njnt", "body": "nbody", "actuator": "nu", "camera": "ncam"}
        count = getattr(model, counts.get(kind, f"n{kind}"))
        names = [mujoco.mj_id2name(model, object_type, i) for i in range(count)]
        raise DaggerError(
            f"{path}: expected a {kind} named '{name}' ({wanted_by}); the model has {', '.join(filter(None, names))}"
        )
    return int(number)


def make_source(source: Source, name: str, stream: Stream, model: Any, path: Path) -> Read:
    """A function that reads one stream from the simulation.

    Args:
        source: The contract's entry under `simulation.sources`.
        name: The stream's name.
        stream: What it selects.
        model: MjModel.
        path: The MJCF file, for messages.

    Returns:
        `read(model, data, out)` fills (n,) float64.

    Raises:
        DaggerError: If the model lacks something that the contract names.
    """
    wanted_by = f"simulation.sources.{name} of the contract"

    def find(kind: str, wanted: str) -> int:
        return element(model, kind, wanted, path=path, wanted_by=wanted_by)

    if isinstance(source, JointsSource):
        return _joints(stream, model, find, wanted_by)
    if isinstance(source, PoseSource):
        return _pose(stream, find("site", source.site), find("body", source.relative_to))
    if isinstance(source, BodySource):
        return _body(stream, find("body", source.body))
    if isinstance(source, LidarSource):
        return _lidar(source, stream, find("site", source.site), model, wanted_by)
    return _sensors(source, stream, model, find, wanted_by)


def _joints(stream: Stream, model: Any, find: Callable[[str, str], int], wanted_by: str) -> Read:
    quantity = stream.select[0].partition(".")[0]
    joints = [find("joint", s.partition(".")[2]) for s in stream.select]
    if quantity == "effort":
        dofs = model.jnt_dofadr[joints]
        return lambda _model, data, out: np.copyto(out, data.qfrc_actuator[dofs])
    if quantity == "velocity":
        dofs = model.jnt_dofadr[joints]
        return lambda _model, data, out: np.copyto(out, data.qvel[dofs])
    if quantity == "position":
        places = model.jnt_qposadr[joints]
        return lambda _model, data, out: np.copyto(out, data.qpos[places])
    raise DaggerError(f"{wanted_by}: kind 'joints' gives position, velocity and effort of a JointState, not {quantity}")


def _pose(stream: Stream, site: int, body: int) -> Read:
    get = attrgetter(*(s.partition(".")[2] for s in stream.select))

    def read(_model: Any, data: Any, out: Vector) -> None:
        rotation = data.xmat[body].reshape(3, 3)
        position = rotation.T @ (data.site_xpos[site] - data.xpos[body])
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, (rotation.T @ data.site_xmat[site].reshape(3, 3)).ravel())
        out[:] = get(_pose_message(position, quaternion))

    return read


def _body(stream: Stream, body: int) -> Read:
    get = attrgetter(*stream.select)
    velocity = np.zeros(6)

    def read(model: Any, data: Any, out: Vector) -> None:
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 1)
        twist = SimpleNamespace(angular=_xyz(velocity[:3]), linear=_xyz(velocity[3:]))
        pose = _pose_message(data.xpos[body], data.xquat[body])
        out[:] = get(SimpleNamespace(pose=SimpleNamespace(pose=pose), twist=SimpleNamespace(twist=twist)))

    return read


def _pose_message(position: Vector, quaternion: Vector) -> SimpleNamespace:
    """With the field names of geometry_msgs/Pose; MuJoCo writes quaternions w first."""
    w, x, y, z = quaternion
    return SimpleNamespace(position=_xyz(position), orientation=SimpleNamespace(x=x, y=y, z=z, w=w))


def _xyz(values: Sequence[float] | Vector) -> SimpleNamespace:
    return SimpleNamespace(x=values[0], y=values[1], z=values[2])


def _lidar(source: LidarSource, stream: Stream, site: int, model: Any, wanted_by: str) -> Read:
    count = len(stream.dimensions)
    if stream.dimensions != tuple(f"ranges[{i}]" for i in range(count)):
        raise DaggerError(f"{wanted_by}: kind 'lidar' gives ranges[0:n] of a LaserScan, not {', '.join(stream.select)}")
    angles = np.linspace(source.angle_min_rad, source.angle_max_rad, count)
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros(count)])
    own_body = int(model.site_bodyid[site])
    hits, distances = np.zeros(count, np.int32), np.zeros(count)

    def read(model: Any, data: Any, out: Vector) -> None:
        rays = (data.site_xmat[site].reshape(3, 3) @ directions).T.ravel()
        mujoco.mj_multiRay(
            model, data, data.site_xpos[site], rays, None, 1, own_body, hits, distances, None, count, source.range_max_m
        )
        out[:] = np.where(distances < 0, source.range_max_m, np.minimum(distances, source.range_max_m))

    return read


def _sensors(source: SensorSource, stream: Stream, model: Any, find: Callable[[str, str], int], wanted_by: str) -> Read:
    sensors = [find("sensor", name) for name in source.names]
    places = np.concatenate([model.sensor_adr[s] + np.arange(model.sensor_dim[s]) for s in sensors])
    if len(places) != len(stream.dimensions):
        raise DaggerError(f"{wanted_by}: expected {len(stream.dimensions)} values from the sensors, got {len(places)}")
    return lambda _model, data, out: np.copyto(out, data.sensordata[places])
