"""mujoco_bridge: commands in, observations out; stands for the robot and its driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool

from dagger_ros.contract import NEVER_NS, StreamReader, stamp_from_ns
from dagger_ros.msg import GateDecision, SimTick
from dagger_ros.nodes.base import (
    LEVEL_OK,
    LEVEL_WARN,
    ContractNode,
    message_class,
    message_writer,
    new_message,
    run_node,
)
from dagger_ros.nodes.images import ImageOutput, is_due
from dagger_ros.nodes.parameters import NodeParameter
from dagger_ros.sim import Perturbation, TaskStatus, load_plant
from dagger_ros.sim.cameras import PlantCameras
from dagger_ros.srv import ResetSim

__all__ = ["MujocoBridgeNode", "main"]

# In lockstep without commands: how long the bridge waits, by the wall clock, before it moves on as a driver that
# was left alone would. Far above the time that a tick takes, so that it never decides a healthy run.
_LOCKSTEP_PATIENCE_S = 5.0


class MujocoBridgeNode(ContractNode):
    """Real time: a timer steps the plant with the newest command. Lockstep: the command of a tick steps it.

    Either way the plant stops by itself when no command came for the contract's driver timeout.
    """

    NODE = "mujoco_bridge"
    OUTLIVES = "supervisor/decision"
    PARAMETERS = (
        NodeParameter("seed", -1, "seed of the first episode; -1: wait for the service ~/reset", least=-1),
        NodeParameter("repeat", False, "start a new episode, with the next seed, when one is over"),
        NodeParameter("publish_clock", True, "publish the simulated time on /clock"),
        NodeParameter("shared_images", False, "hand pictures over in shared memory too, beside their topics"),
        *(
            NodeParameter(
                f"perturbation.{item.name}",
                # A list without an element has no type in ROS.
                [""] if item.name == "observation_streams" else item.default,
                f"see Perturbation.{item.name}",
            )
            for item in fields(Perturbation)
        ),
    )

    def configure(self) -> None:
        """Loads the model."""
        super().configure()
        self._cameras: PlantCameras | None = None
        self._pictures: dict[str, ImageOutput] = {}
        given = self.given
        repeat, shared = given["repeat"], given["shared_images"]
        self._publishes_clock = given["publish_clock"]
        settings = {item.name: given[f"perturbation.{item.name}"] for item in fields(Perturbation)}
        settings["observation_streams"] = [name for name in settings["observation_streams"] if name]
        self.plant = load_plant(self.contract, self.contract_path, Perturbation(**settings))
        self._repeat = repeat
        self._paused = False
        self._seed = -1
        self._status: TaskStatus | None = None
        self._start = False
        self._waiting = False  # lockstep: observations are out, the command is not in
        self._kept: tuple[np.ndarray[Any, Any] | None] | None = None  # the answer that came during a pause
        self._published_ns = 0  # monotonic
        self._command_ns = NEVER_NS  # monotonic; when the last command came
        self._driver_stopped = False
        self._timeout_ns = round(self.contract.timing.driver_timeout_s * 1e9)
        contract, action = self.contract, self.contract.action
        self._newest_ns = [NEVER_NS] * len(contract.streams)
        self._writers, self._topic_publishers = {}, {}
        for topic in contract.topics:
            parts = [s for s in contract.streams.values() if s.topic == topic]
            message = new_message(parts[0].type, period_ns=self.period_ns)
            self._describe(topic, message)
            self._writers[topic] = message_writer(parts, message)
            self._topic_publishers[topic] = self.create_publisher(type(message), topic, self.qos.sensor_writer)
        if contract.cameras:
            self._cameras = PlantCameras(self.plant, self.contract_path)
            self.at_cleanup(self._cameras.close)
        for name, camera in contract.cameras.items():
            self._pictures[name] = ImageOutput(self, camera, self.qos.sensor_writer, shared=shared)
            self.at_cleanup(self._pictures[name].close)
        self._clock_publisher = self.create_publisher(Clock, "/clock", self.qos.command)
        self._ticks = self.create_publisher(SimTick, "sim/tick", self.qos.record)
        self._reader = StreamReader(action)
        self._action = np.zeros(self.layout.action_size)
        self.create_subscription(message_class(action.type), action.topic, self._on_command, self.qos.command)
        self.create_service(ResetSim, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/pause", self._on_pause)
        if self.lockstep:
            self.create_subscription(GateDecision, "supervisor/decision", self._on_decision, self.qos.record)
            self.create_steady_timer(0.5, self._on_patience)
        else:
            self.create_steady_timer(self.period_ns * 1e-9, self._on_timer)

    def activate(self) -> None:
        """Begins the first episode, where its seed was given."""
        if self.given["seed"] >= 0:
            self.reset(self.given["seed"])

    @property
    def status(self) -> TaskStatus | None:
        """How the task stands; None before the first episode."""
        return self._status

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """How the task stands and whether commands come."""
        status = self._status
        if status is None:
            return LEVEL_WARN, "waits for ~/reset with a seed", {}
        values = {"seed": self._seed, "tick": self.plant.tick, "metric": status.metric, "success": status.success}
        if self._driver_stopped:
            return LEVEL_WARN, f"stopped by itself: no command for {self._timeout_ns * 1e-9:g} s", values
        words = "paused" if self._paused else ("episode over" if status.done else "running")
        return LEVEL_OK, words, values

    def reset(self, seed: int) -> None:
        """Starts an episode."""
        self._seed, self._start = seed, True
        self._status = self.plant.reset(seed)
        self._command_ns, self._driver_stopped, self._kept = NEVER_NS, False, None
        self._newest_ns = [NEVER_NS] * len(self._newest_ns)
        if self.lockstep:
            self._publish_tick()

    def step(self, action: np.ndarray[Any, Any] | None) -> None:
        """One control period with this command; None: as a driver that was left alone."""
        self._waiting = False
        self._driver_stopped = action is None
        self._status = self.plant.step(action)
        if self._status.done and self._repeat:
            self._publish_tick()
            self.reset(self._seed + 1)
        elif self.lockstep:
            self._publish_tick()

    def _publish_tick(self) -> None:
        """Observations of this tick (none once the episode is over), clock, and what closes the set."""
        status, plant = self._status, self.plant
        if status is None:
            return
        clock = Clock()
        stamp_from_ns(clock.clock, plant.time_ns)
        if self._publishes_clock:
            self._clock_publisher.publish(clock)
        if not status.done:
            for sample in plant.observe():
                message = self._writers[sample.topic].fill([v for _, v in sample.values], sample.stamp_ns)
                self._topic_publishers[sample.topic].publish(message)
                for index, _ in sample.values:
                    self._newest_ns[index] = sample.stamp_ns
        tick = SimTick(
            tick=plant.tick,
            seed=self._seed,
            start=self._start,
            stamp_ns=self._newest_ns,
            done=status.done,
            success=status.success,
            failure=status.failure,
            metric=status.metric,
            progress=status.progress,
            driver_stopped=self._driver_stopped,
        )
        tick.header.stamp = clock.clock
        if not status.done:
            self._publish_pictures(tick)
        self._start = False
        self._waiting = not status.done
        self._published_ns = self.monotonic_ns()
        self._ticks.publish(tick)

    def _publish_pictures(self, tick: Any) -> None:
        """Of the cameras that take one at this tick and that somebody looks at: drawing is most of the work."""
        for name, picture in self._pictures.items():
            due = is_due(self.contract.cameras[name], tick, self.period_ns)
            if self._cameras is not None and due and picture.is_wanted():
                self._cameras.draw(name, picture.frame())
                picture.publish(self.plant.time_ns)

    def _on_command(self, message: Any) -> None:
        if not self._reader.read(message, self._action) or not np.isfinite(self._action).all():
            return  # as a driver would: what it cannot read it does not do
        self._command_ns = self.monotonic_ns()
        if self.lockstep and self._waiting:
            self._answer(self._action)

    def _on_decision(self, decision: Any) -> None:
        """In lockstep: a tick for which the supervisor sends nothing is over too."""
        sent = np.isfinite(np.asarray(decision.executed_action)).all()
        if self._waiting and decision.tick == self.plant.tick and not sent:
            self._answer(None)

    def _answer(self, action: np.ndarray[Any, Any] | None) -> None:
        """Steps with the command of the tick, or keeps it until the pause is over."""
        if self._paused:
            self._kept = (action,)
        else:
            self.step(action)

    def _on_timer(self) -> None:
        if self._status is None or self._paused:
            return
        if not self._start and not self._status.done:
            alive = self._command_ns != NEVER_NS and self.monotonic_ns() - self._command_ns <= self._timeout_ns
            self.step(self._action if alive else None)
        self._publish_tick()

    def _on_patience(self) -> None:
        if self._paused:
            return
        if self._waiting and self.monotonic_ns() - self._published_ns > _LOCKSTEP_PATIENCE_S * 1e9:
            self.step(None)

    def _on_reset(self, request: Any, response: Any) -> Any:
        if request.seed < 0:
            response.success, response.message = False, f"expected a seed >= 0, got {request.seed}"
            return response
        self.reset(request.seed)
        response.success, response.message = True, f"episode with seed {request.seed}"
        return response

    def _on_pause(self, request: Any, response: Any) -> Any:
        self._paused = request.data
        response.success, response.message = True, "paused" if request.data else "running"
        if self._kept is not None and not request.data:
            kept, self._kept = self._kept, None
            self.step(*kept)
        return response

    def _describe(self, topic: str, message: Any) -> None:
        """Fills what never changes in a message and what other tools need: the angles of a scan."""
        simulation = self.contract.simulation
        for name, stream in self.contract.streams.items():
            source = simulation.sources[name] if simulation else None
            if stream.topic == topic and source is not None and source.kind == "lidar":
                message.angle_min, message.angle_max = source.angle_min_rad, source.angle_max_rad
                message.angle_increment = (source.angle_max_rad - source.angle_min_rad) / (len(stream.dimensions) - 1)
                message.range_max = source.range_max_m


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(MujocoBridgeNode, args)


if __name__ == "__main__":
    main()
