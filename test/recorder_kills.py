"""kill -9 of the aggregator in a running graph: what `recover` makes of what it leaves. For test and benchmark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagger_ros.contract import Contract, RowLayout, load_contract, stamp_ns
from dagger_ros.dataset import episode_folder, read_rows, recover_episode, unfinished_episodes
from dagger_ros.msg import GateDecision
from dagger_ros.nodes.qos import GraphQos
from dagger_ros.srv import StartEpisode, StopEpisode
from graph import PATIENCE_S, Graph, GraphError, running_graph

__all__ = ["LARGEST_LOSS_S", "RecorderKill", "kill_recorders"]

CONTRACT = Path(__file__).resolve().parent.parent / "config" / "contracts" / "peg.yaml"
# Of the open episode, whenever its recorder is killed.
LARGEST_LOSS_S = 1.0
# Decisions of an episode before it is killed.
_FEWEST, _MOST = 20, 60


@dataclass(frozen=True)
class RecorderKill:
    """What was left of one episode.

    Args:
        decisions: That were heard of it when its recorder was killed.
        recovered: Of those, in the bag that `recover` made.
        loss_s: From the last recovered one to the last one heard, on the robot's clock.
        finished: Episodes before it that were finished, and are whole.
    """

    decisions: int
    recovered: int
    loss_s: float
    finished: int


def kill_recorders(domain: int, folder: Path, *, kills: int, seed: int) -> Iterator[RecorderKill]:
    """Kills so many aggregators, each at a random decision of its second episode, and recovers what they left.

    Args:
        domain: Of ROS.
        folder: For everything; empty.
        kills: How many.
        seed: Of the moments.

    Raises:
        GraphError: If the graph does not do what it should.
    """
    contract, rng, round_ = load_contract(CONTRACT), np.random.default_rng(seed), folder / "round"
    heard: list[int] = []
    with running_graph(domain, folder) as graph:
        qos = GraphQos(lockstep=False)
        graph.node.create_subscription(
            GateDecision, "supervisor/decision", lambda d: heard.append(stamp_ns(d.header.stamp)), qos.record
        )
        common = {"contract": CONTRACT, "use_sim_time": True}
        graph.start("mujoco_bridge", contract=CONTRACT, seed=0, repeat=True)
        graph.start("supervisor", **common, rule="bc", round=0, auto_arm=True, needs_policy=False)
        graph.start("expert_label", **common)
        for kill in range(kills):
            graph.start("aggregator", **common, out=round_, round=0, rule="bc")
            for of_two in range(2):
                start(graph)
                heard.clear()
                count = int(rng.integers(_FEWEST, _MOST))
                graph.wait_for(lambda count=count: len(heard) >= count)
                if of_two == 0:
                    graph.ask(StopEpisode, "aggregator/stop_episode", StopEpisode.Request(success=True))
            graph.kill("aggregator")
            yield _recovered(contract, round_, list(heard), finished=kill + 1)


def start(graph: Graph) -> None:
    """Starts an episode; the aggregator refuses while it does not see every stream yet."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        answer = graph.ask(StartEpisode, "aggregator/start_episode", StartEpisode.Request(seed=-1))
        if answer is not None and (answer.success or "is being recorded" in answer.message):
            return
        # Its first answer may have been lost; else it says why not.
        assert answer is None or "expected every observation" in answer.message, answer.message
    raise GraphError(f"no episode starts: {answer}\n{graph.logs()}")


def _recovered(contract: Contract, round_: Path, heard: list[int], finished: int) -> RecorderKill:
    (unfinished,) = unfinished_episodes(round_)
    recover_episode(unfinished)
    layout = RowLayout(contract)
    whole = [i for i in range(0, 2 * finished, 2) if len(read_rows(episode_folder(round_, i) / "bag", layout))]
    last_ns = int(read_rows(unfinished / "bag", layout)["time_ns"][-1])
    kept = sum(stamp <= last_ns for stamp in heard)
    return RecorderKill(len(heard), kept, max(0, heard[-1] - last_ns) * 1e-9, len(whole))
