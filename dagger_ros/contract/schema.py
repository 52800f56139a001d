"""The task contract as data: every field that a contract has, with its unit and its bounds."""

from __future__ import annotations

import enum
import hashlib
import json
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from dagger_ros.contract.fields import Count, Flag, Name, NotNegative, Number, Part, Positive, Share, Text, Topic
from dagger_ros.contract.joystick import Joystick
from dagger_ros.contract.types import MESSAGE_TYPES, FieldKind, parse_field

__all__ = [
    "MOTION_LIMITS",
    "Action",
    "ActionDimension",
    "ActuatorsSource",
    "BodySource",
    "Box",
    "Collection",
    "Contract",
    "ExpertSection",
    "Goal",
    "Handover",
    "ImageStream",
    "Interface",
    "JointsSource",
    "LidarSource",
    "Metric",
    "Operator",
    "PlanarBaseActuation",
    "PoseSource",
    "Robot",
    "SensorSource",
    "Simulation",
    "Splits",
    "Stop",
    "Stream",
    "Task",
    "Timing",
    "ToolVelocityActuation",
]

_SCAN, _POSE = "sensor_msgs/msg/LaserScan", "geometry_msgs/msg/PoseStamped"


class Interface(str, enum.Enum):
    """What a number in the action means to the actuators."""

    VELOCITY = "velocity"
    POSITION = "position"
    EFFORT = "effort"


class Stop(str, enum.Enum):
    """What the supervisor sends to stop; each belongs to one interface."""

    RAMP_TO_ZERO = "ramp_to_zero"
    HOLD_POSITION = "hold_position"
    DELEGATE = "delegate"


class MotionLimits(NamedTuple):
    """The limits on the motion of one interface, by key of `ActionDimension`."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]


MOTION_LIMITS: dict[Interface, MotionLimits] = {
    Interface.POSITION: MotionLimits(("velocity_limit", "acceleration_limit"), ("jerk_limit",)),
    Interface.VELOCITY: MotionLimits(("acceleration_limit", "deceleration_limit"), ("jerk_limit",)),
    Interface.EFFORT: MotionLimits(("rate_limit",), ()),
}


class Goal(str, enum.Enum):
    """Which way a metric improves."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class Robot(Part):
    """The body that the data is of."""

    body: Text
    description: Text


class Operator(Part):
    """Who labels."""

    source: Literal["scripted", "joystick"]
    description: Text


class Stream(Part):
    """One vector of observations, read from one topic.

    Values have one unit. Two quantities of one message (positions and velocities) are two streams on one topic.
    """

    topic: Topic
    type: str
    select: Annotated[tuple[str, ...], Field(min_length=1)]
    unit: str
    frame: Text
    rate_hz: Positive
    max_age_s: Positive
    # The smallest change that means something, in `unit`: the floor of a feature's standard deviation when a
    # policy normalises its inputs, so that a value that hardly moved in the data cannot explode outside it.
    resolution: Positive
    # Only the expert and the evaluation see it; never an input of a policy.
    privileged: Flag = False

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """Name of each value, ranges written out."""
        if MESSAGE_TYPES[self.type].kind is not FieldKind.ARRAY:
            return self.select
        fields = [parse_field(s) for s in self.select]
        return tuple(f"{f.name}[{i}]" for f in fields for i in range(f.start, f.stop))


class ImageStream(Part):
    """One camera."""

    topic: Topic
    type: str
    width: Count
    height: Count
    frame: Text
    rate_hz: Positive
    max_age_s: Positive


