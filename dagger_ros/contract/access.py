"""What each node of a graph reads, writes, answers and asks for, and no more: as a policy file of SROS2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from dagger_ros.contract.errors import DaggerError
from dagger_ros.contract.schema import Contract

__all__ = ["LIFECYCLE", "LIFECYCLE_NODES", "Access", "graph_access", "policy_text"]

# The only one that SROS2 knows.
_POLICY_VERSION = "0.2.0"
_SUPERVISOR_SERVICES = ("arm", "hold", "resume", "estop", "reset_estop")
_SAID_BY_SUPERVISOR = ("supervisor/decision", "supervisor/help", "supervisor/settings")
_STATES = ("change_state", "get_state", "get_available_states", "get_available_transitions")


@dataclass(frozen=True)
class Access:
    """The rights of one node.

    Names are relative to the namespace; `~/` stands for the node, and `/` begins a name outside of the namespace.

    Args:
        publish: Topics.
        subscribe: Topics.
        reply: Services that it offers.
        request: Services that it calls.
    """

    publish: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()
    reply: frozenset[str] = frozenset()
    request: frozenset[str] = frozenset()

    def __or__(self, other: Access) -> Access:
        """The rights of both."""
        return Access(
            self.publish | other.publish,
            self.subscribe | other.subscribe,
            self.reply | other.reply,
            self.request | other.request,
        )


# What rclpy gives every node.
_NODE = Access(
    publish=frozenset({"/parameter_events", "/rosout"}),
    reply=frozenset(
        f"~/{name}"
        for name in (
            "describe_parameters",
            "get_parameter_types",
            "get_parameters",
            "get_type_description",
            "list_parameters",
            "set_parameters",
            "set_parameters_atomically",
        )
    ),
)
# What a managed node has besides.
LIFECYCLE = Access(
    publish=frozenset({"~/transition_event"}),
    reply=frozenset(f"~/{name}" for name in (*_STATES, "get_transition_graph")),
)
LIFECYCLE_NODES = ("supervisor", "policy", "expert_label", "aggregator")


def graph_access(contract: Contract, *, simulation: bool) -> dict[str, Access]:
    """Gives the rights of each node under a contract, by its name.

    `driver` stands for whatever drives the robot, `operator` for the tools of the people around it: they read
    everything, call the services of the graph, and publish the emergency stop. `joy_node` and the expert's acts are
    there if the contract has a section `expert`.

    Args:
        contract: Names the topics.
        simulation: MuJoCo stands for the robot, in real time or in lockstep; every node may read the simulated clock,
            which is that of the namespace.
    """
    observed = frozenset(contract.topics)
    seen = frozenset(stream.topic for stream in contract.streams.values() if not stream.privileged)
    pictures = frozenset(camera.topic for camera in contract.cameras.values())
    command = frozenset({contract.action.topic})
    has_pad = contract.expert is not None
    decision, episode = "supervisor/decision", "episode"
    ticks = {"sim/tick"} if simulation else set[str]()
    joy, acts = ({"joy"}, {"expert/act"}) if has_pad else (set[str](), set[str]())

    own = _NODE | Access(publish=frozenset({"/diagnostics"}))
    common = own | Access(subscribe=frozenset({"clock"} if simulation else ()))
    rights = {
        "supervisor": common
        | Access(
            publish=command.union(_SAID_BY_SUPERVISOR),
            subscribe=observed.union({"policy/action", "expert/action", "expert/act", "estop", episode}, ticks),
            reply=frozenset(f"~/{name}" for name in _SUPERVISOR_SERVICES),
        ),
        "policy": common
        | Access(
            publish=frozenset({"policy/action"}),
            subscribe=seen.union(pictures, {decision, episode}, ticks),
            reply=frozenset({"~/load_policy"}),
        ),
        "expert_label": common
        | Access(
            publish=frozenset({"expert/action"}).union(acts, {"joy/set_feedback"} if has_pad else ()),
            subscribe=observed.union({decision, episode}, joy, ticks),
        ),
        "aggregator": common
        | Access(
            publish=frozenset({episode}),
            subscribe=observed.union(
                pictures,
                command,
                _SAID_BY_SUPERVISOR,
                {"policy/action", "expert/action", "expert/act", "joy", "estop", episode, "sim/tick", "/diagnostics"},
            ),
            reply=frozenset({"~/start_episode", "~/stop_episode"}),
            request=frozenset({"mujoco_bridge/reset"} if simulation else ()),
        ),
    }
    for name in LIFECYCLE_NODES:
        rights[name] |= LIFECYCLE
    if simulation:
        rights["mujoco_bridge"] = own | Access(
            publish=observed.union(pictures, ticks, {"clock"}),
            subscribe=command.union({decision}),
            reply=frozenset({"~/reset", "~/pause"}),
        )
    else:
        rights["driver"] = common | Access(publish=observed | pictures, subscribe=command)
    if has_pad:
        rights["joy_node"] = _NODE | Access(publish=frozenset({"joy"}), subscribe=frozenset({"joy/set_feedback"}))
    if has_pad and simulation:
        rights["simulated_operator"] = common | Access(
            publish=frozenset({"joy"}), subscribe=observed.union({decision, episode})
        )
    rights["operator"] = _operator(rights)
    return rights


def _operator(rights: Mapping[str, Access]) -> Access:
    """Reads what any node says, calls what the nodes of the graph offer, but for their parameters."""
    said = {topic.replace("~", name) for name, access in rights.items() for topic in access.publish}
    offered = {
        service.replace("~", name)
        for name, access in rights.items()
        for service in access.reply - _NODE.reply - {"~/get_transition_graph"}
    }
    return _NODE | Access(frozenset({"estop"}), frozenset(said | {"estop"}), request=frozenset(offered))


def policy_text(rights: Mapping[str, Access], namespace: str = "") -> str:
    """Gives the policy file, with an enclave for each node that is called as the node is, as in `/left/supervisor`.

    Args:
        rights: By name of the node.
        namespace: Of the nodes, as in `left` or `/cell/left`; empty: none.

    Raises:
        DaggerError: If the namespace is none that ROS allows.
    """
    names = namespace.strip("/")
    if names and not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", names, re.ASCII):
        raise DaggerError(f"namespace: expected letters, digits and _ between /, as in /cell/left; got {namespace!r}")
    place = f"/{names}" if names else ""
    policy = ElementTree.Element("policy", version=_POLICY_VERSION)
    enclaves = ElementTree.SubElement(policy, "enclaves")
    for node, access in rights.items():
        enclave = ElementTree.SubElement(enclaves, "enclave", path=f"{place}/{node}")
        profiles = ElementTree.SubElement(enclave, "profiles")
        profile = ElementTree.SubElement(profiles, "profile", ns=place or "/", node=node)
        for kind, right, allowed in _rules(access):
            rule = ElementTree.SubElement(profile, f"{kind}s", {right: "ALLOW"})
            for name in sorted(allowed):
                ElementTree.SubElement(rule, kind).text = name
    ElementTree.indent(policy)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(policy, encoding="unicode")}\n'


def _rules(access: Access) -> Iterator[tuple[str, str, Iterable[str]]]:
    """What there is of topics and services, each with the attribute that grants it."""
    rules = (
        ("topic", "publish", access.publish),
        ("topic", "subscribe", access.subscribe),
        ("service", "reply", access.reply),
        ("service", "request", access.request),
    )
    return (rule for rule in rules if rule[2])
