"""What the shipped views show is there: topics, fields and services of the Foxglove layout, nodes of the analyzers."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from conftest import ROOT, contract_path
from dagger_ros.contract import load_contract
from dagger_ros.contract.access import graph_access

LAYOUT = json.loads((ROOT / "config/foxglove/dagger_ros.json").read_text())
ANALYZERS = yaml.safe_load((ROOT / "config/diagnostics/analyzers.yaml").read_text())["analyzers"]["ros__parameters"]
PANELS: dict[str, dict[str, Any]] = LAYOUT["configById"]
# Panels that come with Foxglove, and which key leads to what they show.
KINDS = {
    "StateTransitions": "paths",
    "Plot": "paths",
    "DiagnosticSummary": "topicToRender",
    "DiagnosticStatusPanel": "topicToRender",
    "RawMessages": "topicPath",
    "Image": "imageMode",
    "CallService": "serviceName",
}
TYPES = {
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    "/supervisor/decision": "dagger_ros/msg/GateDecision",
    "/supervisor/help": "dagger_ros/msg/HelpRequest",
    "/episode": "dagger_ros/msg/EpisodeEvent",
}


def placed(layout: Any) -> Iterator[str]:
    """Panels in the order in which they are on the screen."""
    if isinstance(layout, str):
        yield layout
        return
    assert layout["direction"] in ("row", "column")
    assert 0 < layout["splitPercentage"] < 100
    yield from placed(layout["first"])
    yield from placed(layout["second"])


def shown(kind: str) -> list[str]:
    """Everything that the panels of a kind show."""
    found = []
    for name, panel in PANELS.items():
        if name.partition("!")[0] == kind:
            what = panel[KINDS[kind]]
            found += [path["value"] for path in what] if kind in ("Plot", "StateTransitions") else [what]
    return found


def test_every_panel_is_on_the_screen_once_and_comes_with_foxglove() -> None:
    assert sorted(placed(LAYOUT["layout"])) == sorted(PANELS)
    assert {name.partition("!")[0] for name in PANELS} == set(KINDS)


@pytest.mark.ros
@pytest.mark.parametrize("path", [*shown("Plot"), *shown("StateTransitions"), *shown("RawMessages")])
def test_every_path_of_the_layout_is_a_field_of_our_messages(path: str) -> None:
    pytest.importorskip("rclpy")
    from dagger_ros.nodes.base import message_class

    topic, _, field = path.partition(".")
    fields = message_class(TYPES[topic]).get_fields_and_field_types()
    name, index = re.fullmatch(r"(\w*)(?:\[(\d+)\])?", field).groups()  # type: ignore[union-attr]
    if not field:
        return
    assert name in fields
    assert (index is not None) == fields[name].startswith("sequence")
    if index is not None:
        assert int(index) < len(load_contract(contract_path("peg")).action.dimensions)


@pytest.mark.ros
@pytest.mark.parametrize("path", shown("StateTransitions"))
def test_states_have_names_in_the_message(path: str) -> None:
    """Foxglove shows a number by the name of the constant of that value, if its type is that of the field."""
    pytest.importorskip("rclpy")
    from dagger_ros.nodes.base import message_class

    topic, _, field = path.partition(".")
    type_ = TYPES[topic]
    kind = message_class(type_).get_fields_and_field_types()[field]
    if kind in ("boolean", "string") or field == "intervention_reason":  # its constants are those of ExpertAction
        return
    text = (ROOT / "msg" / f"{type_.rpartition('/')[2]}.msg").read_text()
    assert re.search(rf"^{kind} [A-Z_]+=", text, re.M)


def test_layout_shows_topics_and_calls_services_that_the_graph_has() -> None:
    peg, wrist = (load_contract(contract_path(name)) for name in ("peg", "wrist_camera"))
    rights = graph_access(peg, simulation=False)
    offered = {f"/{name}{service[1:]}" for name, access in rights.items() for service in access.reply}
    assert set(shown("CallService")) <= offered
    written = {topic for access in rights.values() for topic in access.publish}
    for topic in (*shown("DiagnosticSummary"), *shown("DiagnosticStatusPanel"), *TYPES):
        assert topic in written or topic[1:] in written
    assert {image["imageTopic"] for image in shown("Image")} == {f"/{c.topic}" for c in wrist.cameras.values()}
    assert PANELS["DiagnosticStatusPanel!supervisor"]["selectedHardwareId"] == peg.robot.body


def test_each_node_is_of_one_group_of_the_analyzers_in_any_namespace() -> None:
    nodes = [*runpy.run_path(str(ROOT / "setup.py"))["NODES"], "driver"]
    groups = {name: group for name, group in ANALYZERS.items() if isinstance(group, dict)}
    assert {group["type"] for group in groups.values()} == {"diagnostic_aggregator/GenericAnalyzer"}
    for name in (f"{place}/{node}" for node in nodes for place in ("", "/cell/left")):
        assert len([group for group in groups.values() if any(part in name for part in group["contains"])]) == 1, name
