"""Who is in the graph and what they say of themselves: roles, writers, qualities of service, contracts, strangers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from dagger_ros.contract import Contract
from dagger_ros.doctor.finding import Code, Finding, Severity
from dagger_ros.doctor.snapshot import Role, Snapshot, observed_topics, topic_types
from dagger_ros.supervisor import Reason, Response, response_bits

__all__ = ["check_graph"]

# With these nobody drives, whoever it would be.
_NOBODY_DRIVES = response_bits(Response.HOLD, Response.LOCK, Response.ESTOP) | int(Reason.ESTOP)
_LEVEL_WARN, _LEVEL_ERROR = 1, 2
# What anybody may write: the robot's own emergency stop, and a wall's.
_MANY_WRITERS = ("estop",)
# Listens to commands, and moves nothing.
_RECORDERS = ("rosbag2_*",)
# Between the last command and what tells that the driver stopped lie three loops of one control period each.
_LATE_PERIODS = 3


def check_graph(seen: Snapshot, contract: Contract) -> Iterator[Finding]:
    """What is wrong whatever the messages say."""
    yield from _roles(seen)
    yield from _driver(seen, contract)
    yield from _deadman(seen, contract)
    yield from _writers(seen, contract)
    yield from _types(seen, contract)
    yield from _qualities(seen, contract)
    yield from _contracts(seen, contract)
    yield from _verdicts(seen)
    yield from _strangers(seen)


def _roles(seen: Snapshot) -> Iterator[Finding]:
    settings, beside = seen.settings, Severity.NOTE if seen.is_simulated else Severity.WARNING
    if not seen.of_role(Role.SUPERVISOR):
        yield Finding(
            Code.NO_SUPERVISOR,
            Severity.ERROR,
            "supervisor/decision",
            "a supervisor, without which nothing moves",
            f"none in namespace {seen.namespace}",
            "Start it, or give the namespace that it runs in with --namespace.",
        )
    if not seen.of_role(Role.POLICY) and (settings is None or settings.round > 0):
        yield Finding(
            Code.NO_POLICY,
            Severity.WARNING,
            "policy/action",
            "a policy, since this is no round of demonstrations",
            "no node that proposes",
            "Start the node policy; for demonstrations start the supervisor with round:=0.",
        )
    if not seen.of_role(Role.EXPERT):
        held = settings is None or settings.needs_expert
        yield Finding(
            Code.NO_EXPERT,
            Severity.ERROR if held else Severity.WARNING,
            "expert/action",
            "an expert, who can take over",
            "no node that labels" + (", and the supervisor lets no policy drive without (needs_expert)" * held),
            "Start the node expert_label.",
        )
    if not seen.of_role(Role.RECORDER):
        yield Finding(
            Code.NO_RECORDER,
            beside,
            "episode",
            "an aggregator",
            "no node that records: what happens is lost",
            "Start the node aggregator with out:=FOLDER.",
        )


def _driver(seen: Snapshot, contract: Contract) -> Iterator[Finding]:
    topic, timeout_s = contract.action.topic, contract.timing.driver_timeout_s
    # The aggregator records the commands.
    drivers = [
        e
        for e in seen.readers.get(topic, ())
        if e.type == contract.action.type
        and e.node not in seen.of_role(Role.RECORDER)
        and not _matches(e.node.rpartition("/")[2], _RECORDERS)
    ]
    if not drivers:
        yield Finding(
            Code.NO_DRIVER,
            Severity.ERROR,
            topic,
            f"a driver that listens to {contract.action.type}",
            "nobody: commands go nowhere",
            "Start the robot's driver, or remap its topic to this one.",
        )
    test = seen.driver_test
    if test is not None:
        longest_s = timeout_s + _LATE_PERIODS * contract.timing.period_ns * 1e-9
        if test.stopped_after_s is None or test.stopped_after_s > longest_s:
            after = "no stop" if test.stopped_after_s is None else f"a stop after {test.stopped_after_s:.2f} s"
            yield Finding(
                Code.DRIVER_TIMEOUT,
                Severity.ERROR,
                topic,
                f"a driver that stops by itself {timeout_s:g} s after the last command",
                f"{after}, waited for {test.waited_s:.1f} s",
                "Look at the driver_timeout_s of its own contract, and whether the machine is overloaded.",
            )
    elif drivers and not seen.is_simulated:
        yield Finding(
            Code.DRIVER_UNTESTED,
            Severity.NOTE,
            topic,
            f"a driver that stops by itself {timeout_s:g} s after the last command (timing.driver_timeout_s)",
            "nothing that would show it, since the doctor sends nothing",
            "Try it once: let the robot creep, end the supervisor by kill -9, and measure the time to standstill.",
        )


def _deadman(seen: Snapshot, contract: Contract) -> Iterator[Finding]:
    readers = [name for name in seen.of_role(Role.EXPERT) if name in seen.readers_of("joy")]
    for node in (seen.node(name) for name in seen.of_role(Role.EXPERT)):
        if node.has_pad and (node.level or 0) >= _LEVEL_WARN and seen.writers_of("joy"):
            yield Finding(
                Code.PAD_NOT_BELIEVED,
                Severity.ERROR,
                node.name,
                "a pad behind which a hand can be",
                node.words,
                "Let go of every stick and button for some seconds; `dagger-ros joystick` shows what the pad says.",
            )
    if readers and not seen.writers_of("joy"):
        yield _no_deadman("joy", f"no pad: {readers[0]} waits for it", "Plug it in and start joy_node (joy:=true).")
    elif seen.of_role(Role.EXPERT) and not readers and not seen.is_simulated:
        if contract.expert is None:
            yield _no_deadman(
                "contract", "no section expert, which names it", "Add expert.joystick, see docs/joystick.md."
            )
        else:
            yield _no_deadman(
                "joy",
                f"that {seen.of_role(Role.EXPERT)[0]} listens to no pad",
                "Start the node expert_label with expert:=joystick.",
            )


def _no_deadman(where: str, found: str, remedy: str) -> Finding:
    expected = "a deadman, with which a person takes over"
    return Finding(Code.NO_DEADMAN, Severity.ERROR, where, expected, found, remedy)


def _writers(seen: Snapshot, contract: Contract) -> Iterator[Finding]:
    observed = observed_topics(contract)
    for topic, ends in seen.writers.items():
        dangerous = topic not in observed
        if not dangerous:  # who writes another type there is not heard
            ends = tuple(e for e in ends if e.type == observed[topic])
        if len(ends) < 2 or topic in _MANY_WRITERS:
            continue
        yield Finding(
            Code.SECOND_WRITER,
            Severity.ERROR if dangerous else Severity.WARNING,
            topic,
            "one writer",
            f"{len(ends)}: {', '.join(sorted(e.node for e in ends))}",
            "End all but the supervisor; it does not silence them."
            if topic == contract.action.topic
            else "End all but one, or give each graph a namespace or a ROS_DOMAIN_ID of its own.",
        )


def _types(seen: Snapshot, contract: Contract) -> Iterator[Finding]:
    for topic, type_ in topic_types(contract).items():
        for side, ends in (("writer", seen.writers), ("reader", seen.readers)):
            for end in ends.get(topic, ()):
                if end.type != type_:
                    yield Finding(
                        Code.WRONG_TYPE,
                        Severity.ERROR,
                        topic,
                        type_,
                        f"{end.type} at its {side} {end.node}",
                        "They never hear each other: correct the contract, or remap the topic of that node.",
                    )


def _qualities(seen: Snapshot, contract: Contract) -> Iterator[Finding]:
    ours = {node.name for node in seen.managed} | set(seen.of_role(Role.SIMULATION))
    for pair in seen.mismatches:
        counts = pair.reader in ours or pair.topic == contract.action.topic
        yield Finding(
            Code.QOS_MISMATCH,
            Severity.ERROR if counts else Severity.WARNING,
            pair.topic,
            "qualities of service that fit",
            f"that {pair.reader} never hears {pair.writer}: {pair.why}",
            "Change the writer to what the reader asks for, or the reader to what the writer offers.",
        )


def _contracts(seen: Snapshot, contract: Contract) -> Iterator[Finding]:
    said = {node.name: node.contract_sha256 for node in seen.nodes if node.contract_sha256}
    for topic, hashes in seen.contracts.items():
        for writer in seen.writers_of(topic):
            # The messages of two writers look alike.
            wrong = sorted(hashes - {contract.sha256})
            if wrong and writer not in said:
                said[writer] = wrong[0]
    for name, sha256 in sorted(said.items()):
        if sha256 == contract.sha256:
            continue
        file = seen.node(name).contract_file
        yield Finding(
            Code.CONTRACT_DIFFERS,
            Severity.ERROR,
            name,
            f"contract {contract.name} ({contract.sha256[:12]})",
            sha256[:12] + (f" (read from {file})" if file else ""),
            "Start it with the same file; what carries another hash is refused.",
        )


def _verdicts(seen: Snapshot) -> Iterator[Finding]:
    for node in seen.managed:
        if node.state not in ("", "active"):
            yield Finding(
                Code.NOT_ACTIVE,
                Severity.ERROR,
                node.name,
                "a node that is active",
                node.words or node.state,
                f"ros2 lifecycle set {node.name} {'configure, then ' * (node.state == 'unconfigured')}activate.",
            )
    supervisors = seen.of_role(Role.SUPERVISOR)
    for name in sorted(seen.graph_nodes - set(supervisors)):
        node = seen.node(name)
        if node.level is not None and node.level >= _LEVEL_ERROR and node.state in ("", "active"):
            yield Finding(
                Code.NODE_IN_ERROR, Severity.ERROR, name, "that all is well", node.words, "Its log says more."
            )
    # At most ticks; what passes, as the reset of a simulation does, is nothing to mend.
    often = sum(int(bit) for bit in Reason if 2 * sum(bool(r & bit) for r in seen.reasons) > len(seen.reasons))
    if supervisors and often & _NOBODY_DRIVES:
        yield Finding(
            Code.SUPERVISOR_OBJECTS,
            Severity.ERROR,
            supervisors[0],
            "that somebody may drive",
            Reason(often & _NOBODY_DRIVES).sentences(),
            "Mend that; then arm it (supervisor/arm, after an emergency stop supervisor/reset_estop).",
        )


def _strangers(seen: Snapshot) -> Iterator[Finding]:
    elsewhere = {name for names in seen.other_graphs.values() for name in names}
    ours = seen.graph_nodes | elsewhere
    names = [
        node.name + " (on another machine)" * bool(node.elsewhere)
        for node in seen.nodes
        if node.name not in ours
        and not _is_inside(node.name, (*seen.other_graphs, seen.namespace))
        and not _matches(node.name, seen.known)
    ]
    if names:
        default = ", the default that everybody has" * (seen.domain_id == 0)
        yield Finding(
            Code.STRANGERS,
            Severity.WARNING,
            f"domain {seen.domain_id}{default}",
            "nodes of this graph and their robot alone",
            f"{len(names)} that are on none of its topics: {_few(sorted(names))}",
            "Give the robot a ROS_DOMAIN_ID of its own, or say with --known PATTERN that they belong to it.",
        )
    for namespace, nodes in sorted(seen.other_graphs.items()):
        yield Finding(
            Code.OTHER_GRAPH,
            Severity.NOTE,
            f"domain {seen.domain_id}",
            "this graph",
            f"another one in namespace {namespace}: {_few(sorted(nodes))}",
            "They do not hear each other; a domain of its own keeps each free of the other's traffic.",
        )
    if seen.is_open:
        yield Finding(
            Code.OPEN_NETWORK,
            Severity.NOTE,
            f"domain {seen.domain_id}",
            "that who can join is decided",
            "that every machine of the subnet with this ROS_DOMAIN_ID can, and may send commands",
            "On one machine say nothing of the network, or ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST: docs/security.md.",
        )


def _is_inside(name: str, namespaces: Iterable[str]) -> bool:
    """Whether a node is in one of these namespaces; the root has no inside, or everybody would be in it."""
    return any(namespace != "/" and name.startswith(f"{namespace}/") for namespace in namespaces)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _few(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
