from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import by_joint_position, contract_path
from dagger_ros.contract import ContractError, DaggerError, load_contract, parse_contract


@pytest.fixture
def content() -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load(contract_path("peg").read_text())
    return result


def problems(content: dict[str, Any]) -> str:
    with pytest.raises(ContractError) as error:
        parse_contract(yaml.safe_dump(content), source="peg.yaml")
    return str(error.value)


def test_shipped_contracts_are_valid(task: str) -> None:
    assert load_contract(contract_path(task)).name == task


def test_unknown_key_is_named_with_the_valid_ones(content: dict[str, Any]) -> None:
    content["streams"]["peg_in_hole"]["max_age_ms"] = 250
    text = problems(content)
    assert "streams.peg_in_hole.max_age_ms: expected no such key here" in text
    assert "(did you mean max_age_s? valid here: topic, " in text
    content["streams"]["peg_in_hole"] |= {"colour": "red"}
    assert "streams.peg_in_hole.colour: expected no such key here (valid here: topic, " in problems(content)


def test_missing_bound_is_named(content: dict[str, Any]) -> None:
    del content["action"]["dimensions"][1]["lower"]
    assert "action.dimensions.1.lower: expected this key; found nothing" in problems(content)


def test_wrong_unit_is_refused_with_the_right_ones(content: dict[str, Any]) -> None:
    content["streams"]["joint_position"]["unit"] = "deg"
    text = problems(content)
    assert "streams.joint_position.unit: expected one of 1, m, rad" in text
    assert "found deg" in text


def test_unit_that_the_field_cannot_have_is_refused(content: dict[str, Any]) -> None:
    content["streams"]["peg_in_hole"]["unit"] = "rad"
    assert "expected m for pose.position.x; found rad" in problems(content)


def test_type_that_cannot_give_the_field_is_refused_with_its_fields(content: dict[str, Any]) -> None:
    content["streams"]["peg_in_hole"]["select"] = ["twist.linear.x"]
    text = problems(content)
    assert "streams.peg_in_hole.select.0: expected a field of geometry_msgs/msg/PoseStamped" in text
    assert "pose.position.x" in text


def test_unknown_message_type_is_refused(content: dict[str, Any]) -> None:
    content["streams"]["peg_in_hole"]["type"] = "geometry_msgs/msg/Pose2D"
    assert "streams.peg_in_hole.type: expected one of sensor_msgs/msg/JointState" in problems(content)


def test_camera_with_the_name_of_a_stream_is_refused(content: dict[str, Any]) -> None:
    camera = {"topic": "camera", "type": "sensor_msgs/msg/Image", "width": 64, "height": 48}
    content["cameras"]["tool_position"] = camera | {"frame": "camera", "rate_hz": 20.0, "max_age_s": 0.2}
    assert "cameras.tool_position: expected a name that no stream has; found tool_position twice" in problems(content)


def test_what_does_not_fit_is_reported_beside_what_is_missing(content: dict[str, Any]) -> None:
    content["robot"]["colour"] = "red"
    content["streams"]["tool_position"]["unit"] = "mm"
    content["action"]["dimensions"][2]["lower"] = 9.0
    content["timing"]["latency_budget_s"] = 1.0
    text = problems(content)
    assert "4 problems" in text
    for key in ("robot.colour", "streams.tool_position.unit", "action.dimensions.2 (vz)", "timing.latency_budget_s"):
        assert key in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["action"].update(topic="supervisor/decision"), "none of the names that the graph uses"),
        (lambda c: c["streams"]["tool_position"].update(topic="policy/action"), "none of the names that the graph"),
        (lambda c: c.update(contract=True), "contract: expected a whole number"),
        (lambda c: c["action"].update(measured="nothing"), "action.measured: expected one of joint_effort"),
    ],
)
def test_bad_name_is_refused(content: dict[str, Any], change: Any, message: str) -> None:
    change(content)
    assert message in problems(content)


def test_wrong_entry_is_not_also_called_a_missing_one(content: dict[str, Any]) -> None:
    for dimension in content["action"]["dimensions"]:
        del dimension["acceleration_limit"]
    assert "peg.yaml: 3 problems" in problems(content)
    content["action"]["dimensions"] = []
    assert "action.dimensions: expected at least 1 entry; found []" in problems(content)


