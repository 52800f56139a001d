"""The verb `doctor`: what is wrong with a running graph."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagger_ros.cli.tables import make_console, tables
from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.contract.files import write_file
from dagger_ros.doctor import Finding, Severity, Snapshot, examine
from dagger_ros.doctor.traffic import longest_wait_s, median_age_s

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["add_verbs"]

_SECONDS = 3.0


def add_verbs(verbs: Verbs) -> None:
    """Adds it to the command line."""
    doctor = verbs.add_parser(
        "doctor",
        help="look at a running graph and say what is wrong with it",
        description="Listens to a running graph and says what is wrong with it; publishes nothing. Exits with 0 where "
        "there is no error, with 1 where there is one, with 2 for wrong usage.",
    )
    doctor.add_argument("--contract", type=Path, required=True, help="task contract of the graph, a YAML file")
    doctor.add_argument("--namespace", default="/", help="of the graph, as in /arm (default: /)")
    doctor.add_argument(
        "--seconds",
        type=float,
        help=f"how long messages are counted (default: {_SECONDS:g}, or three periods of the slowest stream)",
    )
    doctor.add_argument("--json", type=Path, help="also write all that was found to this file")
    doctor.add_argument(
        "--remap", action="append", default=[], metavar="FROM:=TO", help="a topic that has another name in this graph"
    )
    doctor.add_argument(
        "--known",
        action="append",
        default=[],
        metavar="PATTERN",
        help="nodes that belong to the robot and are no strangers, as in '/camera_*'",
    )
    doctor.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    doctor.add_argument(
        "--test-driver-timeout",
        action="store_true",
        help="in simulation only: deactivate the supervisor for a moment, and see whether the robot stops by itself; "
        "a person must arm again, unless auto_arm is set",
    )
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    contract = load_contract(options.contract)
    seconds = _seconds(options.seconds, contract)
    from dagger_ros.nodes.doctor import look_at_graph

    seen = look_at_graph(
        contract,
        namespace=options.namespace,
        seconds=seconds,
        remap=options.remap,
        known=options.known,
        test_driver=options.test_driver_timeout,
    )
    findings = examine(seen, contract)
    _show(seen, findings, contract)
    counts = Counter(finding.severity for finding in findings)
    if options.json:
        write_file(options.json, json.dumps(_as_data(seen, findings, contract), indent=1).encode() + b"\n")
    if counts[Severity.ERROR] or (options.strict and counts[Severity.WARNING]):
        raise SystemExit(1)


def _seconds(given: float | None, contract: Contract) -> float:
    least = longest_wait_s(contract)
    if given is None:
        return max(_SECONDS, least)
    if not least <= given < math.inf:
        raise DaggerError(f"seconds: expected {least:g} or more, three periods of the slowest stream; got {given:g}")
    return given


def _show(seen: Snapshot, findings: tuple[Finding, ...], contract: Contract) -> None:
    console = make_console()
    counts = Counter(finding.severity for finding in findings)
    if not counts[Severity.ERROR] and not counts[Severity.WARNING]:
        console.print(f"healthy: {_looked_at(seen, contract)}", soft_wrap=True)
        for finding in findings:
            console.print(f"note {finding.code.value}: {finding}", soft_wrap=True)
        return
    console.print(_looked_at(seen, contract), soft_wrap=True)
    _show_graph(seen, contract, console)
    for finding in findings:
        console.print(f"{finding.severity.name.lower()} {finding.code.value}: {finding}", soft_wrap=True)
    console.print(", ".join(f"{counts[s]} {s.name.lower()}{'s' * (counts[s] != 1)}" for s in Severity))


def _looked_at(seen: Snapshot, contract: Contract) -> str:
    plant = "a simulation" if seen.is_simulated else "a robot"
    test = seen.driver_test
    stop = (
        f", whose driver stopped by itself after {test.stopped_after_s:.2f} s" if test and test.stopped_after_s else ""
    )
    return (
        f"{len(seen.graph_nodes)} nodes around {plant}{stop}, contract {contract.name} ({contract.sha256[:12]}), "
        f"{len(seen.writers)} topics, namespace {seen.namespace}, domain {seen.domain_id}, {seen.seconds:g} s"
    )


def _show_graph(seen: Snapshot, contract: Contract, console: Console) -> None:
    table = tables(console)
    nodes = [seen.node(name) for name in sorted(seen.graph_nodes | {node.name for node in seen.managed})]
    table(
        "nodes",
        "node, state, contract, says",
        [(n.name, n.state or "-", n.contract_sha256[:12] or "-", n.words or "-") for n in nodes],
    )
    rates = {s.topic: s.rate_hz for s in contract.streams.values()}
    rates |= {c.topic: c.rate_hz for c in contract.cameras.values()}
    rates["supervisor/decision"] = contract.timing.control_rate_hz
    topics = dict.fromkeys([*rates, *seen.writers])
    table(
        "topics",
        "topic, writers, readers, rate Hz, expected Hz, median age s",
        [
            (
                topic,
                ", ".join(seen.writers_of(topic)) or "-",
                ", ".join(seen.readers_of(topic)) or "-",
                f"{len(seen.arrivals[topic]) / seen.seconds:.1f}" if topic in seen.arrivals else "-",
                f"{rates[topic]:g}" if topic in rates else "-",
                "-" if (age_s := median_age_s(seen, topic)) is None else f"{age_s:.3f}",
            )
            for topic in topics
        ],
    )


def _as_data(seen: Snapshot, findings: tuple[Finding, ...], contract: Contract) -> dict[str, Any]:
    return {
        "contract": contract.name,
        "contract_sha256": contract.sha256,
        "namespace": seen.namespace,
        "domain_id": seen.domain_id,
        "seconds": seen.seconds,
        "nodes": sorted(seen.graph_nodes),
        "rates_hz": {topic: len(arrivals) / seen.seconds for topic, arrivals in sorted(seen.arrivals.items())},
        "driver_stopped_after_s": seen.driver_test.stopped_after_s if seen.driver_test else None,
        "findings": [
            {
                "code": finding.code.value,
                "severity": finding.severity.name.lower(),
                "where": finding.where,
                "expected": finding.expected,
                "found": finding.found,
                "remedy": finding.remedy,
            }
            for finding in findings
        ],
    }