class ActionDimension(Part):
    """One number of the action, with the limits that the supervisor enforces.

    Which limits there are depends on the interface: see `MOTION_LIMITS`.
    """

    name: Name
    select: Text
    unit: str
    lower: Number
    upper: Number
    jump_limit: Positive  # in `unit`; a request further from the last emitted command is refused, not clamped
    velocity_limit: Positive | None = None  # unit/s
    acceleration_limit: Positive | None = None  # away from zero: unit/s of a velocity, unit/s^2 of a position
    deceleration_limit: Positive | None = None  # towards zero: unit/s of a velocity; what a stop may use
    rate_limit: Positive | None = None  # unit/s of an effort
    jerk_limit: Positive | None = None  # derivative of the acceleration; gives way to every other limit and to a stop
    tracking_limit: Positive | None = None  # in `unit`, between the last emitted command and the measured value

    def limits(self) -> dict[str, float]:
        """The limits that are given, by key."""
        return {k: v for k, v in self.model_dump(exclude_none=True).items() if k.endswith("_limit")}

    @property
    def limits_words(self) -> str:
        """The limits that are given, as text."""
        return ", ".join(f"{name.removesuffix('_limit')} {value:g}" for name, value in self.limits().items())


class Handover(Part):
    """How a new driver begins: from the last emitted command, under stricter limits, and without labels meanwhile."""

    limit_scale: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]  # factor on the motion limits
    longest_s: Positive  # they end when the driver's request passes unchanged, at the latest after so long
    # On a robot rule dagger may let expert and policy drive in turn, tick by tick (beta above 0).
    beta_mixing: Flag = False


class Box(Part):
    """Where the values of one stream must stay: a workspace of the tool, or the travel of joints."""

    stream: Name
    lower: Annotated[tuple[Number, ...], Field(min_length=1)]  # in the stream's unit, one for each value
    upper: Annotated[tuple[Number, ...], Field(min_length=1)]


class Action(Part):
    """The command: which message, what its numbers mean, how far and how fast they may go, and what stops it."""

    topic: Topic
    type: str
    frame: Text
    interface: Interface
    stop: Stop
    dimensions_: Annotated[tuple[ActionDimension, ...], Field(min_length=1, alias="dimensions")]
    handover: Handover
    # The stream that measures what the action commands, from which motion starts; needed by the position interface.
    measured: str | None = None
    workspace: tuple[Box, ...] = ()

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Name of each value."""
        return tuple(d.name for d in self.dimensions_)

    @property
    def select(self) -> tuple[str, ...]:
        """Field of the message that each value goes to."""
        return tuple(d.select for d in self.dimensions_)


class Timing(Part):
    """The clockwork: every limit here is enforced by the supervisor, or by the driver below it."""

    control_rate_hz: Positive
    latency_budget_s: Positive  # from the newest observation to the command
    policy_max_age_s: Positive  # an older proposal of the policy is not executed
    expert_max_age_s: Positive  # an older action of the expert is not executed
    future_tolerance_s: NotNegative  # a stamp further ahead of the clock is a fault
    driver_timeout_s: Positive  # without a command for so long the driver stops by itself
    # A rule that asks for help holds the robot when nobody answered for so long; needed by the rules that ask.
    help_answer_s: Positive | None = None
    # The topic `estop` must speak at least so often. Without this key an e-stop topic is heard, but not missed.
    estop_max_age_s: Positive | None = None

    @property
    def period_ns(self) -> int:
        """Control period, ns."""
        return round(1e9 / self.control_rate_hz)


class Metric(Part):
    """The number that policies are compared by."""

    name: Name
    unit: Text
    goal: Goal
    description: Text


class Task(Part):
    """What is to be achieved."""

    description: Text
    criterion: Text  # when a rollout is a success, in words
    horizon_s: Annotated[float, Field(strict=True, gt=0, le=86_400, allow_inf_nan=False)]
    metric: Metric
    failure_labels: Annotated[dict[Name, Text], Field(min_length=1)]


class Splits(Part):
    """Share of the episodes for each use; decided per episode by a hash, so it never changes afterwards."""

    train: Share
    validation: Share
    stress: Share


class ExpertSection(Part):
    """How a person's hands become actions."""

    joystick: Joystick


class Collection(Part):
    """How much is collected, unless the command line says otherwise."""

    demonstrations: Count  # episodes of round 0
    episodes: Count  # of each further round


