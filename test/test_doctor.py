"""What the doctor finds in a snapshot of a graph: every finding planted, and none in a healthy graph."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT, contract_path
from dagger_ros.cli import doctor as verb
from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.doctor import (
    GRAPH_TOPICS,
    ROLES,
    Arrival,
    Code,
    DriverTest,
    Endpoint,
    Finding,
    Mismatch,
    NodeSeen,
    Role,
    Settings,
    Severity,
    Snapshot,
    examine,
    observed_topics,
    topic_types,
)
from dagger_ros.doctor.traffic import longest_wait_s
from dagger_ros.supervisor import Reason

PATH = contract_path("peg")
PEG = load_contract(PATH)
SECONDS = 3.0
NOW_NS = 1_800_000_000_000_000_000
OTHER = "f" * 64
STAMPED = tuple(observed_topics(PEG))
# Who writes what, of those that read it: the robot with its driver and a person at the pad.
WRITERS = {
    **dict.fromkeys(observed_topics(PEG), "/driver"),
    "command": "/supervisor",
    "supervisor/decision": "/supervisor",
    "supervisor/settings": "/supervisor",
    "policy/action": "/policy",
    "expert/action": "/expert_label",
    "expert/act": "/expert_label",
    "episode": "/aggregator",
    "joy": "/joy_node",
}
READERS = {"command": ("/driver", "/aggregator"), "joy": ("/expert_label", "/aggregator")}


def arrivals(
    rate_hz: float, *, age_s: float = 0.001, stamp: bool = True, clock_ns: int | None = None
) -> tuple[Arrival, ...]:
    """Messages of `SECONDS` at a rate, all of one age by the clock of the machine or by /clock."""
    result = []
    for i in range(round(rate_hz * SECONDS)):
        at_ns = NOW_NS + round(i * 1e9 / rate_hz)
        of_ns = at_ns if clock_ns is None else clock_ns
        result.append(Arrival(at_ns, clock_ns, of_ns - round(age_s * 1e9) if stamp else None))
    return tuple(result)


def ends(names: Mapping[str, Any], contract: Contract = PEG) -> dict[str, tuple[Endpoint, ...]]:
    types = topic_types(contract)
    return {
        topic: tuple(Endpoint(node, types[topic]) for node in ([nodes] if isinstance(nodes, str) else nodes))
        for topic, nodes in names.items()
    }


def healthy() -> Snapshot:
    """A robot with everything beside it."""
    ours = ("/supervisor", "/policy", "/expert_label", "/aggregator")
    nodes = [
        NodeSeen(
            name,
            contract_sha256=PEG.sha256,
            use_sim_time=False,
            lockstep=False,
            state="active",
            level=0,
            words="all is well",
            has_pad=name == "/expert_label",
            clock_ahead_s=-0.01,
        )
        for name in ours
    ]
    return Snapshot(
        namespace="/",
        domain_id=7,
        is_open=False,
        seconds=SECONDS,
        nodes=(*nodes, NodeSeen("/driver"), NodeSeen("/joy_node")),
        writers=ends(WRITERS),
        readers=ends(READERS),
        arrivals={
            **{topic: arrivals(20.0) for topic in STAMPED},
            **{topic: arrivals(20.0) for topic in (*ROLES.values(), "joy") if topic in WRITERS},
        },
        contracts={"policy/action": frozenset({PEG.sha256}), "supervisor/decision": frozenset({PEG.sha256})},
        reasons=(int(Reason.NOT_ARMED),) * 60,
        settings=Settings(round=1, needs_expert=True),
    )


def simulated() -> Snapshot:
    """A simulation in place of the robot, whose clock is /clock, and a scripted expert."""
    seen = with_nodes(healthy(), use_sim_time=True)
    seen = with_node(seen, "/expert_label", has_pad=False)
    seen = without(seen, "joy")
    clock = {"/clock": (Endpoint("/mujoco_bridge", "rosgraph_msgs/msg/Clock"),)}
    writers = {
        t: tuple(replace(e, node=e.node.replace("/driver", "/mujoco_bridge")) for e in w)
        for t, w in seen.writers.items()
    }
    writers["sim/tick"] = (Endpoint("/mujoco_bridge", GRAPH_TOPICS["sim/tick"]),)
    readers = {"command": (Endpoint("/mujoco_bridge", PEG.action.type),)}
    nodes = tuple(n for n in seen.nodes if n.name not in ("/driver", "/joy_node"))
    bridge = NodeSeen("/mujoco_bridge", contract_sha256=PEG.sha256, use_sim_time=False, state="active", level=0)
    times = {t: arrivals(20.0, clock_ns=5_000_000_000) for t in (*seen.arrivals, "/clock")}
    return replace(seen, writers=writers | clock, readers=readers, nodes=(*nodes, bridge), arrivals=times)


def with_nodes(seen: Snapshot, **changes: Any) -> Snapshot:
    """Of ours."""
    return replace(seen, nodes=tuple(replace(n, **changes) if n.state else n for n in seen.nodes))


def with_node(seen: Snapshot, name: str, **changes: Any) -> Snapshot:
    return replace(seen, nodes=tuple(replace(n, **changes) if n.name == name else n for n in seen.nodes))


def without(seen: Snapshot, *topics: str) -> Snapshot:
    """Nobody writes or reads these topics; who does nothing else is gone."""
    result = replace(
        seen,
        writers={t: e for t, e in seen.writers.items() if t not in topics},
        readers={t: e for t, e in seen.readers.items() if t not in topics},
        arrivals={t: a for t, a in seen.arrivals.items() if t not in topics},
    )
    return replace(result, nodes=tuple(n for n in seen.nodes if n.name in result.graph_nodes))


def with_arrivals(seen: Snapshot, topic: str, came: tuple[Arrival, ...]) -> Snapshot:
    return replace(seen, arrivals={**seen.arrivals, topic: came})


def with_end(seen: Snapshot, side: str, topic: str, node: str, type_: str | None = None) -> Snapshot:
    """One more writer or reader, and its node."""
    all_ends = dict(getattr(seen, side))
    all_ends[topic] = (*all_ends.get(topic, ()), Endpoint(node, type_ or topic_types(PEG)[topic]))
    nodes = seen.nodes if any(n.name == node for n in seen.nodes) else (*seen.nodes, NodeSeen(node))
    return replace(seen, nodes=nodes, **{side: all_ends})


def found(seen: Snapshot, contract: Contract = PEG) -> list[tuple[str, str]]:
    return [(finding.severity.name, finding.code.value) for finding in examine(seen, contract)]


def the_one(seen: Snapshot, contract: Contract = PEG) -> Finding:
    """The only finding, but for the note that the driver was not tested."""
    (finding,) = [f for f in examine(seen, contract) if f.code is not Code.DRIVER_UNTESTED]
    return finding


def test_healthy_robot_gives_no_finding_but_that_its_driver_was_not_tested() -> None:
    assert found(healthy()) == [("NOTE", "driver_untested")]


def test_healthy_simulation_gives_no_finding() -> None:
    assert found(simulated()) == []


# Each finding planted


_Plant = Callable[[Snapshot], Snapshot]
PLANTED: list[tuple[str, str, _Plant, str]] = [
    ("ERROR", "no_expert", lambda s: without(s, "expert/action"), "the supervisor lets no policy drive without"),
    ("WARNING", "no_policy", lambda s: without(s, "policy/action"), "this is no round of demonstrations"),
    ("WARNING", "no_recorder", lambda s: without(s, "episode"), "no node that records"),
    (
        "ERROR",
        "no_driver",
        lambda s: replace(s, readers=ends(READERS | {"command": "/aggregator"})),
        "nobody: commands",
    ),
    ("ERROR", "no_deadman", lambda s: without(s, "joy"), "that /expert_label listens to no pad"),
    (
        "ERROR",
        "no_deadman",
        lambda s: replace(without(s, "joy"), readers=ends(READERS)),
        "no pad: /expert_label waits for it",
    ),
    (
        "ERROR",
        "pad_not_believed",
        lambda s: with_node(s, "/expert_label", level=1, words="expected at least 8 axes, got 1"),
        "expected at least 8 axes, got 1",
    ),
    ("ERROR", "second_writer", lambda s: with_end(s, "writers", "command", "/teleop"), "2: /supervisor, /teleop"),
    ("ERROR", "second_writer", lambda s: with_end(s, "writers", "policy/action", "/pi"), "2: /pi, /policy"),
    ("ERROR", "second_writer", lambda s: with_end(s, "writers", "joy", "/joy_2"), "2: /joy_2, /joy_node"),
    ("WARNING", "second_writer", lambda s: with_end(s, "writers", "joint_states", "/hand"), "2: /driver, /hand"),
    (
        "ERROR",
        "wrong_type",
        lambda s: with_end(s, "writers", "tool_pose", "/slam", "nav_msgs/msg/Odometry"),
        "nav_msgs/msg/Odometry at its writer /slam",
    ),
    (
        "ERROR",
        "wrong_type",
        lambda s: with_end(s, "readers", "command", "/base", "geometry_msgs/msg/Twist"),
        "geometry_msgs/msg/Twist at its reader /base",
    ),
    (
        "ERROR",
        "qos_mismatch",
        lambda s: replace(s, mismatches=(Mismatch("tool_pose", "/driver", "/supervisor", "best effort and reliable"),)),
        "that /supervisor never hears /driver: best effort and reliable",
    ),
    (
        "WARNING",
        "qos_mismatch",
        lambda s: replace(s, mismatches=(Mismatch("tool_pose", "/driver", "/rviz", "volatile and kept"),)),
        "that /rviz never hears /driver",
    ),
    (
        "ERROR",
        "contract_differs",
        lambda s: with_node(s, "/policy", contract_sha256=OTHER, contract_file="old.yaml"),
        "ffffffffffff (read from old.yaml)",
    ),
    (
        "ERROR",
        "contract_differs",
        lambda s: replace(
            with_node(s, "/policy", contract_sha256=""), contracts={"policy/action": frozenset({OTHER, PEG.sha256})}
        ),
        "/policy: expected contract peg",
    ),
    (
        "ERROR",
        "not_active",
        lambda s: with_node(s, "/policy", state="unconfigured", words="unconfigured: no such file"),
        "unconfigured: no such file. ros2 lifecycle set /policy configure, then activate",
    ),
    ("ERROR", "node_in_error", lambda s: with_node(s, "/aggregator", level=2, words="disk is full"), "disk is full"),
    (
        "ERROR",
        "supervisor_objects",
        lambda s: replace(s, reasons=(0,) * 29 + (int(Reason.TRACKING),) * 31),
        "the robot is further than",
    ),
    ("ERROR", "topic_missing", lambda s: without(s, "tool_pose"), "tool_pose: expected a writer; found none"),
    ("ERROR", "topic_silent", lambda s: with_arrivals(s, "tool_pose", ()), "nothing in 3 s from /driver"),
    ("ERROR", "topic_silent", lambda s: with_arrivals(s, "policy/action", ()), "/policy says: all is well"),
    ("ERROR", "topic_silent", lambda s: with_arrivals(s, "joy", ()), "joy: expected messages; found nothing"),
    ("ERROR", "topic_slow", lambda s: with_arrivals(s, "tool_pose", arrivals(10)), "10.0 Hz from /driver"),
    ("ERROR", "topic_slow", lambda s: with_arrivals(s, "supervisor/decision", arrivals(10)), "expected 20 Hz"),
    ("ERROR", "topic_old", lambda s: with_arrivals(s, "tool_pose", arrivals(20, age_s=0.3)), "older than 0.290 s"),
    ("ERROR", "stamp_zero", lambda s: with_arrivals(s, "tool_pose", (Arrival(NOW_NS, None, 0),) * 60), "found 0"),
    ("ERROR", "stamp_future", lambda s: with_arrivals(s, "tool_pose", arrivals(20, age_s=-0.1)), "s ahead"),
    ("ERROR", "clock_differs", lambda s: with_arrivals(s, "tool_pose", arrivals(20, age_s=3600.0)), "s behind"),
    ("ERROR", "clock_differs", lambda s: with_node(s, "/policy", clock_ahead_s=0.3), "one that is 0.31 s ahead"),
]


@pytest.mark.parametrize(
    ("severity", "code", "plant", "words"), PLANTED, ids=[f"{code}-{i}" for i, (_, code, *_) in enumerate(PLANTED)]
)
def test_what_is_planted_is_found_and_nothing_else(severity: str, code: str, plant: _Plant, words: str) -> None:
    finding = the_one(plant(healthy()))
    assert (finding.severity.name, finding.code.value) == (severity, code)
    assert words in str(finding)


def test_supervisor_that_is_gone_is_found() -> None:
    seen = without(healthy(), *(topic for topic, node in WRITERS.items() if node == "/supervisor"))
    seen = replace(seen, reasons=(), settings=None, readers=ends(READERS))
    assert found(seen)[0] == ("ERROR", "no_supervisor")


def test_expert_is_no_error_where_the_policy_drives_without() -> None:
    seen = replace(without(healthy(), "expert/action"), settings=Settings(round=1, needs_expert=False))
    assert the_one(seen).severity is Severity.WARNING


def test_demonstrations_need_no_policy() -> None:
    seen = replace(without(healthy(), "policy/action"), settings=Settings(round=0, needs_expert=True))
    assert found(seen) == [("NOTE", "driver_untested")]


def test_simulation_needs_neither_recorder_nor_deadman() -> None:
    assert found(without(simulated(), "episode")) == [("NOTE", "no_recorder")]


def test_contract_without_a_pad_has_no_deadman_on_a_robot() -> None:
    content = yaml.safe_load(contract_path("peg").read_text())
    content["expert"] = None
    contract = Contract.model_validate(content)
    seen = without(with_nodes(healthy(), contract_sha256=contract.sha256), "joy")
    seen = replace(seen, contracts={})
    assert "no section expert, which names it" in str(the_one(seen, contract))


def test_driver_that_does_not_stop_is_found() -> None:
    timeout_s, period_s = PEG.timing.driver_timeout_s, PEG.timing.period_ns * 1e-9
    for stopped_after_s, codes in (
        (timeout_s + 3 * period_s - 0.001, []),
        (timeout_s + 3 * period_s + 0.001, [("ERROR", "driver_timeout")]),
        (None, [("ERROR", "driver_timeout")]),
    ):
        assert found(replace(simulated(), driver_test=DriverTest(stopped_after_s, 5.2))) == codes


def test_recorder_that_hears_commands_is_no_driver() -> None:
    seen = replace(healthy(), readers=ends(READERS | {"command": ("/aggregator", "/rosbag2_recorder")}))
    assert ("ERROR", "no_driver") in found(seen)


def test_emergency_stop_that_the_contract_asks_for_must_be_heard() -> None:
    content = yaml.safe_load(contract_path("peg").read_text())
    content["timing"]["estop_max_age_s"] = 0.5
    contract = Contract.model_validate(content)
    seen = replace(with_nodes(healthy(), contract_sha256=contract.sha256), contracts={})
    assert str(the_one(seen, contract)).startswith("estop: expected a writer")
    seen = with_end(seen, "writers", "estop", "/driver")
    assert the_one(seen, contract).code is Code.TOPIC_SILENT
    assert the_one(with_arrivals(seen, "estop", arrivals(1, stamp=False)), contract).code is Code.TOPIC_SLOW
    assert found(with_arrivals(seen, "estop", arrivals(2, stamp=False)), contract) == [("NOTE", "driver_untested")]
    two = with_end(with_arrivals(seen, "estop", arrivals(2, stamp=False)), "writers", "estop", "/wall")
    assert found(two, contract) == [("NOTE", "driver_untested")]  # whoever wants to stop may


def test_topic_of_the_wrong_type_alone_is_neither_missing_nor_silent() -> None:
    seen = replace(
        with_arrivals(healthy(), "tool_pose", ()),
        writers={**healthy().writers, "tool_pose": (Endpoint("/driver", "nav_msgs/msg/Odometry"),)},
    )
    assert the_one(seen).code is Code.WRONG_TYPE


@pytest.mark.parametrize(("count", "slow"), [(46, True), (47, False)])
def test_topic_is_slow_below_four_fifths_of_its_rate_and_not_at_it(count: int, slow: bool) -> None:
    """Of 60 messages 48, of which one may come right behind."""
    seen = with_arrivals(healthy(), "tool_pose", arrivals(20)[:count])
    assert (("ERROR", "topic_slow") in found(seen)) is slow


def test_in_lockstep_neither_rates_nor_ages_are_judged() -> None:
    seen = with_nodes(simulated(), lockstep=True)
    assert found(with_arrivals(seen, "tool_pose", arrivals(5, age_s=9.0, clock_ns=9_000_000_000))) == []


# Clocks


def test_ages_are_judged_by_the_clock_of_the_supervisor() -> None:
    """A laptop whose clock is 5 s behind looks at a robot with which nothing is wrong."""
    seen = with_nodes(healthy(), clock_ahead_s=5.0)
    for topic in STAMPED:
        seen = with_arrivals(seen, topic, arrivals(20, age_s=-4.99))
    finding = the_one(seen)
    assert (finding.severity, finding.code) == (Severity.NOTE, Code.CLOCK_DIFFERS)
    assert "this machine: expected the supervisor's clock, within 0.2 s; found one that is 5 s behind" in str(finding)


def test_node_with_another_idea_of_simulated_time_is_found() -> None:
    finding = the_one(with_node(simulated(), "/policy", use_sim_time=False))
    assert finding.code is Code.SIM_TIME_MIXED
    assert "false at /policy" in str(finding)


def test_simulated_time_without_a_clock_is_found() -> None:
    seen = with_nodes(healthy(), use_sim_time=True)
    assert the_one(seen).code is Code.CLOCK_MISSING


def test_stamps_of_a_simulation_whose_clock_nobody_follows_are_of_another_clock() -> None:
    seen = with_nodes(simulated(), use_sim_time=False)
    for topic in STAMPED:
        came = tuple(replace(a, stamp_ns=5_000_000_000) for a in arrivals(20))
        seen = with_arrivals(seen, topic, came)
    assert {code for _, code in found(seen)} == {"clock_differs"}


# Who else is there


def stranger(seen: Snapshot, name: str = "/stranger") -> Snapshot:
    return replace(seen, nodes=(*seen.nodes, NodeSeen(name, elsewhere=True)))


def test_stranger_is_found_unless_it_is_known() -> None:
    finding = the_one(stranger(healthy()))
    assert (finding.severity, finding.code) == (Severity.WARNING, Code.STRANGERS)
    assert "1 that are on none of its topics: /stranger (on another machine)" in str(finding)
    assert "domain 7:" in str(finding)
    assert "domain 0, the default that everybody has" in str(the_one(replace(stranger(healthy()), domain_id=0)))
    assert found(replace(stranger(healthy()), known=("/str*",))) == [("NOTE", "driver_untested")]


def test_node_inside_the_namespace_is_no_stranger() -> None:
    seen = replace(stranger(healthy(), "/arm/camera/driver"), namespace="/arm")
    assert ("WARNING", "strangers") not in found(seen)


def test_other_graph_is_a_note_and_its_nodes_are_no_strangers() -> None:
    seen = stranger(stranger(healthy(), "/b/supervisor"), "/b/policy")
    seen = replace(seen, other_graphs={"/b": frozenset({"/b/supervisor"})})
    finding = the_one(seen)
    assert (finding.severity, finding.code) == (Severity.NOTE, Code.OTHER_GRAPH)
    assert "another one in namespace /b: /b/supervisor" in str(finding)


def test_network_that_everybody_can_join_is_a_note() -> None:
    finding = the_one(replace(healthy(), is_open=True))
    assert (finding.severity, finding.code) == (Severity.NOTE, Code.OPEN_NETWORK)


# The command line


def run(seen: Snapshot, monkeypatch: pytest.MonkeyPatch, *arguments: str, contract: Path = PATH) -> int:
    """The exit code of the verb when this is what was seen."""
    module = pytest.importorskip("dagger_ros.nodes.doctor")
    monkeypatch.setattr(module, "look_at_graph", lambda *_, **__: seen)
    parser = argparse.ArgumentParser()
    verb.add_verbs(parser.add_subparsers())
    options = parser.parse_args(["doctor", "--contract", str(contract), *arguments])
    try:
        options.run(options)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


@pytest.mark.ros
def test_healthy_graph_is_one_line_and_exit_code_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(simulated(), monkeypatch) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("healthy: 5 nodes around a simulation, contract peg (")


@pytest.mark.ros
def test_errors_count_always_and_warnings_when_asked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(without(healthy(), "tool_pose"), monkeypatch) == 1
    assert "error topic_missing: tool_pose: expected a writer; found none." in capsys.readouterr().out
    assert run(stranger(healthy()), monkeypatch) == 0
    assert "0 errors, 1 warning, 1 note" in capsys.readouterr().out
    assert run(stranger(healthy()), monkeypatch, "--strict") == 1
    assert run(healthy(), monkeypatch, "--strict") == 0


@pytest.mark.ros
def test_all_that_was_found_is_written_for_scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(without(healthy(), "tool_pose"), monkeypatch, "--json", str(tmp_path / "a/found.json")) == 1
    said = json.loads((tmp_path / "a/found.json").read_text())
    assert said["contract_sha256"] == PEG.sha256
    assert said["rates_hz"]["joint_states"] == 20.0
    assert [(f["severity"], f["code"], f["where"]) for f in said["findings"]] == [
        ("error", "topic_missing", "tool_pose"),
        ("note", "driver_untested", "command"),
    ]


@pytest.mark.ros
def test_too_short_to_judge_the_slowest_stream_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = yaml.safe_load(contract_path("peg").read_text())
    content["streams"]["tool_position"] |= {"rate_hz": 0.5, "max_age_s": 5.0}
    path = tmp_path / "slow.yaml"
    path.write_text(yaml.safe_dump(content))
    assert longest_wait_s(load_contract(path)) == 6.0
    for seconds in ("3", "nan", "inf"):
        with pytest.raises(DaggerError, match="seconds: expected 6 or more, three periods of the slowest stream; got"):
            run(healthy(), monkeypatch, "--seconds", seconds, contract=path)


def test_docs_explain_every_finding() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)
    assert rows == [code.value for code in Code]


def test_every_finding_is_planted_somewhere() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [code for code in Code if f'"{code.value}"' not in text and f"Code.{code.name}" not in text] == []


def test_roles_are_those_of_topics_that_exist() -> None:
    assert set(ROLES.values()) <= set(GRAPH_TOPICS)
    assert set(ROLES) == set(Role)
