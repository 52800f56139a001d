"""kill -9 of one node of a running graph: what the others do, and what it takes to go on. For test and benchmark.

The harness is the person: it arms, gives control to the policy, starts episodes and restarts what it killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from std_srvs.srv import Trigger

from dagger_ros.contract import Contract, Mode, load_contract, stamp_ns
from dagger_ros.msg import EpisodeEvent, GateDecision, SimTick
from dagger_ros.nodes.base import LEVEL_WARN
from dagger_ros.nodes.qos import EVENT_QOS, GraphQos
from dagger_ros.srv import ResetSim, StartEpisode
from dagger_ros.supervisor import Reason, Response, response_bits
from graph import PATIENCE_S, Graph, GraphError, running_graph
from restless import restless_policy

__all__ = ["EXPECTED", "NODES", "Kill", "KillRig", "killing"]

CONTRACT = Path(__file__).resolve().parent.parent / "config" / "contracts" / "peg.yaml"
NODES = ("policy", "expert_label", "supervisor", "aggregator", "mujoco_bridge")

# What the supervisor must say of the death of each other node.
EXPECTED = {
    "policy": (Mode.HOLD, Reason.POLICY_STALE),
    "expert_label": (Mode.HOLD, Reason.EXPERT_STALE),
    "aggregator": (Mode.HOLD, Reason.RECORDER_STALE),
    "mujoco_bridge": (Mode.LOCKED, Reason.OBSERVATION_STALE),
}
# What the bridge must say of the death of the supervisor.
_BRIDGE_REPORT = "stopped by itself"
# What a person asks for next, by the mode that the supervisor is in.
_EDGES = {Mode.ESTOP: "reset_estop", Mode.LOCKED: "arm", Mode.HOLD: "resume"}
_DRIVEN = (Mode.POLICY, Mode.EXPERT)
_OBJECTIONS = Reason(
    response_bits(Response.HOLD_EXPERT, Response.HOLD_POLICY, Response.HOLD, Response.LOCK, Response.ESTOP)
)
# Decisions without an objection after a restart during which nothing may drive.
_QUIET_DECISIONS = 10
# The policy drives and the tool moves in each of so many ticks before a kill.
_MOVING_TICKS = 5
# Ticks of an episode before its end in which nobody is killed: the reset would stop the arm.
_LAST_TICKS = 30
# A kill counts as settled after so long, and so many ticks at rest: several times the largest age limit.
_SETTLED_S, _SETTLED_TICKS = 1.0, 10
# Episodes in which the policy is held by something else, or that end too early, before a kill is given up.
_ATTEMPTS = 20


@dataclass(frozen=True)
class Kill:
    """What one kill led to.

    Args:
        node: That was killed.
        tick: Of the episode.
        stop_s: From the kill until the plant was at rest; of the bridge: until the supervisor was locked and sent
            nothing that moves.
        report_s: From the kill until somebody said why.
        mode: Of the supervisor when it said so; None: it was the one that was killed.
        reasons: What the supervisor objected to before the node was started again.
        driven: Decisions that let somebody drive, from rest until all was fresh again with nobody asked.
        moved_m: Way of the tool in that time, resets left out, m.
    """

    node: str
    tick: int
    stop_s: float
    report_s: float
    mode: Mode | None
    reasons: tuple[str, ...]
    driven: int
    moved_m: float


@dataclass(frozen=True)
class _Decision:
    ns: int
    mode: Mode
    objections: Reason
    still: bool  # nothing was sent, or zeros
    recorded: bool  # the supervisor knows of an episode


@dataclass(frozen=True)
class _Step:
    """How far the tool came in one tick, m; 0 for a reset."""

    ns: int
    length_m: float


class _Watch:
    """What is heard of a graph. Times are of the monotonic clock of this process, at receipt.

    The kill and what it leads to are timed on that one clock: no clock of a node matters, not even a simulated one
    that stops with its node, and the way of a message counts against the graph.
    """

    def __init__(self, node: Any, contract: Contract) -> None:
        self.decisions: list[_Decision] = []
        self.steps: list[_Step] = []
        self.driver_stops_ns: list[int] = []
        self.warnings_ns: list[int] = []
        self.is_recording = False
        self.tick = self.start_tick = 0
        self._place: Any = None  # of the tool, m
        self._places: dict[int, Any] = {}  # by stamp, until the SimTick of that stamp says what they are
        self._started: dict[int, bool] = {}
        qos = GraphQos(lockstep=False)
        tool = contract.streams["tool_position"].topic
        node.create_subscription(PoseStamped, tool, self._on_tool, qos.sensor)
        node.create_subscription(SimTick, "sim/tick", self._on_tick, qos.record)
        node.create_subscription(GateDecision, "supervisor/decision", self._on_decision, qos.record)
        node.create_subscription(EpisodeEvent, "episode", self._on_episode, EVENT_QOS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def forget(self, name: str) -> None:
        """A node starts: what was known of the one before it does not count."""
        if name == "aggregator":
            self.is_recording = False
        if name == "mujoco_bridge":
            self._place = None

    def _on_tool(self, message: Any) -> None:
        position = message.pose.position
        self._places[stamp_ns(message.header.stamp)] = np.array([position.x, position.y, position.z])
        self._join(stamp_ns(message.header.stamp))

    def _on_tick(self, tick: Any) -> None:
        self.tick = tick.tick
        if tick.start:
            self.start_tick = tick.tick
        if tick.driver_stopped:
            self.driver_stops_ns.append(time.monotonic_ns())
        if not tick.done:  # with the last tick of an episode no observation comes
            self._started[stamp_ns(tick.header.stamp)] = tick.start
            self._join(stamp_ns(tick.header.stamp))

    def _join(self, stamp: int) -> None:
        """The step of a tick, once both its pose and its SimTick are there, whichever came first."""
        if stamp not in self._places or stamp not in self._started:
            return
        place, before = self._places[stamp], self._place
        moved = not self._started[stamp] and before is not None
        self._places.clear()
        self._started.clear()
        self._place = place
        self.steps.append(_Step(time.monotonic_ns(), float(np.linalg.norm(place - before)) if moved else 0.0))

    def _on_decision(self, decision: Any) -> None:
        sent = np.nan_to_num(np.asarray(decision.executed_action))
        objections = Reason(decision.reasons) & _OBJECTIONS
        still, recorded = not sent.any(), decision.episode >= 0
        self.decisions.append(_Decision(time.monotonic_ns(), Mode(decision.mode), objections, still, recorded))

    def _on_episode(self, event: Any) -> None:
        self.is_recording = event.event == EpisodeEvent.STARTED

    def _on_diagnostics(self, array: Any) -> None:
        for status in array.status:
            if status.level == LEVEL_WARN and status.message.startswith(_BRIDGE_REPORT):
                self.warnings_ns.append(time.monotonic_ns())


class KillRig:
    """The running graph and its person.

    Attributes:
        contract: Of the graph.
        rest_m: A tool that moves by less altogether is at rest: by the contract's resolution its sensor cannot tell
            that from one that stands still.
        bound_s: The largest of the contract's age limits and two ticks, s.
    """

    def __init__(self, graph: Graph, folder: Path) -> None:
        self.contract = contract = load_contract(CONTRACT)
        self.rest_m = contract.streams["tool_position"].resolution
        self._period_s = contract.timing.period_ns * 1e-9
        self._last_tick = contract.horizon_ticks - _LAST_TICKS
        timing = contract.timing
        ages_s = [stream.max_age_s for stream in contract.streams.values()]
        ages_s += [timing.policy_max_age_s, timing.expert_max_age_s, timing.driver_timeout_s]
        self.bound_s = max(ages_s) + 2 * self._period_s
        self._graph = graph
        self._watch = _Watch(graph.node, contract)
        self._policy = restless_policy(folder / "policy", contract)
        common = {"contract": CONTRACT, "use_sim_time": True}
        self._parameters: dict[str, dict[str, object]] = {
            "mujoco_bridge": {"contract": CONTRACT, "seed": 0, "repeat": True},
            "supervisor": {**common, "rule": "hg", "auto_arm": False},
            "policy": {**common, "policy": self._policy},
            "expert_label": {**common, "expert": "scripted"},
            "aggregator": {**common, "out": folder / "round"},
        }
        for name in self._parameters:
            self._start(name)
        self._wait_until_fresh()

    def drive(self) -> None:
        """What a person does so that the policy drives in a recorded episode, until the arm really moves."""
        self._repeat_until(lambda: self._watch.is_recording, self._start_recording)
        self._repeat_until(self._is_moving, self._ask_for_control)

    def kill(self, node: str, *, seed: int, after_s: float) -> Kill:
        """Lets the policy drive an episode, kills a node, waits for rest, starts it again, and looks on.

        Args:
            node: One of `NODES`.
            seed: Of the episode.
            after_s: From the first tick at which the policy drives and the arm moves to the kill.

        Raises:
            GraphError: If the plant does not come to rest, nobody says why, the graph does not become whole again,
                or another node ends.
        """
        watch = self._watch
        tick = self._drive_an_episode(seed, after_s)
        steps, decisions = len(watch.steps), len(watch.decisions)
        killed_ns = time.monotonic_ns()
        self._graph.kill(node)
        try:
            stop_ns = self._wait_for_stop(node, killed_ns, steps, decisions)
            report_ns, mode = self._wait_for_report(node, killed_ns, decisions)
        except GraphError as error:
            seen = f"{watch.decisions[-1]}, {watch.steps[-1]}, {len(watch.decisions) - decisions} decisions since"
            raise GraphError(f"after kill -9 of {node}: {seen}; {error}") from error
        objections = Reason(0)
        for decision in watch.decisions[decisions:]:
            objections |= decision.objections
        steps, decisions = len(watch.steps), len(watch.decisions)
        self._start(node)
        self._wait_until_fresh()
        return Kill(
            node=node,
            tick=tick,
            stop_s=(stop_ns - killed_ns) * 1e-9,
            report_s=(report_ns - killed_ns) * 1e-9,
            mode=mode,
            reasons=tuple(objections.words().split("|")) if objections else (),
            driven=sum(d.mode in _DRIVEN for d in watch.decisions[decisions:]),
            moved_m=sum(s.length_m for s in watch.steps[steps:]),
        )

    def _start(self, name: str) -> None:
        self._watch.forget(name)
        self._graph.start(name, **self._parameters[name])

    def _drive_an_episode(self, seed: int, after_s: float) -> int:
        """Gives the tick of the episode at which to kill: the policy drives, the arm moves, and no reset is near."""
        watch = self._watch
        for _ in range(_ATTEMPTS):
            watch.start_tick = -1
            self._repeat_until(lambda: watch.start_tick >= 0, lambda: self._reset(seed))
            self.drive()
            self._listen(after_s)
            tick = watch.tick - watch.start_tick
            if self._is_moving() and tick <= self._last_tick:
                return tick
        raise GraphError(f"the policy never drove long enough for a kill\n{self._graph.logs()}")

    def _wait_for_stop(self, node: str, killed_ns: int, steps: int, decisions: int) -> int:
        """Listens until the plant has been at rest for a while, and gives since when."""
        watch = self._watch

        def is_over() -> bool:
            if time.monotonic_ns() < killed_ns + _SETTLED_S * 1e9:
                return False
            if node == "mujoco_bridge":
                newest = watch.decisions[decisions:][-_SETTLED_TICKS:]
                return len(newest) == _SETTLED_TICKS and all(map(_is_locked, newest))
            last = watch.steps[steps:][-_SETTLED_TICKS:]
            return len(last) == _SETTLED_TICKS and sum(s.length_m for s in last) <= self.rest_m

        self._graph.wait_for(is_over)
        stop_ns = killed_ns
        if node == "mujoco_bridge":  # the plant is gone; what counts is when nothing would have driven it any more
            for before, after in pairwise(watch.decisions[decisions:]):
                if _is_locked(after) and not _is_locked(before):
                    stop_ns = after.ns
            return stop_ns
        left_m = sum(s.length_m for s in watch.steps[steps:])
        for step in watch.steps[steps:]:
            if left_m <= self.rest_m:
                break
            left_m -= step.length_m
            stop_ns = step.ns
        return stop_ns

    def _wait_for_report(self, node: str, killed_ns: int, decisions: int) -> tuple[int, Mode | None]:
        """Listens until somebody has said why; gives since when, and the supervisor's mode then.

        Of the supervisor's own death the bridge says it: at once in its ticks, and in words on /diagnostics.
        """
        watch = self._watch
        reports: list[tuple[int, Mode | None]] = []

        def is_reported() -> bool:
            if node == "supervisor":
                warned = any(ns > killed_ns for ns in watch.warnings_ns)
                reports[:] = [(ns, None) for ns in watch.driver_stops_ns if ns > killed_ns and warned]
            else:
                mode, reason = EXPECTED[node]
                modes = (mode, Mode.LOCKED)  # of a machine that stalls too the supervisor may ask for more
                heard = watch.decisions[decisions:]
                reports[:] = [(d.ns, d.mode) for d in heard if d.mode in modes and d.objections & reason]
            return bool(reports)

        self._graph.wait_for(is_reported)
        return reports[0]

    def _wait_until_fresh(self) -> None:
        """Until nothing has been objected to for `_QUIET_DECISIONS` in a row."""
        watch, first = self._watch, len(self._watch.decisions)

        def is_fresh() -> bool:
            newest = watch.decisions[first:][-_QUIET_DECISIONS:]
            return len(newest) == _QUIET_DECISIONS and not any(d.objections for d in newest)

        self._graph.wait_for(is_fresh)

    def _is_moving(self) -> bool:
        decisions, steps = self._watch.decisions[-_MOVING_TICKS:], self._watch.steps[-_MOVING_TICKS:]
        # A supervisor that was started a moment ago may not have heard of the recorder yet, and would not miss it.
        driven = all(d.mode is Mode.POLICY and d.recorded for d in decisions)
        return driven and all(s.length_m > self.rest_m for s in steps)

    def _start_recording(self) -> None:
        self._graph.ask(StartEpisode, "aggregator/start_episode", StartEpisode.Request(seed=-1))
        self._listen(2 * self._period_s)

    def _ask_for_control(self) -> None:
        wanted = _EDGES.get(self._watch.decisions[-1].mode)
        if wanted is not None:
            self._graph.ask(Trigger, f"supervisor/{wanted}", Trigger.Request())
        self._listen(2 * _MOVING_TICKS * self._period_s)

    def _reset(self, seed: int) -> None:
        self._graph.ask(ResetSim, "mujoco_bridge/reset", ResetSim.Request(seed=seed))
        self._listen(2 * self._period_s)

    def _repeat_until(self, done: Callable[[], bool], act: Callable[[], None]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > end_s:
                raise GraphError(f"asked in vain; last {self._watch.decisions[-1]}\n{self._graph.logs()}")
            act()

    def _listen(self, time_s: float) -> None:
        end_s = time.monotonic() + time_s
        self._graph.wait_for(lambda: time.monotonic() >= end_s)


def _is_locked(decision: _Decision) -> bool:
    return decision.mode is Mode.LOCKED and decision.still


@contextmanager
def killing(domain: int, folder: Path) -> Iterator[KillRig]:
    """A running graph to kill nodes of, with nobody in control yet.

    Args:
        domain: ROS domain; the nodes take it from the environment.
        folder: For what the graph writes.
    """
    with running_graph(domain, folder) as graph:
        yield KillRig(graph, folder)
