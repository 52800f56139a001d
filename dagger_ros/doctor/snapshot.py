"""A running graph as plain data: who is there, who writes and reads what, what came, and what nodes say of themselves.

Topics go by the names that the contract and the nodes give them, without namespace.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from dagger_ros.contract import Contract

__all__ = [
    "GRAPH_TOPICS",
    "ROLES",
    "Arrival",
    "DriverTest",
    "Endpoint",
    "Mismatch",
    "NodeSeen",
    "Role",
    "Settings",
    "Snapshot",
    "observed_topics",
    "topic_types",
]

# Every topic of the graph beside those of the contract, with its type.
GRAPH_TOPICS: Mapping[str, str] = {
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


class Role(enum.Enum):
    """What a node does in the graph, whatever its name."""

    SUPERVISOR = "supervisor"
    POLICY = "policy"
    EXPERT = "expert"
    RECORDER = "recorder"
    SIMULATION = "simulation"


# Who has a role is who writes this.
ROLES: Mapping[Role, str] = {
    Role.SUPERVISOR: "supervisor/decision",
    Role.POLICY: "policy/action",
    Role.EXPERT: "expert/action",
    Role.RECORDER: "episode",
    Role.SIMULATION: "sim/tick",
}


def observed_topics(contract: Contract) -> dict[str, str]:
    """The topics that the robot gives, with their types."""
    return {s.topic: s.type for s in contract.streams.values()} | {c.topic: c.type for c in contract.cameras.values()}


def topic_types(contract: Contract) -> dict[str, str]:
    """Every topic of a graph, with its type."""
    return observed_topics(contract) | {contract.action.topic: contract.action.type} | dict(GRAPH_TOPICS)


@dataclass(frozen=True)
class Endpoint:
    """One writer or one reader of a topic.

    Args:
        node: Full name of its node.
        type: Of the messages.
    """

    node: str
    type: str


@dataclass(frozen=True)
class Mismatch:
    """A writer and a reader that never hear each other.

    Args:
        topic: Between them.
        writer: Full name of its node.
        reader: Full name of its node.
        why: Which qualities of service do not fit, in words.
    """

    topic: str
    writer: str
    reader: str
    why: str


@dataclass(frozen=True)
class Arrival:
    """One message as it came.

    Args:
        system_ns: When, on the clock of the machine that looked, ns.
        clock_ns: The newest /clock at that moment, ns; None: there was none.
        stamp_ns: Of its header, ns; None: it has none.
    """

    system_ns: int
    clock_ns: int | None = None
    stamp_ns: int | None = None


@dataclass(frozen=True)
class NodeSeen:
    """A node. What is None or empty was not said.

    Args:
        name: Full name.
        elsewhere: It runs on another machine than the one that looked; None: the middleware does not tell.
        contract_sha256: That it works under.
        contract_file: Where it read it.
        use_sim_time: Its clock is /clock.
        lockstep: It is run by the ticks of the simulation.
        state: Of its life cycle, as in `inactive`; only nodes of ours say it.
        level: Of its diagnostics; 0: all is well.
        words: Of its diagnostics.
        has_pad: It reads a pad.
        clock_ahead_s: Its clock less that of the machine that looked, s.
    """

    name: str
    elsewhere: bool | None = None
    contract_sha256: str = ""
    contract_file: str = ""
    use_sim_time: bool | None = None
    lockstep: bool | None = None
    state: str = ""
    level: int | None = None
    words: str = ""
    has_pad: bool = False
    clock_ahead_s: float | None = None


@dataclass(frozen=True)
class Settings:
    """Of what the supervisor decides by.

    Args:
        round: 0: demonstrations.
        needs_expert: The policy drives only while the expert node is heard.
    """

    round: int
    needs_expert: bool


@dataclass(frozen=True)
class DriverTest:
    """What a simulated driver did when commands ceased.

    Args:
        stopped_after_s: When it stopped by itself, s after the last command; None: not while it was waited for.
        waited_s: How long it was waited for, s.
    """

    stopped_after_s: float | None
    waited_s: float


@dataclass(frozen=True)
class Snapshot:
    """What was seen.

    Args:
        namespace: Of the graph, as in `/` or `/arm`.
        domain_id: ROS domain.
        is_open: Whoever is in the same network can join.
        seconds: How long messages were counted, s.
        nodes: All of the domain.
        writers: By topic; of the contract's, of `GRAPH_TOPICS` and of /clock.
        readers: Likewise.
        mismatches: On these topics.
        arrivals: Of the messages of each topic that is listened to.
        contracts: SHA-256 of the contracts that stood in the messages of a topic.
        reasons: Of each decision of the supervisor, masks of `dagger_ros.supervisor.Reason`.
        settings: Of the supervisor.
        other_graphs: Nodes of other graphs of this kind, by their namespace.
        known: Patterns of names of nodes that belong here, as in `/camera_*`.
        driver_test: Where it was asked for.
    """

    namespace: str
    domain_id: int
    is_open: bool
    seconds: float
    nodes: tuple[NodeSeen, ...]
    writers: Mapping[str, tuple[Endpoint, ...]]
    readers: Mapping[str, tuple[Endpoint, ...]]
    mismatches: tuple[Mismatch, ...] = ()
    arrivals: Mapping[str, tuple[Arrival, ...]] = field(default_factory=dict)
    contracts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    reasons: tuple[int, ...] = ()
    settings: Settings | None = None
    other_graphs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    known: tuple[str, ...] = ()
    driver_test: DriverTest | None = None

    def of_role(self, role: Role) -> tuple[str, ...]:
        """Full names of the nodes that have a role."""
        return self.writers_of(ROLES[role])

    def writers_of(self, topic: str) -> tuple[str, ...]:
        """Full names of the nodes that write a topic."""
        return tuple(dict.fromkeys(e.node for e in self.writers.get(topic, ())))

    def readers_of(self, topic: str) -> tuple[str, ...]:
        """Full names of the nodes that read a topic."""
        return tuple(dict.fromkeys(e.node for e in self.readers.get(topic, ())))

    def node(self, name: str) -> NodeSeen:
        """What is known of a node."""
        return next((n for n in self.nodes if n.name == name), NodeSeen(name))

    @property
    def graph_nodes(self) -> frozenset[str]:
        """Full names of the nodes on the topics of the graph; those of /clock and /diagnostics do not count."""
        sides = (self.writers, self.readers)
        return frozenset(e.node for side in sides for topic, ends in side.items() if topic[0] != "/" for e in ends)

    @property
    def is_simulated(self) -> bool:
        """Whether a simulation stands for the robot."""
        return bool(self.of_role(Role.SIMULATION))

    @property
    def managed(self) -> tuple[NodeSeen, ...]:
        """The nodes that have a role, but for the simulation, and those of the namespace that say how they are."""
        names = dict.fromkeys(name for role in ROLES if role is not Role.SIMULATION for name in self.of_role(role))
        simulation = self.of_role(Role.SIMULATION)
        for node in self.nodes:
            if node.state and (node.name.rpartition("/")[0] or "/") == self.namespace and node.name not in simulation:
                names[node.name] = None
        return tuple(self.node(name) for name in names)

    @property
    def in_lockstep(self) -> bool:
        """Whether the simulation waits for the graph, so that rates and ages say nothing."""
        return any(node.lockstep for node in self.managed)

    @property
    def uses_sim_time(self) -> bool:
        """Whether the graph's clock is /clock: what the supervisor says, or else any other node."""
        nodes = [self.node(name) for name in self.of_role(Role.SUPERVISOR)] or self.managed
        return any(node.use_sim_time for node in nodes)