class JointsSource(Part):
    """Positions, velocities or actuator efforts of the joints that the stream selects."""

    kind: Literal["joints"]


class PoseSource(Part):
    """Pose of a site, in the frame of a body."""

    kind: Literal["pose"]
    site: Text
    relative_to: Text


class BodySource(Part):
    """Pose in the world and velocity of a body, as odometry gives them."""

    kind: Literal["body"]
    body: Text


class LidarSource(Part):
    """Distances along rays in the xy plane of a site."""

    kind: Literal["lidar"]
    site: Text
    angle_min_rad: Number
    angle_max_rad: Number
    range_max_m: Positive


class SensorSource(Part):
    """Values of MuJoCo sensors, one after another."""

    kind: Literal["sensors"]
    names: Annotated[tuple[str, ...], Field(min_length=1)]


class ActuatorsSource(Part):
    """Each number of the action is the control of one MuJoCo actuator."""

    kind: Literal["actuators"]
    names: Annotated[tuple[str, ...], Field(min_length=1)]


class ToolVelocityActuation(Part):
    """The action is a linear velocity of a site; joint position actuators follow by damped least squares."""

    kind: Literal["tool_velocity"]
    site: Text
    joints: Annotated[tuple[str, ...], Field(min_length=1)]
    largest_error_rad: Positive  # between target and measured joint position


class PlanarBaseActuation(Part):
    """The action is forward velocity and yaw rate of a base that slides on x and y and turns on yaw."""

    kind: Literal["planar_base"]
    x: Text
    y: Text
    yaw: Text


Source = Annotated[JointsSource | PoseSource | BodySource | LidarSource | SensorSource, Field(discriminator="kind")]
Actuation = Annotated[ActuatorsSource | ToolVelocityActuation | PlanarBaseActuation, Field(discriminator="kind")]


class Simulation(Part):
    """How a MuJoCo model stands for the robot."""

    model: Text  # MJCF file, relative to the contract
    task: Name  # reset, success and scripted expert, of `dagger_ros.sim.tasks`
    sources: dict[Name, Source]
    actuation: Actuation
    actuator_lag_s: NotNegative  # time constant of the actuators' first-order lag
    actuator_noise: dict[Name, NotNegative]  # standard deviation per action dimension, in its unit
    observation_noise: dict[Name, NotNegative]  # standard deviation per stream, in its unit


class Contract(Part):
    """One task on one robot. `load_contract` makes it from a file and checks how its parts fit together."""

    contract: Annotated[int, Field(strict=True, ge=1, le=1, description="version of this format")]
    name: Name
    licence: Text
    robot: Robot
    operator: Operator
    task: Task
    timing: Timing
    streams: Annotated[dict[Name, Stream], Field(min_length=1)]
    cameras: dict[Name, ImageStream]
    action: Action
    collection: Collection
    splits: Splits
    expert: ExpertSection | None = None
    simulation: Simulation | None = None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the content, 64 hex digits; comments, key order and layout of the file do not count.

        A key that says nothing is not in it, so that a key which a later version may know changes no older contract.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def topics(self) -> tuple[str, ...]:
        """Observation topics, each once, in contract order."""
        return tuple(dict.fromkeys(s.topic for s in self.streams.values()))

    @property
    def perception(self) -> tuple[str, ...]:
        """Streams of what a policy sees of the world: scans, and poses in another frame than that of the action.

        All others say how the robot itself stands.
        """
        return tuple(
            name
            for name, s in self.streams.items()
            if not s.privileged and (s.type == _SCAN or (s.type == _POSE and s.frame != self.action.frame))
        )

    @property
    def recorder_max_age_s(self) -> float:
        """Without a sign of life of the recorder for so long nobody drives an episode that is recorded.

        Half of the largest age of a stream, so that the robot is at rest when the oldest stream would stop it.
        """
        return max(s.max_age_s for s in self.streams.values()) / 2

    @property
    def horizon_ticks(self) -> int:
        """Control ticks of the longest episode."""
        return round(self.task.horizon_s * self.timing.control_rate_hz)