def test_all_problems_are_reported_at_once(content: dict[str, Any]) -> None:
    content["action"]["dimensions"][0]["acceleration_limit"] = 0.0
    content["timing"]["driver_timeout_s"] = "soon"
    content["task"]["horizon_s"] = -1.0
    text = problems(content)
    assert "3 problems" in text
    assert "action.dimensions.0.acceleration_limit: expected a number > 0; found 0.0" in text
    assert "timing.driver_timeout_s: expected a number; found 'soon'" in text
    assert "task.horizon_s" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["action"]["dimensions"][0].update(lower=0.3), "lower < upper"),
        (lambda c: c["action"]["dimensions"][0].update(lower=0.1), "bounds that hold 0, which is the stop"),
        (lambda c: c["action"]["dimensions"][0].update(upper=float("nan")), "expected a finite number; found nan"),
        (
            lambda c: c["action"]["dimensions"][0].update(acceleration_limit=float("inf")),
            "expected a finite number; found inf",
        ),
        (lambda c: c["action"].update(stop="hold_position"), "ramp_to_zero, the stop of a velocity interface"),
        (lambda c: c["action"].update(interface="position"), "the stream of measured positions"),
        (lambda c: c["action"].update(topic="joint_states"), "a topic of its own"),
        (lambda c: c["action"]["dimensions"][1].update(name="vx"), "each name once; found vx"),
        (lambda c: c["streams"]["peg_in_hole"].update(max_age_s=0.01), "or it is always stale"),
        (lambda c: c["streams"]["joint_velocity"].update(rate_hz=10.0), "on the same topic; found 10.0"),
        (lambda c: c["streams"]["joint_position"].update(select=["position.j1", "velocity.j1"]), "one quantity"),
        (lambda c: c["timing"].update(policy_max_age_s=0.01), "at least the control period of 0.05 s"),
        (lambda c: c["splits"].update(train=0.5), "shares that add up to 1"),
        (lambda c: c["simulation"]["sources"].pop("tool_position"), "where the model gives this stream"),
        (lambda c: c["simulation"]["observation_noise"].update(nose=0.1), "simulation.observation_noise.nose"),
        (lambda c: c["simulation"]["actuation"].update(kind="magic"), "kind: "),
        (lambda c: c.update(contract=2), "contract: expected a number <= 1; found 2"),
    ],
)
def test_bad_value_is_refused(content: dict[str, Any], change: Any, message: str) -> None:
    change(content)
    assert message in problems(content)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("data[00]", "action.dimensions.1.select: expected each field once; found data[00]"),
        ("data[0:1]", "action.dimensions.1.select: expected each field once; found data[0:1]"),
        ("data[1:3]", "action.dimensions.1.select: expected one number, as in data[1]; found data[1:3]"),
    ],
)
def test_two_dimensions_of_an_action_do_not_share_a_number(select: str, message: str) -> None:
    content = yaml.safe_load(contract_path("arm_forward_command").read_text())
    content["action"]["dimensions"][1]["select"] = select
    assert message in problems(content)


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DaggerError, match=r"nowhere.yaml: expected a task contract .*No such file"):
        load_contract(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "text", ["", "a: [", "just text", "a: 1\na: 2", "[1]: 2", "!!python/object:os.system {}", "[" * 3000]
)
def test_text_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match=r"peg.yaml"):
        parse_contract(text, source="peg.yaml")


def test_hash_ignores_comments_and_order_but_no_value(content: dict[str, Any]) -> None:
    first = parse_contract(yaml.safe_dump(content), source="")
    again = parse_contract("# a comment\n" + yaml.safe_dump(content, sort_keys=False), source="")
    changed = copy.deepcopy(content)
    changed["timing"]["driver_timeout_s"] = 0.25
    assert first.sha256 == again.sha256
    assert first.sha256 != parse_contract(yaml.safe_dump(changed), source="").sha256


