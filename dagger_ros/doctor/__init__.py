"""Reads a snapshot of a running graph and gives findings: what is wrong, in words, and what to do about it."""

from dagger_ros.contract import Contract
from dagger_ros.doctor.finding import Code, Finding, Severity
from dagger_ros.doctor.graph import check_graph
from dagger_ros.doctor.snapshot import (
    GRAPH_TOPICS,
    ROLES,
    Arrival,
    DriverTest,
    Endpoint,
    Mismatch,
    NodeSeen,
    Role,
    Settings,
    Snapshot,
    observed_topics,
    topic_types,
)
from dagger_ros.doctor.traffic import check_traffic

__all__ = [
    "GRAPH_TOPICS",
    "ROLES",
    "Arrival",
    "Code",
    "DriverTest",
    "Endpoint",
    "Finding",
    "Mismatch",
    "NodeSeen",
    "Role",
    "Settings",
    "Severity",
    "Snapshot",
    "examine",
    "observed_topics",
    "topic_types",
]


def examine(seen: Snapshot, contract: Contract) -> tuple[Finding, ...]:
    """Everything that is wrong with a graph, the worst first; empty: nothing.

    Args:
        seen: The graph.
        contract: That it is to work under.
    """
    return tuple(sorted((*check_graph(seen, contract), *check_traffic(seen, contract)), key=lambda f: f.severity))
