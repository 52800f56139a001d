"""The policy grants what a running graph uses, no less and no more; and no node has a socket to another machine."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import pytest

from conftest import contract_path, next_domain, weak_policy, with_cameras
from dagger_ros.contract import load_contract
from dagger_ros.contract.access import Access, graph_access

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("mujoco")
from rclpy.utilities import get_rmw_implementation_identifier

from dagger_ros.msg import GateDecision
from dagger_ros.nodes.aggregator import AggregatorNode
from dagger_ros.nodes.expert_label import ExpertLabelNode
from dagger_ros.nodes.mujoco_bridge import MujocoBridgeNode
from dagger_ros.nodes.policy import PolicyNode
from dagger_ros.nodes.simulated_operator import SimulatedOperatorNode
from dagger_ros.nodes.supervisor import SupervisorNode
from graph import addresses_of, running_graph

pytestmark = [pytest.mark.ros, pytest.mark.mujoco]


def used_by(node: Any) -> Access:
    """What the middleware knows of a node."""
    asked = node.get_name(), node.get_namespace()

    def names(ask: Callable[..., list[tuple[str, list[str]]]]) -> frozenset[str]:
        return frozenset(name for name, _ in ask(*asked))

    return Access(
        names(node.get_publisher_names_and_types_by_node),
        names(node.get_subscriber_names_and_types_by_node),
        names(node.get_service_names_and_types_by_node),
        names(node.get_client_names_and_types_by_node),
    )


def in_full(access: Access, node: str, namespace: str) -> Access:
    """The same with the names that the graph knows."""

    def full(names: frozenset[str]) -> frozenset[str]:
        return frozenset(n if n.startswith("/") else f"{namespace}/{n.replace('~', node)}" for n in names)

    return Access(full(access.publish), full(access.subscribe), full(access.reply), full(access.request))


@contextmanager
def graph_of(namespace: str, *makes: tuple[Callable[..., Any], Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Nodes in this process, by name, in a domain of their own: of a name that two had, the wrong one may be asked."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=next_domain())
    nodes: list[Any] = []
    try:
        for make, parameters in makes:
            nodes.append(make(parameters, context, namespace))
        yield {node.get_name(): node for node in nodes}
    finally:
        for node in nodes:
            node.destroy_node()
        context.try_shutdown()


def used_in(namespace: str, *makes: tuple[Callable[..., Any], Mapping[str, Any]]) -> dict[str, Access]:
    with graph_of(namespace, *makes) as nodes:
        return {name: used_by(node) for name, node in nodes.items()}


def granted(path: Path, namespace: str, *, simulation: bool) -> dict[str, Access]:
    rights = graph_access(load_contract(path), simulation=simulation)
    return {name: in_full(access, name, namespace) for name, access in rights.items()}


PAD = {"expert": "joystick", "operator_id": "ada"}


def test_on_a_robot_each_node_uses_exactly_what_it_may(tmp_path: Path) -> None:
    path = with_cameras(contract_path("peg"), tmp_path / "contract.yaml", wrist=(32, 24))
    given = {"contract": str(path)}
    used = used_in(
        "/cell",
        (SupervisorNode, given),
        (PolicyNode, given | {"policy": "seeing:make"}),
        (ExpertLabelNode, given | PAD),
        (AggregatorNode, given | {"out": str(tmp_path / "round")}),
    )
    # Others than a person at a pad see what is privileged too.
    used["expert_label"] |= used_in("/cell", (ExpertLabelNode, given))["expert_label"]
    rights = granted(path, "/cell", simulation=False)
    assert used == {name: rights[name] for name in used}
    assert set(rights) - set(used) == {"driver", "joy_node", "operator"}


def test_in_simulation_each_node_uses_exactly_what_it_may(tmp_path: Path) -> None:
    given = {"contract": str(contract_path("peg"))}
    timed = given | {"use_sim_time": True}
    policy = {"policy": str(weak_policy("peg", tmp_path / "pi_000"))}
    out = {"out": str(tmp_path / "round"), "simulation_seed": 0}
    real_time = used_in(
        "",
        (MujocoBridgeNode, given),
        (SupervisorNode, timed),
        (PolicyNode, timed | policy),
        (ExpertLabelNode, timed | PAD),
        (AggregatorNode, timed | out),
        (SimulatedOperatorNode, timed),
    )
    lockstep = used_in(
        "",
        *(
            (make, parameters | {"lockstep": True})
            for make, parameters in (
                (MujocoBridgeNode, given),
                (SupervisorNode, timed),
                (PolicyNode, timed | policy),
                (ExpertLabelNode, timed),
                (AggregatorNode, timed | out),
            )
        ),
    )
    rights = granted(contract_path("peg"), "", simulation=True)
    used = {name: reduce(or_, [run[name] for run in (real_time, lockstep) if name in run]) for name in real_time}
    assert used == {name: rights[name] for name in used}
    assert set(rights) - set(used) == {"joy_node", "operator"}


def test_tools_may_call_every_service_of_the_graph_and_hear_every_topic() -> None:
    given = {"contract": str(contract_path("peg"))}
    used = used_in("/cell", (SupervisorNode, given), (ExpertLabelNode, given | PAD))
    operator = granted(contract_path("peg"), "/cell", simulation=False)["operator"]
    for access in used.values():
        assert access.publish <= operator.subscribe
        assert not {s for s in access.reply - operator.request if not re.search(r"parameter|get_t", s)}


@pytest.mark.skipif(get_rmw_implementation_identifier() != "rmw_fastrtps_cpp", reason="a profile of Fast DDS")
def test_unless_told_otherwise_a_node_has_no_socket_to_another_machine(ros_domain: int, tmp_path: Path) -> None:
    decisions: list[Any] = []
    with running_graph(ros_domain, tmp_path) as graph:
        # This process hears the node with the settings that it has itself.
        graph.node.create_subscription(GateDecision, "supervisor/decision", decisions.append, 10)
        graph.start("supervisor", contract=contract_path("peg"))
        graph.wait_for(lambda: bool(decisions))
        addresses = addresses_of(graph.processes["supervisor"].pid)
    assert addresses
    assert not {a for a in addresses if not a.startswith("127.") and a != "239.255.0.1"}


@pytest.mark.skipif(sys.platform != "linux", reason="sockets are looked up in /proc")
def test_sockets_of_this_process_are_found() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("0.0.0.0", 0))
        other.listen()
        assert {"127.0.0.1", "0.0.0.0"} <= addresses_of(os.getpid())