def change_dimension(**fields: Any) -> Any:
    return lambda c: c["action"]["dimensions"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_dimension(jump_limit=0.0), "action.dimensions.0.jump_limit: expected a number > 0; found 0.0"),
        (change_dimension(acceleration_limit=-1.0), "acceleration_limit: expected a number > 0; found -1.0"),
        (change_dimension(deceleration_limit=float("nan")), "deceleration_limit: expected a finite number; found nan"),
        (change_dimension(jerk_limit=0), "jerk_limit: expected a number > 0; found 0"),
        (
            lambda c: c["action"]["dimensions"][0].pop("deceleration_limit"),
            "(vx).deceleration_limit: expected this key: a velocity interface needs it; found nothing",
        ),
        (change_dimension(velocity_limit=1.0), "for a velocity interface (no such limit); found velocity_limit"),
        (change_dimension(tracking_limit=1.0), "without 'measured' there is nothing to compare with"),
        (change_dimension(jump_limit=0.1), "(vx).jump_limit: expected at least what one period allows, 0.2; found 0.1"),
        (lambda c: c["action"].pop("handover"), "action.handover: expected this key; found nothing"),
        (lambda c: c["action"]["handover"].update(limit_scale=0.0), "handover.limit_scale: expected a number > 0"),
        (lambda c: c["action"]["handover"].update(limit_scale=1.5), "handover.limit_scale: expected a number <= 1"),
        (lambda c: c["action"]["handover"].update(longest_s=0.01), "at least the control period of 0.05 s; found 0.01"),
        (lambda c: c["timing"].update(estop_max_age_s=0.01), "timing.estop_max_age_s: expected at least the control"),
        (lambda c: c["timing"].update(estop_max_age_s=0.0), "timing.estop_max_age_s: expected a number > 0; found 0.0"),
        (lambda c: c["action"]["workspace"][0].update(stream="tool"), "action.workspace.0.stream: expected one of"),
        (
            lambda c: c["action"]["workspace"][0].update(stream="true_peg_in_hole"),
            "a stream that is not privileged: on the robot that one is not there",
        ),
        (
            lambda c: c["action"]["workspace"][0].update(lower=[0.0]),
            "workspace.0.lower: expected 3 values, as tool_pos",
        ),
        (
            lambda c: c["action"]["workspace"][0].update(lower=[0.9, -1.0, -1.0]),
            "action.workspace.0, value 0: expected lower < upper; found 0.9 and 0.75",
        ),
        (lambda c: c["action"]["workspace"][0].update(upper=["a", 1, 1]), "workspace.0.upper.0: expected a number"),
        (
            lambda c: c["action"].update(measured="true_peg_in_hole"),
            "action.measured: expected a stream that is not priv",
        ),
        (
            lambda c: c["action"].update(measured="tool_position"),
            "action.measured: expected a stream in m/s, the unit of vx; found tool_position in m",
        ),
    ],
)
def test_limit_that_would_not_limit_is_refused(content: dict[str, Any], change: Any, message: str) -> None:
    change(content)
    assert message in problems(content)


def test_position_interface_needs_its_own_limits(content: dict[str, Any]) -> None:
    by_joint_position(content)
    del content["simulation"]
    assert parse_contract(yaml.safe_dump(content), source="c.yaml").action.measured == "joint_position"
    for dimension in content["action"]["dimensions"]:
        del dimension["velocity_limit"], dimension["tracking_limit"]
        dimension["deceleration_limit"] = 1.0
    text = problems(content)
    assert "18 problems" in text
    assert "(j1).velocity_limit: expected this key: a position interface needs it" in text
    assert "(j6).tracking_limit: expected this key: a position interface needs it" in text
    assert "for a position interface (no such limit); found deceleration_limit" in text


def test_effort_interface_is_limited_in_its_rate(content: dict[str, Any]) -> None:
    by_joint_position(content)
    del content["simulation"]
    content["action"] |= {"interface": "effort", "stop": "delegate", "measured": None}
    for d in content["action"]["dimensions"]:
        for name in ("velocity_limit", "acceleration_limit", "tracking_limit"):
            del d[name]
        d |= {"unit": "N*m", "rate_limit": 5.0}
    assert parse_contract(yaml.safe_dump(content), source="c.yaml").action.dimensions_[0].limits() == {
        "jump_limit": 0.5,
        "rate_limit": 5.0,
    }
