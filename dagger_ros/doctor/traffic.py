"""What comes and when: topics that are missing, silent or slow, stamps that are old or of another clock."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from dagger_ros.contract import Contract
from dagger_ros.contract.types import MESSAGE_TYPES
from dagger_ros.doctor.finding import Code, Finding, Severity
from dagger_ros.doctor.snapshot import ROLES, Arrival, Role, Snapshot, topic_types

__all__ = ["LEAST_RATE", "check_traffic", "longest_wait_s", "median_age_s"]

# Less than this share of the contract's rate is slow; so the aggregator has it.
LEAST_RATE = 0.8
# A stream is judged by at least so many of its periods.
_PERIODS = 3
# How well the clocks of two machines can be compared by when messages come.
_RESOLUTION_S = 0.02
# A clock that is set by the network (chrony, NTP) is nearer than this; diagnostics come late by less.
_CLOCKS_S = 0.2
# A message that is on its way for longer was not: its stamp is of another clock.
_ANOTHER_CLOCK_S = 60.0


class _Watched(NamedTuple):
    """A topic that must speak.

    Args:
        topic: Its name.
        rate_hz: The least; None: any.
        max_age_s: Of its stamps on arrival; None: they say nothing.
        has_stamp: Whether its messages have one.
    """

    topic: str
    rate_hz: float | None = None
    max_age_s: float | None = None
    has_stamp: bool = True


def longest_wait_s(contract: Contract) -> float:
    """How long it takes until every stream and camera can be judged, s."""
    rates_hz = [s.rate_hz for s in contract.streams.values()] + [c.rate_hz for c in contract.cameras.values()]
    return _PERIODS / min(rates_hz)


def check_traffic(seen: Snapshot, contract: Contract) -> Iterator[Finding]:
    """What is wrong with the messages and their clocks."""
    yield from _clocks(seen)
    types = topic_types(contract)
    for watched in _watched(seen, contract):
        ends = seen.writers.get(watched.topic, ())
        if any(end.type == types[watched.topic] for end in ends):
            yield from _comes(seen, watched)
            if watched.max_age_s is not None and watched.has_stamp and not seen.in_lockstep:
                yield from _stamps(seen, watched, contract)
        elif watched.max_age_s is not None and not ends:  # of the wrong type: said elsewhere
            yield Finding(
                Code.TOPIC_MISSING,
                Severity.ERROR,
                watched.topic,
                "a writer",
                "none",
                "Start the node that publishes it, or remap its topic to this one.",
            )


def _watched(seen: Snapshot, contract: Contract) -> Iterator[_Watched]:
    for s in {s.topic: s for s in contract.streams.values()}.values():  # two streams may share a topic
        yield _Watched(s.topic, s.rate_hz, s.max_age_s, MESSAGE_TYPES[s.type].has_header)
    yield from (_Watched(c.topic, c.rate_hz, c.max_age_s) for c in contract.cameras.values())
    yield _Watched(ROLES[Role.SUPERVISOR], contract.timing.control_rate_hz)
    yield from (_Watched(ROLES[role]) for role in (Role.POLICY, Role.EXPERT))
    if any(name in seen.readers_of("joy") for name in seen.of_role(Role.EXPERT)):
        yield _Watched("joy")
    if contract.timing.estop_max_age_s is not None:
        yield _Watched("estop", 1 / contract.timing.estop_max_age_s, contract.timing.estop_max_age_s, False)


def _comes(seen: Snapshot, watched: _Watched) -> Iterator[Finding]:
    count, rate_hz = len(seen.arrivals.get(watched.topic, ())), watched.rate_hz
    writers = seen.writers_of(watched.topic)
    says = "; ".join(f"{n.name} says: {n.words}" for n in map(seen.node, writers) if n.words)
    expected = "messages" if rate_hz is None else f"{rate_hz:g} Hz"
    if count == 0:
        yield Finding(
            Code.TOPIC_SILENT,
            Severity.ERROR,
            watched.topic,
            expected,
            f"nothing in {seen.seconds:g} s from {', '.join(writers)}" + f" ({says})" * bool(says),
            "Look at what its node waits for, and whether messages of this size get through the network.",
        )
    # One may come right behind.
    elif rate_hz is not None and not seen.in_lockstep and count + 1 < LEAST_RATE * rate_hz * seen.seconds:
        yield Finding(
            Code.TOPIC_SLOW,
            Severity.ERROR,
            watched.topic,
            f"{expected}, at least {LEAST_RATE:.0%} of it",
            f"{count / seen.seconds:.1f} Hz from {', '.join(writers)}",
            "Look at the load of its machine and the network, or write the rate that it has into the contract.",
        )


def median_age_s(seen: Snapshot, topic: str) -> float | None:
    """How old the messages of a topic were when they came, s, on the clock of the graph; None: nobody can say."""
    ages = [age for arrival in seen.arrivals.get(topic, ()) if (age := _age_s(seen, arrival)) is not None]
    return statistics.median(ages) if ages else None


def _age_s(seen: Snapshot, arrival: Arrival) -> float | None:
    clock_ns = arrival.clock_ns if seen.uses_sim_time else arrival.system_ns
    if clock_ns is None or not arrival.stamp_ns:
        return None
    return (clock_ns - arrival.stamp_ns) * 1e-9 + (0.0 if seen.uses_sim_time else _ahead_s(seen))


def _ahead_s(seen: Snapshot) -> float:
    """The clock of the supervisor, by which it judges ages, less that of the machine that looked, s."""
    said = (seen.node(name).clock_ahead_s for name in seen.of_role(Role.SUPERVISOR))
    return next((ahead_s for ahead_s in said if ahead_s is not None), 0.0)


def _stamps(seen: Snapshot, watched: _Watched, contract: Contract) -> Iterator[Finding]:
    arrivals = seen.arrivals.get(watched.topic, ())
    if arrivals and 2 * sum(not a.stamp_ns for a in arrivals) > len(arrivals):
        yield Finding(
            Code.STAMP_ZERO,
            Severity.ERROR,
            watched.topic,
            "the time of measurement in header.stamp",
            "0",
            "Let its node fill it: without it nobody knows how old a value is.",
        )
        return
    age_s = median_age_s(seen, watched.topic)
    if age_s is None:
        return
    clock = "/clock" if seen.uses_sim_time else "the supervisor's clock"
    # /clock goes on in steps, of one period in simulation.
    step_s = contract.timing.period_ns * 1e-9 if seen.uses_sim_time else 0.0
    ahead_s = contract.timing.future_tolerance_s + _RESOLUTION_S + step_s
    if abs(age_s) > _ANOTHER_CLOCK_S:
        yield Finding(
            Code.CLOCK_DIFFERS,
            Severity.ERROR,
            watched.topic,
            f"stamps of {clock}",
            f"stamps {_off(-age_s)} of it: of another clock",
            "Start either all nodes or none with use_sim_time, and set the clocks of all machines by chrony.",
        )
    elif age_s < -ahead_s:
        yield Finding(
            Code.STAMP_FUTURE,
            Severity.ERROR,
            watched.topic,
            f"stamps at most {contract.timing.future_tolerance_s:g} s ahead of {clock} (future_tolerance_s)",
            f"stamps {_off(-age_s)}",
            "Set the clocks of the machines by chrony.",
        )
    elif watched.max_age_s is not None and age_s > watched.max_age_s:
        yield Finding(
            Code.TOPIC_OLD,
            Severity.ERROR,
            watched.topic,
            f"messages at most {watched.max_age_s:g} s old (max_age_s)",
            f"half of them older than {age_s:.3f} s when they come",
            "Its node takes long, its network is slow, or the clock of its machine is behind: set it by chrony.",
        )


def _off(ahead_s: float) -> str:
    return f"{abs(ahead_s):.3g} s {'ahead' if ahead_s > 0 else 'behind'}"


def _clocks(seen: Snapshot) -> Iterator[Finding]:
    simulated = {node.name: node.use_sim_time for node in seen.managed if node.use_sim_time is not None}
    if len(set(simulated.values())) > 1:
        follow, leave = (sorted(n for n, uses in simulated.items() if uses is wanted) for wanted in (True, False))
        yield Finding(
            Code.SIM_TIME_MIXED,
            Severity.ERROR,
            "use_sim_time",
            "the same at every node",
            f"true at {', '.join(follow)}, false at {', '.join(leave)}",
            "Start them all with the same value.",
        )
    if any(simulated.values()) and not seen.arrivals.get("/clock"):
        yield Finding(
            Code.CLOCK_MISSING,
            Severity.ERROR,
            "/clock",
            "the time, which nodes with use_sim_time wait for",
            f"nothing in {seen.seconds:g} s",
            "Start the simulation or the replay, or start the nodes without use_sim_time.",
        )
    if seen.uses_sim_time:
        return
    ahead_s = _ahead_s(seen)
    for node in seen.managed:
        if node.use_sim_time or node.clock_ahead_s is None:
            continue
        off_s = node.clock_ahead_s - ahead_s
        if abs(off_s) > _CLOCKS_S:
            yield Finding(
                Code.CLOCK_DIFFERS,
                Severity.ERROR,
                node.name,
                f"the supervisor's clock, within {_CLOCKS_S:g} s",
                f"one that is {_off(off_s)}",
                "Set the clocks of the machines by chrony.",
            )
    if abs(ahead_s) > _CLOCKS_S:
        yield Finding(
            Code.CLOCK_DIFFERS,
            Severity.NOTE,
            "this machine",
            f"the supervisor's clock, within {_CLOCKS_S:g} s",
            f"one that is {_off(-ahead_s)}",
            "Ages are judged by the supervisor's clock. No node of the graph can run here.",
        )
