"""The whole graph in one process, in lockstep with the simulation: how rounds are collected in simulation."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rclpy

from dagger_ros.contract import DaggerError
from dagger_ros.nodes.aggregator import AggregatorNode
from dagger_ros.nodes.base import ContractNode
from dagger_ros.nodes.expert_label import ExpertLabelNode
from dagger_ros.nodes.mujoco_bridge import MujocoBridgeNode
from dagger_ros.nodes.network import stay_on_this_machine
from dagger_ros.nodes.policy import PolicyNode
from dagger_ros.nodes.spin import poll
from dagger_ros.nodes.supervisor import SupervisorNode
from dagger_ros.sim.experts import labeller_of_rule
from dagger_ros.sim.plant import TaskStatus
from dagger_ros.supervisor import RuleOptions

__all__ = ["LockstepGraph", "collect_round"]


class LockstepGraph:
    """Bridge, policy, expert, supervisor and aggregator on real topics, run by polling them in turn.

    Args:
        contract_path: The task contract.
        rule: Rule of the round.
        round_index: Number of the round.
        options: Of the rule; None: the default ones.
        policy: Folder of a checkpoint; None: no policy node.
        out: Folder of the round; None: nothing is recorded.
        expert: Whether there is an expert node.
        perturbation: Settings of `Perturbation` by name.
    """

    def __init__(
        self,
        contract_path: str | Path,
        *,
        rule: str,
        round_index: int,
        options: RuleOptions | None = None,
        policy: Path | None = None,
        out: Path | None = None,
        expert: bool = True,
        perturbation: dict[str, float] | None = None,
    ) -> None:
        common = {"contract": str(contract_path), "lockstep": True}
        # A name of its own, so that graphs beside this one, on any machine, do not hear each other.
        self._namespace = f"lockstep_{uuid.uuid4().hex[:12]}"
        self._context = rclpy.context.Context()
        stay_on_this_machine()
        rclpy.init(context=self._context, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
        self._nodes: list[ContractNode] = []
        try:
            settings = {f"perturbation.{name}": value for name, value in (perturbation or {}).items()}
            self._bridge = self._add(MujocoBridgeNode, common | settings | {"publish_clock": False})
            if policy is not None:
                self._add(PolicyNode, common | {"policy": str(policy)})
            if expert:
                self._add(ExpertLabelNode, common | {"expert": labeller_of_rule(rule, round_index)})
            waits = {"needs_policy": policy is not None, "needs_expert": expert}
            about = {"rule": rule, "round": round_index}
            limits = {"policy": "" if policy is None else str(policy)}
            self._add(
                SupervisorNode, common | waits | about | limits | asdict(options or RuleOptions()) | {"auto_arm": True}
            )
            self._aggregator: AggregatorNode | None = None
            if out is not None:
                self._aggregator = self._add(AggregatorNode, common | about | {"out": str(out)})
        except DaggerError:
            self.close()
            raise
        self._subscriptions = [list(node.subscriptions) for node in self._nodes]

    def run_episode(self, seed: int) -> TaskStatus:
        """Runs and records one episode.

        Args:
            seed: Of the initial state and of everything random.

        Returns:
            How the task ended.

        Raises:
            DaggerError: If the graph stands still: a node did not answer.
        """
        aggregator = self._aggregator
        if aggregator is not None:
            aggregator.start(seed)
            self._settle()
        self._bridge.reset(seed)
        while self._bridge.status is None or not self._bridge.status.done:
            if self._poll() == 0:
                raise DaggerError(f"the graph stands still at tick {self._bridge.plant.tick}: a node does not answer")
        self._settle()
        status: TaskStatus = self._bridge.status
        if aggregator is not None:
            aggregator.stop(success=status.success, failure=status.failure, metric=status.metric)
        return status

    def close(self) -> None:
        """Ends every node."""
        for node in self._nodes:
            node.destroy_node()
        self._context.try_shutdown()

    def __enter__(self) -> LockstepGraph:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settle(self) -> None:
        while self._poll():
            pass

    def _poll(self) -> int:
        """One turn of every node; 0: nothing waits any more."""
        return sum([poll(subscriptions) for subscriptions in self._subscriptions])

    def _add(self, make: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        node = make(parameters, self._context, self._namespace)
        self._nodes.append(node)
        return node


def collect_round(
    contract_path: Path,
    folder: Path,
    *,
    rule: str,
    round_index: int,
    options: RuleOptions,
    policy: Path | None,
    seeds: Sequence[int],
    on_episode: Callable[[TaskStatus], object],
) -> int:
    """Records the episodes of one round; see `dagger_ros.dagger.Collect`.

    Args:
        contract_path: The task contract.
        folder: Of the round.
        rule: Of the run.
        round_index: Number of the round.
        options: Of the rule.
        policy: Folder of the checkpoint that drives; None in round 0.
        seeds: One for each episode.
        on_episode: Called after each one.

    Returns:
        How many episodes were recorded.
    """
    with LockstepGraph(
        contract_path, rule=rule, round_index=round_index, options=options, policy=policy, out=folder
    ) as graph:
        for seed in seeds:
            on_episode(graph.run_episode(seed))
    return len(seeds)
