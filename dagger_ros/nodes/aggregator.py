"""aggregator: records each episode as a bag, and says when one begins and ends."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message

from dagger_ros.contract import NEVER_NS, Act, DaggerError, stamp_from_ns, stamp_ns
from dagger_ros.dataset import (
    ActLog,
    BagWriter,
    EpisodeInfo,
    RecordedTopic,
    act_of,
    episode_folder,
    finish_round,
    recorded_episodes,
    unfinished_episodes,
    write_episode,
)
from dagger_ros.dataset.acts import ENDS
from dagger_ros.dataset.episode import BAG
from dagger_ros.msg import EpisodeEvent, GateDecision, OperatorAct, SimTick
from dagger_ros.nodes.base import LEVEL_ERROR, LEVEL_OK, LEVEL_WARN, ContractNode, message_class, run_node
from dagger_ros.nodes.qos import ACT_QOS, EVENT_QOS
from dagger_ros.nodes.share import message_definition
from dagger_ros.nodes.spin import poll
from dagger_ros.srv import ResetSim, StartEpisode, StopEpisode

__all__ = ["AggregatorNode", "main"]

_GRAPH_TOPICS = {
    "policy/action": "dagger_ros/msg/PolicyAction",
    "expert/action": "dagger_ros/msg/ExpertAction",
    "expert/act": "dagger_ros/msg/OperatorAct",
    "joy": "sensor_msgs/msg/Joy",
    "supervisor/decision": "dagger_ros/msg/GateDecision",
    "supervisor/help": "dagger_ros/msg/HelpRequest",
    "supervisor/settings": "dagger_ros/msg/GateSettings",
    "episode": "dagger_ros/msg/EpisodeEvent",
    "sim/tick": "dagger_ros/msg/SimTick",
    "estop": "std_msgs/msg/Bool",
}
_LATCHED = ("episode", "supervisor/help", "supervisor/settings")
# Less of a stream than this share of its rate is a warning, and less free disk than this.
_LEAST_RATE, _LEAST_FREE_BYTES = 0.8, 1_000_000_000


class AggregatorNode(ContractNode):
    """Takes the serialized messages of every topic of the graph and writes them, unread, into the open bag."""

    def __init__(self, parameters: Mapping[str, Any] | None = None, context: Any = None, namespace: str = "") -> None:
        super().__init__("aggregator", parameters, context, namespace)
        out = self.parameter("out", "", "folder of the round that episodes are added to; needed")
        self._round = self.parameter("round", 1, "number of the round; 0: demonstrations")
        self._rule = self.parameter("rule", "hg", "rule of the round; stands in episode.json")
        next_seed = self.parameter(
            "simulation_seed",
            -1,
            "run episodes in simulation: reset it with this seed, then the next; -1: do not",
        )
        if not out:
            self.destroy_node()
            raise DaggerError("aggregator: expected the parameter 'out' (folder of the round), got nothing")
        self._out = Path(out)
        self._contract_text = Path(self.contract_path).read_text(encoding="utf-8")
        if self._out.exists() and not self._out.is_dir():
            self.destroy_node()
            raise DaggerError(f"aggregator: expected a folder for the parameter 'out', got the file {out}")
        left = len(unfinished_episodes(self._out))
        if left:
            self.get_logger().warning(
                f"{left} episodes in {out} were not finished; `dagger-ros recover {out}` makes them whole"
            )
        # What an episode is nothing without: topic, expected rate in Hz and largest age in s.
        self._needed = {s.topic: (s.rate_hz, s.max_age_s) for s in self.contract.streams.values()}
        self._needed |= {c.topic: (c.rate_hz, c.max_age_s) for c in self.contract.cameras.values()}
        self._needed["supervisor/decision"] = (
            self.contract.timing.control_rate_hz,
            self.contract.recorder_max_age_s,
        )
        # When each of them was last received, on the monotonic clock, and what was recorded at the last verdict.
        self._heard_ns = dict.fromkeys(self._needed, NEVER_NS)
        self._at_verdict: tuple[int, dict[str, int]] = (0, {})
        self._bag: BagWriter | None = None
        self._episode, self._seed, self._started_ns = -1, -1, 0
        self._sim_ns = 0
        self._last_decision: bytes | None = None
        self._problem = ""
        self._acts = ActLog(self.contract)
        self._next_seed = next_seed
        self._drives_simulation = next_seed >= 0
        # SimTicks that began and ended the episode, where the simulation is driven.
        self._first_tick: Any = None
        self._last_tick: Any = None
        self._reset = self.create_client(ResetSim, "mujoco_bridge/reset") if self._drives_simulation else None
        self._events = self.create_publisher(EpisodeEvent, "episode", EVENT_QOS)
        self._event = EpisodeEvent(event=EpisodeEvent.IDLE, round=self._round, episode=-1, seed=-1)
        self._topics = self._subscribe()
        own = [type_ for type_ in _GRAPH_TOPICS.values() if type_.startswith("dagger_ros/")]
        self._definitions = {type_: message_definition(type_) for type_ in own}
        self.create_service(StartEpisode, "~/start_episode", self._on_start)
        self.create_service(StopEpisode, "~/stop_episode", self._on_stop)
        # The supervisor holds when it does not hear of the recorder.
        self.create_steady_timer(min(1.0, self.contract.recorder_max_age_s / 3), self._on_timer)

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """What is being recorded."""
        if self._problem:
            return LEVEL_ERROR, self._problem, {}
        free = _free_bytes(self._out)
        values: dict[str, object] = {"out": self._out, "free_gb": f"{free * 1e-9:.1f}"}
        words = [] if free > _LEAST_FREE_BYTES else [f"only {free * 1e-6:.0f} MB are free for {self._out}"]
        if self._bag is None:
            self._at_verdict = (0, {})
            return LEVEL_WARN if words else LEVEL_OK, ", ".join(["not recording", *words]), values
        words += self._slow_streams(self._bag.counts)
        text = ", ".join([f"recording episode {self._episode}", *words])
        return LEVEL_WARN if words else LEVEL_OK, text, values | self._bag.counts

    def _slow_streams(self, counts: Mapping[str, int]) -> list[str]:
        """What came less often than it should, since the last verdict."""
        (since_ns, before), now_ns = self._at_verdict, self.monotonic_ns()
        self._at_verdict = (now_ns, dict(counts))
        if not before or self.lockstep:  # in lockstep time is the simulation's
            return []
        seconds = (now_ns - since_ns) * 1e-9
        words = []
        for topic, (rate_hz, _) in self._needed.items():
            came, due = counts[topic] - before[topic], rate_hz * seconds
            if came < _LEAST_RATE * due - 1:  # one may come right behind
                words.append(f"{topic} comes at {came / seconds:.1f} Hz, expected {rate_hz:g} Hz")
        return words

    def _missing(self) -> list[str]:
        """What is too old to begin with."""
        words, now_ns = [], self.monotonic_ns()
        for topic, (_, max_age_s) in self._needed.items():
            heard_ns = self._heard_ns[topic]
            age_s = (now_ns - heard_ns) * 1e-9
            if heard_ns == NEVER_NS:
                words.append(f"{topic} was never received")
            elif age_s > max_age_s:
                words.append(f"{topic} was received {age_s:.2f} s ago, at most {max_age_s:g} s are allowed")
        return words

    def shut_down(self) -> None:
        """Finishes an open episode as a failed one, since nobody said that it succeeded, and writes the manifest."""
        self._drain()
        try:
            if self._bag is not None:
                self.stop(success=False, failure="", metric=math.nan)
            if recorded_episodes(self._out):
                finish_round(self._out, self.contract)
        except DaggerError as error:
            self.get_logger().error(str(error))

    def start(self, seed: int) -> int:
        """Opens the bag of a new episode.

        Returns:
            Its index within the round.

        Raises:
            DaggerError: If one is open, or the folder cannot be written.
        """
        if self._bag is not None:
            raise DaggerError(f"episode {self._episode} is being recorded; stop it first")
        taken = [int(p.name) for p in (self._out / "episodes").glob("[0-9]*")]
        self._episode = max(taken, default=-1) + 1
        self._seed, self._started_ns = seed, self._now_ns()
        about = {
            "contract": self._contract_text,
            "round": str(self._round),
            "episode": str(self._episode),
            "seed": str(seed),
            "rule": self._rule,
            "started_ns": str(self._started_ns),
        }
        path = episode_folder(self._out, self._episode) / BAG
        self._bag = BagWriter(path, self._topics, self._definitions, about)
        self._last_decision, self._problem, self._acts = None, "", ActLog(self.contract)
        self._first_tick = self._last_tick = None
        self._announce(EpisodeEvent.STARTED)
        return self._episode

    def stop(self, *, success: bool, failure: str, metric: float, discard: bool = False) -> bool:
        """Finishes the bag and writes episode.json beside it.

        Returns:
            Whether the episode was kept; one without a decision is not.

        Raises:
            DaggerError: If none is open, the failure is not one of the contract's, or the disk does not take it.
        """
        if self._bag is None:
            raise DaggerError(self._problem or "no episode is being recorded")
        if failure and failure not in self.contract.task.failure_labels:
            labels = ", ".join(self.contract.task.failure_labels)
            raise DaggerError(f"failure: expected one of {labels}, got {failure!r}")
        bag, self._bag = self._bag, None
        if discard or self._last_decision is None:
            bag.discard()
            self._announce(EpisodeEvent.DISCARDED)
            return False
        decision = deserialize_message(self._last_decision, GateDecision)
        info = EpisodeInfo(
            round=self._round,
            episode=self._episode,
            seed=self._seed,
            rule=self._rule,
            contract_sha256=self.contract.sha256,
            policy=decision.policy,
            policy_sha256=decision.policy_sha256,
            operator_id=decision.operator_id,
            started_ns=self._started_ns,
            finished_ns=self._now_ns(),
            success=success,
            failure=failure,
            metric=None if math.isnan(metric) else metric,
            messages=bag.counts,
            acts=self._acts.acts,
        )
        try:
            bag.close()
            write_episode(episode_folder(self._out, self._episode), info)
        except OSError as error:
            self._abandon(bag, error)
            raise DaggerError(self._problem) from error
        self._announce(EpisodeEvent.FINISHED, success=success, failure=failure, metric=metric)
        return True

    def _drain(self) -> None:
        while poll(self.subscriptions):
            pass

    def _subscribe(self) -> dict[str, RecordedTopic]:
        # First, so that the time of a lockstep tick is known before its messages are written.
        if self.lockstep or self._drives_simulation:
            self.create_subscription(SimTick, "sim/tick", self._on_tick, self.qos.record)
        contract = self.contract
        topics = {s.topic: s.type for s in contract.streams.values()}
        topics |= {camera.topic: camera.type for camera in contract.cameras.values()}
        observed = set(topics)
        topics |= {contract.action.topic: contract.action.type, **_GRAPH_TOPICS}
        recorded = {}
        for topic, type_ in topics.items():
            qos = self.qos.record
            if topic in observed:
                qos = self.qos.sensor
            elif topic in _LATCHED:
                qos = EVENT_QOS
            elif topic in ("joy", "expert/act"):
                qos = ACT_QOS
            self.create_subscription(message_class(type_), topic, partial(self._record, topic), qos, raw=True)
            recorded[topic] = RecordedTopic(type_, reliable=topic not in observed, latched=topic in _LATCHED)
        return recorded

    def _record(self, topic: str, data: bytes) -> None:
        if topic in self._heard_ns:
            self._heard_ns[topic] = self.monotonic_ns()
        if self._bag is None:
            if topic == "expert/act":
                self._say_lost(deserialize_message(data, OperatorAct))
            return
        # In real time what still comes from before the reset is not of this episode.
        if self._drives_simulation and not self.lockstep and self._first_tick is None:
            return
        try:
            self._bag.write(topic, self._now_ns(), data)
        except OSError as error:
            bag, self._bag = self._bag, None
            self._abandon(bag, error)
            return
        if topic == "supervisor/decision":
            self._last_decision = data
            self._stop_when_complete()
        elif topic == "expert/act":
            self._on_act(deserialize_message(data, OperatorAct))

    def _on_act(self, act: Any) -> None:
        """Keeps what the operator did, and ends the episode where that was the act."""
        if not self._acts.take(act):
            return
        self._drain()  # what was sent before belongs to the episode
        success, discard = act.act == Act.SUCCESS, act.act == Act.DISCARD
        try:
            self.stop(success=success, failure=act.failure, metric=math.nan, discard=discard)
        except DaggerError as error:
            self.get_logger().error(str(error))

    def _say_lost(self, act: Any) -> None:
        """What is about an episode finds none."""
        if act.act in (*ENDS, Act.UNDO):
            self.get_logger().warning(f"{act_of(act)['act']} of the pad has no effect: no episode is being recorded")

    def _abandon(self, bag: BagWriter, error: OSError) -> None:
        """The disk does not take it: keeps what is there, and says so; nobody else is held up."""
        self._problem = f"recording of episode {self._episode} stopped, its bag is not whole: {error.strerror}"
        self.get_logger().error(self._problem)
        bag.abandon()
        self._announce(EpisodeEvent.DISCARDED)

    def _on_tick(self, tick: Any) -> None:
        self._sim_ns = stamp_ns(tick.header.stamp)
        if not self._drives_simulation or self._bag is None or tick.seed != self._seed:
            return
        if tick.start:
            self._first_tick = tick
        elif tick.done and self._first_tick is not None and self._last_tick is None:
            self._last_tick = tick
            self._stop_when_complete()

    def _stop_when_complete(self) -> None:
        """Ends the simulation's episode; in lockstep not before the decision of every tick has come."""
        tick = self._last_tick
        if tick is None or self._bag is None:
            return
        if self.lockstep and self._bag.counts["supervisor/decision"] < tick.tick - self._first_tick.tick:
            return
        try:
            self.stop(success=tick.success, failure=tick.failure, metric=tick.metric)
        except DaggerError:
            return  # logged, and on /diagnostics; the timer tries the next episode
        self._next_simulated_episode()

    def _next_simulated_episode(self) -> None:
        if self._reset is not None and self._bag is None and self._reset.service_is_ready():
            try:
                self.start(self._next_seed)
            except DaggerError as error:
                self._problem = str(error)
                self.get_logger().error(self._problem, throttle_duration_sec=10.0)
                return
            self._reset.call_async(ResetSim.Request(seed=self._next_seed))
            self._next_seed += 1

    def _on_timer(self) -> None:
        # Repeated: a bag that begins later, and a node that joins late, must see it too.
        self._events.publish(self._event)
        graph_is_up = self.count_publishers("supervisor/decision") > 0
        if self._drives_simulation and graph_is_up:
            self._next_simulated_episode()

    def _on_start(self, request: Any, response: Any) -> Any:
        self._drain()  # so that nothing looks old that only waits to be taken
        try:
            if missing := self._missing():
                raise DaggerError("expected every observation and the decisions to come in; " + "; ".join(missing))
            response.episode = self.start(request.seed)
            response.success, response.message = True, f"recording episode {self._episode}"
        except DaggerError as error:
            response.success, response.message, response.episode = False, str(error), -1
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        self._drain()  # what was sent before the request belongs to the episode
        try:
            kept = self.stop(
                success=request.success, failure=request.failure, metric=request.metric, discard=request.discard
            )
            response.success = kept or request.discard
            response.message = f"episode {self._episode} " + (
                "finished" if kept else "discarded: nothing is kept of it"
            )
        except DaggerError as error:
            response.success, response.message = False, str(error)
        return response

    def _announce(self, event: int, *, success: bool = False, failure: str = "", metric: float = math.nan) -> None:
        self._event = EpisodeEvent(
            event=event,
            round=self._round,
            episode=self._episode,
            seed=self._seed,
            success=success,
            failure=failure,
            metric=metric,
        )
        stamp_from_ns(self._event.header.stamp, self._now_ns())
        self._events.publish(self._event)

    def _now_ns(self) -> int:
        return self._sim_ns if self.lockstep else self.robot_ns()


def _free_bytes(folder: Path) -> int:
    """Of the disk that a folder is on, or will be."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(AggregatorNode, args)


if __name__ == "__main__":
    main()
