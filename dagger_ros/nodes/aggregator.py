"""aggregator: records each episode as a bag, and says when one begins and ends."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.node import SubscriptionEventCallbacks  # its own module has another name in Humble
from rclpy.serialization import deserialize_message

from dagger_ros.contract import Act, DaggerError, stamp_from_ns, stamp_ns
from dagger_ros.dataset import (
    ActLog,
    BagWriter,
    EpisodeInfo,
    RecordedTopic,
    act_of,
    contract_of_run,
    episode_folder,
    finish_round,
    keep_contract,
    load_round,
    manifest_sha256,
    recorded_episodes,
    unfinished_episodes,
    write_episode,
)
from dagger_ros.dataset.acts import ENDS
from dagger_ros.dataset.bag import plant_topics
from dagger_ros.dataset.corrections import CorrectionFilter, Received
from dagger_ros.dataset.episode import BAG
from dagger_ros.msg import EpisodeEvent, GateDecision, OperatorAct, SimTick
from dagger_ros.nodes.base import LEVEL_ERROR, LEVEL_OK, LEVEL_WARN, ManagedNode, message_class, run_node
from dagger_ros.nodes.parameters import NodeParameter
from dagger_ros.nodes.qos import ACT_QOS, EVENT_QOS
from dagger_ros.nodes.share import message_definition
from dagger_ros.nodes.spin import poll
from dagger_ros.nodes.traffic import Traffic
from dagger_ros.srv import ResetSim, StartEpisode, StopEpisode
from dagger_ros.supervisor import RULES

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
# Kept whoever drives: few and small, and they say how an episode ended and what was taken back.
_ALWAYS_KEPT = (*_LATCHED, "expert/act")
_WRITTEN_BY_OTHERS = ("joy", "estop")
# Less free disk than this is a warning.
_LEAST_FREE_BYTES = 1_000_000_000


class AggregatorNode(ManagedNode):
    """Takes the serialized messages of every topic of the graph and writes them, unread, into the open bag."""

    NODE = "aggregator"
    OUTLIVES = "supervisor/decision"
    PARAMETERS = (
        NodeParameter("out", "", "folder of the round that episodes are added to; needed"),
        NodeParameter("round", 1, "number of the round; 0: demonstrations", least=0),
        NodeParameter(
            "rule",
            "hg",
            "rule of the round, as the supervisor has it; stands in episode.json",
            choices=tuple(RULES),
        ),
        NodeParameter(
            "simulation_seed",
            -1,
            "run episodes in simulation: reset it with this seed, then the next; -1: do not",
            least=-1,
        ),
        NodeParameter(
            "keep",
            "all",
            "all: whole episodes; corrections: what the expert drove, and what came shortly before",
            choices=("all", "corrections"),
        ),
        NodeParameter(
            "before_takeover_s",
            2.0,
            "with keep: corrections, so much before each takeover is kept too",
            unit="s",
            least=0.0,
            most=3600.0,
        ),
    )

    def configure(self) -> None:
        """Checks contract and folder, and listens to every topic of the graph."""
        super().configure()
        given = self.given
        out, next_seed = given["out"], given["simulation_seed"]
        self._round, self._rule = given["round"], given["rule"]
        self._keep, self._before_s = given["keep"], given["before_takeover_s"]
        if problem := _problem_of(out):
            raise DaggerError(f"aggregator: expected {problem}")
        self._out = Path(out)
        name = self._out.absolute().name
        if contract_of_run(self._out, self.contract) and name.isdigit() and int(name) != self._round:
            raise DaggerError(f"aggregator: expected round {int(name)} for the folder {out}, got round {self._round}")
        if manifest_sha256(self._out):
            load_round(self._out, self.contract)
        self._contract_text = Path(self.contract_path).read_text(encoding="utf-8")
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
        self._bag: BagWriter | None = None
        self._episode, self._seed, self._started_ns = -1, -1, 0
        self._sim_ns = 0
        # Of the open episode: the newest decision, how many there were, and what is kept; None: everything.
        self._last_decision, self._decisions = b"", 0
        self._filter: CorrectionFilter | None = None
        self._problem = self._refused = ""
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
        self._traffic = Traffic(self._topics, self._needed)
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
        values: dict[str, object] = {"out": self._out, "keep": self._keep, "free_gb": f"{free * 1e-9:.1f}"}
        words = [] if free > _LEAST_FREE_BYTES else [f"only {free * 1e-6:.0f} MB are free for {self._out}"]
        if self._bag is None:
            words += [self._refused] if self._refused else []
            return LEVEL_WARN if words else LEVEL_OK, ", ".join(["not recording", *words]), values
        if not self.lockstep:  # there time is the simulation's, and who writes waits for who reads
            rates_hz, slow = self._traffic.measure(self.monotonic_ns())
            lost = {topic: count for topic, count in self._traffic.lost.items() if count}
            words += [*slow, *(f"{count} messages of {topic} were lost" for topic, count in lost.items())]
            values["lost"] = sum(lost.values())
            values |= {f"{topic} rate_hz": f"{rate_hz:.1f}" for topic, rate_hz in rates_hz.items()}
        text = ", ".join([f"recording episode {self._episode}", *words])
        return LEVEL_WARN if words else LEVEL_OK, text, values | self._bag.counts

    def deactivate(self) -> None:
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
            DaggerError: If one is open, or the folder cannot be written, which is logged and stands on /diagnostics.
        """
        if not self.active:
            raise DaggerError(f"the aggregator is {self.state}; activate it first")
        if self._bag is not None:
            raise DaggerError(f"episode {self._episode} is being recorded; stop it first")
        try:
            self._bag = self._open(seed)
        except DaggerError as error:
            self._problem = str(error)
            self.get_logger().error(self._problem, throttle_duration_sec=10.0)
            raise
        self._last_decision, self._decisions, self._acts = b"", 0, ActLog(self.contract)
        self._problem = self._refused = ""
        self._filter = None
        if self._keep == "corrections":
            self._filter = CorrectionFilter(
                decisions="supervisor/decision", always=_ALWAYS_KEPT, before_ns=round(self._before_s * 1e9)
            )
        self._traffic.begin()
        self._first_tick = self._last_tick = None
        self._announce(EpisodeEvent.STARTED)
        self._say(f"recording episode {self._episode}")
        return self._episode

    def _open(self, seed: int) -> BagWriter:
        episodes = self._out / "episodes"
        try:
            taken = [int(p.name) for p in episodes.glob("[0-9]*")]
        except OSError as error:
            raise DaggerError(f"{episodes}: expected a folder that can be written; {error}") from error
        try:
            keep_contract(self._out, self.contract, self._contract_text)
        except OSError as error:
            raise DaggerError(f"{self._out}: expected a run that can be written; {error}") from error
        self._episode = max(taken, default=-1) + 1
        self._seed, self._started_ns = seed, self._now_ns()
        about = {
            "contract": self._contract_text,
            "round": str(self._round),
            "episode": str(self._episode),
            "seed": str(seed),
            "rule": self._rule,
            "keep": self._keep,
            "started_ns": str(self._started_ns),
        }
        return BagWriter(episode_folder(self._out, self._episode) / BAG, self._topics, self._definitions, about)

    def stop(self, *, success: bool, failure: str, metric: float, discard: bool = False) -> bool:
        """Finishes the bag and writes episode.json beside it.

        Returns:
            Whether the episode was kept; one without a decision in its bag is not.

        Raises:
            DaggerError: If none is open, the failure is not one of the contract's, or the disk does not take it.
        """
        if self._bag is None:
            raise DaggerError(self._problem or "no episode is being recorded")
        if failure and failure not in self.contract.task.failure_labels:
            labels = ", ".join(self.contract.task.failure_labels)
            raise DaggerError(f"failure: expected one of {labels}, got {failure!r}")
        bag, self._bag = self._bag, None
        if discard or not bag.counts["supervisor/decision"]:
            bag.discard()
            self._announce(EpisodeEvent.DISCARDED)
            self.get_logger().info(self._discarded(asked=discard))
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
            keep=self._keep,
            # That of a graph in lockstep is one for the occasion.
            namespace="" if self.lockstep else self.get_namespace().strip("/"),
        )
        try:
            bag.close()
            write_episode(episode_folder(self._out, self._episode), info)
        except OSError as error:
            self._abandon(bag, error)
            raise DaggerError(self._problem) from error
        self._announce(EpisodeEvent.FINISHED, success=success, failure=failure, metric=metric)
        self._say(f"episode {self._episode} finished: {'success' if success else failure or 'no success'}")
        return True

    def _say(self, text: str) -> None:
        """For who stands at the robot; a graph in lockstep has a thousand episodes."""
        if not self.lockstep:
            self.get_logger().info(text)

    def _discarded(self, *, asked: bool) -> str:
        never = self._keep == "corrections" and not asked
        return f"episode {self._episode} discarded: nothing is kept of it" + (
            ": the expert never drove" if never else ""
        )

    def _drain(self) -> None:
        while poll(self.subscriptions):
            pass

    def _subscribe(self) -> dict[str, RecordedTopic]:
        # First, so that the time of a lockstep tick is known before its messages are written.
        if self.lockstep or self._drives_simulation:
            self.create_subscription(SimTick, "sim/tick", self._on_tick, self.qos.record)
        recorded = plant_topics(self.contract)
        observed = {topic for topic, about in recorded.items() if not about.reliable}
        types = _GRAPH_TOPICS
        if not self.lockstep:  # they come by the clock, and what lockstep records is the same each time
            types = types | {"diagnostics": "diagnostic_msgs/msg/DiagnosticArray"}
        for topic, type_ in types.items():
            recorded[topic] = RecordedTopic(type_, reliable=True, latched=topic in _LATCHED)
        # That a writer offers less than is asked for, rclpy says by two more things to wait for on each subscription: a
        # fifth of the recorder's time. Observations ask for the least, the graph's own topics for what it offers.
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        for topic, about in recorded.items():
            qos = self.qos.record
            if topic in observed:
                qos = self.qos.recorded_sensor(self._needed[topic][0])
            elif topic in _LATCHED:
                qos = EVENT_QOS
            elif topic in ("joy", "expert/act"):
                qos = ACT_QOS
            name = "/diagnostics" if topic == "diagnostics" else topic
            self.create_subscription(
                message_class(about.type),
                name,
                partial(self._record, topic),
                qos,
                raw=True,
                event_callbacks=None if topic in _WRITTEN_BY_OTHERS else quiet,
            )
        return recorded

    def _record(self, topic: str, data: bytes, info: Mapping[str, Any]) -> None:
        self._traffic.take(topic, self.monotonic_ns(), info)
        if self._bag is None:
            if topic == "expert/act":
                self._on_act_between(deserialize_message(data, OperatorAct))
            return
        # In real time what still comes from before the reset is not of this episode.
        if self._drives_simulation and not self.lockstep and self._first_tick is None:
            return
        message = Received(topic, self._now_ns(), data)
        try:
            for kept in [message] if self._filter is None else self._filter.take(message):
                self._bag.write(*kept)
            self._bag.sync(message.time_ns)
        except OSError as error:
            bag, self._bag = self._bag, None
            self._abandon(bag, error)
            return
        if topic == "supervisor/decision":
            self._last_decision, self._decisions = data, self._decisions + 1
            self._stop_when_complete()
        elif topic == "expert/act":
            self._on_act(deserialize_message(data, OperatorAct))

    def _on_act(self, act: Any) -> None:
        """Keeps what the operator did, and ends the episode where that was the act."""
        if act.act == Act.BEGIN:
            self.get_logger().warning(f"begin of the pad has no effect: episode {self._episode} is being recorded")
        if not self._acts.take(act):
            return
        self._drain()  # what was sent before belongs to the episode
        success, discard = act.act == Act.SUCCESS, act.act == Act.DISCARD
        try:
            self.stop(success=success, failure=act.failure, metric=math.nan, discard=discard)
        except DaggerError as error:
            self.get_logger().error(str(error))

    def _on_act_between(self, act: Any) -> None:
        """Begins an episode where that is the act; what is about one finds none."""
        if act.act == Act.BEGIN and act.contract_sha256 == self.contract.sha256:
            try:
                self._begin_episode(seed=-1)
            except DaggerError as error:
                self._refused = f"the pad's begin was refused: {error}"
                self.get_logger().warning(self._refused)
        elif act.act in (*ENDS, Act.UNDO):
            self.get_logger().warning(f"{act_of(act)['act']} of the pad has no effect: no episode is being recorded")

    def _abandon(self, bag: BagWriter, error: OSError) -> None:
        """The disk does not take it: keeps what is there, and says so; nobody else is held up."""
        self._problem = f"recording of episode {self._episode} stopped, its bag is not whole: {error.strerror}"
        if error.filename:
            self._problem += f" ({error.filename})"
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
        if self.lockstep and self._decisions < tick.tick - self._first_tick.tick:
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
            except DaggerError:
                return  # logged, and on /diagnostics; the timer tries again
            self._reset.call_async(ResetSim.Request(seed=self._next_seed))
            self._next_seed += 1

    def _on_timer(self) -> None:
        if not self.active:
            return
        # Repeated: a bag that begins later, and a node that joins late, must see it too.
        self._events.publish(self._event)
        graph_is_up = self.count_publishers("supervisor/decision") > 0
        if self._drives_simulation and graph_is_up:
            self._next_simulated_episode()

    def _on_start(self, request: Any, response: Any) -> Any:
        try:
            response.episode = self._begin_episode(request.seed)
            response.success, response.message = True, f"recording episode {self._episode}"
        except DaggerError as error:
            response.success, response.message, response.episode = False, str(error), -1
        return response

    def _begin_episode(self, seed: int) -> int:
        """Opens the episode that a person asks for, as `start` does, if everything comes in that it needs."""
        self._drain()  # so that nothing looks old that only waits to be taken
        if missing := self._traffic.missing(self.monotonic_ns()):
            raise DaggerError("expected every observation and the decisions to come in; " + "; ".join(missing))
        return self.start(seed)

    def _on_stop(self, request: Any, response: Any) -> Any:
        self._drain()  # what was sent before the request belongs to the episode
        try:
            kept = self.stop(
                success=request.success, failure=request.failure, metric=request.metric, discard=request.discard
            )
            response.success = kept or request.discard
            response.message = f"episode {self._episode} finished" if kept else self._discarded(asked=request.discard)
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


def _problem_of(out: str) -> str:
    """What is wrong with the folder, behind `expected`; empty: nothing."""
    if not out:
        return "the parameter 'out' (folder of the round), got nothing"
    try:
        if stat.S_ISDIR(os.stat(out).st_mode):
            return ""
    except FileNotFoundError:
        return ""  # the first episode makes it
    except OSError as error:
        return f"a folder that can be written for the parameter 'out', got {out}: {error.strerror}"
    return f"a folder for the parameter 'out', got the file {out}"


def _free_bytes(folder: Path) -> int:
    """Of the disk that a folder is on, or will be."""
    for there in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(there).free
    return 0


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(AggregatorNode, args)


if __name__ == "__main__":
    main()
