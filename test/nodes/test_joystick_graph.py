"""A person at the pad: expert_label and supervisor, from `sensor_msgs/Joy` to the command."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conftest import contract_path, limits_for, weak_policy
from dagger_ros.contract import (
    Act,
    DaggerError,
    InterventionReason,
    Label,
    Mode,
    RowLayout,
    load_contract,
    stamp_from_ns,
)
from dagger_ros.dataset import read_episode, read_rows
from dagger_ros.policy import load_checkpoint

rclpy = pytest.importorskip("rclpy")
from sensor_msgs.msg import Joy, JoyFeedback

from dagger_ros.msg import HelpRequest, OperatorAct
from dagger_ros.nodes.aggregator import AggregatorNode
from dagger_ros.nodes.expert_label import ExpertLabelNode
from dagger_ros.nodes.joystick_monitor import JoystickMonitor
from dagger_ros.nodes.qos import ACT_QOS, EVENT_QOS
from dagger_ros.nodes.supervisor import SupervisorNode
from dagger_ros.supervisor import Reason
from rest import BACK, DEADMAN, DPAD_Y, EAST, LEFT_PRESS, LEFT_STICK_Y, SOUTH, START, WEST, Person, rest_of_the_graph

pytestmark = pytest.mark.ros


@pytest.fixture
def scene(ros_domain: int, patient: Path) -> Iterator[Person]:
    with rest_of_the_graph(ros_domain, lambda context: Person(context, load_contract(patient))) as rest:
        given = {"contract": str(patient)}
        nodes = [
            SupervisorNode(given, rest.node.context),
            ExpertLabelNode(given | {"expert": "joystick", "operator_id": "ada"}, rest.node.context),
        ]
        for node in nodes:
            rest.executor.add_node(node)
        yield rest
        for node in nodes:
            node.destroy_node()


def test_person_arms_takes_over_lets_go_and_gives_back_and_each_act_is_said(scene: Person) -> None:
    scene.arm()
    scene.press(LEFT_PRESS)
    scene.until(lambda: Act.REASON in scene.kinds())
    scene.take_over()
    decision = scene.decisions[-1]
    assert decision.label_source == Label.EXPERT
    assert decision.intervention == 1
    assert decision.intervention_reason == InterventionReason.CONTROL
    assert decision.operator_id == "ada"
    scene.let_go(DEADMAN, LEFT_PRESS)
    scene.until_mode(Mode.HOLD)  # whatever the stick says
    scene.push(0.0)
    scene.until(lambda: scene.commands[-1][0] == 0.0)
    scene.press(SOUTH)
    scene.until_mode(Mode.POLICY)
    scene.let_go(SOUTH)
    assert scene.kinds() == [Act.ARM, Act.REASON, Act.TAKEOVER, Act.RELEASE, Act.RESUME]
    stamps = [act.header.stamp.sec * 10**9 + act.header.stamp.nanosec for act in scene.acts]
    assert stamps == sorted(stamps)
    assert stamps[0] > 0
    assert {act.operator_id for act in scene.acts} == {"ada"}
    scene.press(WEST)
    scene.until_mode(Mode.HOLD)
    scene.press(EAST)
    scene.until_mode(Mode.ESTOP)
    assert scene.kinds()[5] is Act.HOLD
    assert set(scene.kinds()[6:]) == {Act.ESTOP}  # again and again
    answer = scene.ask("reset_estop")
    assert not answer.success
    assert "the cause persists" in answer.message
    scene.let_go(EAST)
    scene.until(lambda: scene.ask("reset_estop").success)
    scene.until_mode(Mode.HOLD)


def test_two_pads_on_one_topic_hold(scene: Person) -> None:
    scene.arm()
    scene.take_over()
    other = scene.node.create_publisher(Joy, "joy", ACT_QOS)
    scene.until_mode(Mode.HOLD)
    scene.until(
        lambda: any(
            "2 nodes published joy, where one is expected" in v.message for v in scene.verdicts_of("expert_label")
        )
    )
    scene.node.destroy_publisher(other)


def test_rule_that_lets_the_expert_drive_does_so_only_with_the_deadman_pressed(ros_domain: int, patient: Path) -> None:
    with rest_of_the_graph(ros_domain, lambda context: Person(context, load_contract(patient))) as person:
        given = {"contract": str(patient)}
        nodes = [
            SupervisorNode(given | {"rule": "bc", "round": 0}, person.node.context),
            ExpertLabelNode(given | {"expert": "joystick", "operator_id": "ada"}, person.node.context),
        ]
        for node in nodes:
            person.executor.add_node(node)
        person.arm()
        person.push(1.0)
        before = len(person.decisions)
        person.until(lambda: len(person.decisions) > before + 10)
        assert {d.mode for d in person.decisions[before:]} == {Mode.HOLD}
        person.take_over()
        person.let_go(DEADMAN)
        person.until_mode(Mode.HOLD)
        person.until(lambda: person.commands[-1][0] == 0.0)
        for node in nodes:
            node.destroy_node()


def test_pad_that_is_unplugged_holds_and_does_not_move_when_it_comes_back(scene: Person) -> None:
    scene.arm()
    scene.take_over()
    scene.silent |= {"joy"}
    scene.until_mode(Mode.HOLD)
    assert scene.reasons & Reason.EXPERT_NOT_FINITE
    scene.until(lambda: scene.kinds()[-1] is Act.RELEASE)
    scene.until(lambda: scene.commands[-1][0] == 0.0)
    before = len(scene.decisions)
    scene.silent -= {"joy"}  # repeats what it said: deadman pressed, stick at its stop
    scene.until(lambda: len(scene.decisions) > before + 20)
    assert {d.mode for d in scene.decisions[before:]} == {Mode.HOLD}
    scene.let_go(DEADMAN)
    scene.push(0.0)
    scene.until(lambda: not scene.reasons & Reason.EXPERT_NOT_FINITE)
    scene.take_over()


def test_policy_does_not_drive_on_while_the_pad_of_who_watches_is_gone(scene: Person) -> None:
    scene.arm()
    scene.press(SOUTH)
    scene.until_mode(Mode.POLICY)
    scene.let_go(SOUTH)
    scene.silent |= {"joy"}
    assert Reason(scene.until_mode(Mode.HOLD).reasons) & Reason.EXPERT_NOT_FINITE
    scene.silent -= {"joy"}
    before = len(scene.decisions)
    scene.until(lambda: len(scene.decisions) > before + 10)
    assert {d.mode for d in scene.decisions[before:]} == {Mode.HOLD}


def test_act_that_was_long_on_its_way_starts_nothing(scene: Person) -> None:
    acts = scene.node.create_publisher(OperatorAct, "expert/act", ACT_QOS)
    scene.arm()
    late = OperatorAct(act=int(Act.RESUME), contract_sha256=scene.contract.sha256, operator_id="ada")
    for age_s in (10, -10):
        stamp_from_ns(late.header.stamp, scene.node.get_clock().now().nanoseconds - age_s * 10**9)
        acts.publish(late)
        before = len(scene.decisions)
        scene.until(lambda start=before: len(scene.decisions) > start + 10)  # type: ignore[misc]
        assert {d.mode for d in scene.decisions[before:]} == {Mode.HOLD}
    stamp_from_ns(late.header.stamp, scene.node.get_clock().now().nanoseconds)
    acts.publish(late)
    scene.until_mode(Mode.POLICY)
    late.act = int(Act.HOLD)
    stamp_from_ns(late.header.stamp, 5)
    acts.publish(late)  # what stops counts however old it is
    scene.until_mode(Mode.HOLD)


def test_message_of_another_pad_holds_and_says_why(scene: Person) -> None:
    scene.arm()
    scene.take_over()
    scene.joy = Joy(axes=[0.0], buttons=[0])
    scene.until_mode(Mode.HOLD)
    scene.until(lambda: any("expected at least 8 axes" in v.message for v in scene.verdicts_of("expert_label")))


def test_arm_button_does_not_arm_what_cannot_see(scene: Person) -> None:
    scene.silent |= {"tool_pose"}
    scene.until(lambda: bool(scene.decisions) and not scene.reasons & (Reason.EXPERT_NEVER | Reason.EXPERT_NOT_FINITE))
    scene.press(START)
    scene.until(lambda: Act.ARM in scene.kinds())
    before = len(scene.decisions)
    scene.until(lambda: len(scene.decisions) > before + 5)
    assert {d.mode for d in scene.decisions} == {Mode.LOCKED}
    scene.silent -= {"tool_pose"}
    scene.until(lambda: not scene.reasons & Reason.OBSERVATION_NEVER)
    assert scene.decisions[-1].mode == Mode.LOCKED  # the button is still pressed, and that is no new wish


def test_acts_of_an_episode_stand_in_its_bag_and_beside_it(scene: Person, patient: Path, tmp_path: Path) -> None:
    round_ = tmp_path / "round"
    given = {"contract": str(patient), "out": str(round_)}
    aggregator = AggregatorNode(given, scene.node.context)
    scene.executor.add_node(aggregator)
    scene.arm()
    aggregator.start(7)
    for button in (None, BACK):  # the second correction is taken back
        scene.take_over()
        labelled = len(scene.decisions)
        scene.until(lambda start=labelled: len(scene.decisions) > start + 3)  # type: ignore[misc]
        scene.let_go(DEADMAN)
        scene.push(0.0)
        scene.until_mode(Mode.HOLD)
        if button is not None:
            scene.press(button)
            scene.until(lambda: Act.UNDO in scene.kinds())
            scene.let_go(button)
    scene.joy.axes[DPAD_Y] = 1.0
    scene.until(lambda: (round_ / "episodes/000000/episode.json").is_file())
    info = read_episode(round_ / "episodes/000000")
    acts = ["takeover", "release", "takeover", "release", "undo", "success"]
    assert [act["act"] for act in info.acts] == acts
    assert info.success
    assert info.seed == 7
    assert info.operator_id == "ada"
    assert info.messages["joy"] > 10
    rows = read_rows(round_ / "episodes/000000/bag", RowLayout(scene.contract))
    assert (rows["label_source"][rows["intervention"] == 1] == Label.EXPERT).sum() > 2
    assert (rows["label_source"][rows["intervention"] == 2] == Label.NONE).all()
    assert (rows["mode"][rows["intervention"] == 2] == Mode.EXPERT).all()
    # The episode is over, and so is what was to be done.
    scene.joy.axes[DPAD_Y] = 0.0
    aggregator.start(8)
    # The end of the first episode holds: nobody resumes before the supervisor has heard of it.
    scene.until(lambda: bool(scene.decisions[-1].episode == 1))
    scene.press(SOUTH)
    scene.until_mode(Mode.POLICY)
    scene.let_go(SOUTH)
    scene.until(lambda: not scene.reasons & Reason.EXPERT_NOT_FINITE and scene.decisions[-1].episode == 1)
    aggregator.stop(success=False, failure="jammed", metric=0.0)
    scene.until_mode(Mode.HOLD)
    aggregator.start(9)
    scene.until(lambda: not scene.reasons & Reason.EXPERT_NOT_FINITE)
    scene.joy.axes[DPAD_Y] = -1.0  # discard
    scene.until(lambda: Act.DISCARD in scene.kinds())
    scene.until(lambda: aggregator.verdict()[1] == "not recording")
    assert not (round_ / "episodes/000002/episode.json").exists()
    aggregator.destroy_node()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameter operator_id: expected who holds the pad"),
        ({"pad": "stick", "operator_id": "ada"}, "pad: expected a YAML file, or one of playstation, xbox; got 'stick'"),
        ({"labels": "all", "operator_id": "ada"}, "labels: expected one of takeover, shadow, got 'all'"),
        ({"horizon": 0, "operator_id": "ada"}, "horizon: expected 1 or more ticks, got 0"),
        ({"lockstep": True, "operator_id": "ada"}, "a person lives in real time"),
    ],
)
def test_wrong_parameter_of_the_joystick_is_refused(parameters: dict[str, Any], message: str, ros_domain: int) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    with pytest.raises(DaggerError, match=message):
        ExpertLabelNode({"contract": str(contract_path("peg")), "expert": "joystick", **parameters}, context)
    context.try_shutdown()


def test_monitor_shows_what_the_pad_does_and_drives_nothing(patient: Path, ros_domain: int) -> None:
    monitor = JoystickMonitor(patient, "xbox")

    def picture(now_ns: int) -> str:
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(monitor.picture(now_ns))
        return console.export_text()

    assert "HOLD: the pad was never heard" in picture(0)
    joy = Joy(axes=[0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0], buttons=[0] * 11)
    times_ns = iter(range(0, 10**11, 10**9))
    while "counts; nobody presses" not in picture(now_ns := next(times_ns)):
        monitor.receive(joy, now_ns, now_ns)
    joy.axes[LEFT_STICK_Y], joy.buttons[DEADMAN] = 1.0, 1
    monitor.receive(joy, now_ns, now_ns)
    text = picture(now_ns)
    assert "the expert drives" in text
    assert "+0.240" in text
    assert "last acts: deadman" in text
    pictures: list[Any] = []
    monitor.run(pictures.append, topic="joy", pictures=2)
    assert len(pictures) == 2


def test_request_for_help_reaches_the_person_and_holds_without_an_answer(
    ros_domain: int, patient: Path, tmp_path: Path
) -> None:
    contract = load_contract(patient)
    # Whatever the policy says of itself is above this.
    limits = {"rule": "safe", "ask": {"doubt": -1.0}, "back": {"discrepancy": -1.0}, "back_ticks": 1}
    policy = weak_policy("peg", tmp_path / "pi_000", contract=contract, limits=limits)
    requests: list[Any] = []
    trembles: list[float] = []
    with rest_of_the_graph(ros_domain, lambda context: Person(context, contract)) as person:
        given = {"contract": str(patient)}
        nodes = [
            SupervisorNode(given | {"rule": "safe", "policy": str(policy)}, person.node.context),
            ExpertLabelNode(given | {"expert": "joystick", "operator_id": "ada"}, person.node.context),
        ]
        for node in nodes:
            person.executor.add_node(node)
        person.policy_sha256 = load_checkpoint(policy, contract)[0].weights_sha256
        person.node.create_subscription(HelpRequest, "supervisor/help", requests.append, EVENT_QOS)
        person.node.create_subscription(
            JoyFeedback, "joy/set_feedback", lambda message: trembles.append(message.intensity), ACT_QOS
        )
        person.arm()
        person.press(SOUTH)
        person.until(lambda: any(d.mode == Mode.POLICY and d.help for d in person.decisions))
        person.let_go(SOUTH)
        person.until(lambda: any(d.reasons & Reason.HELP_UNANSWERED for d in person.decisions))
        assert person.decisions[-1].mode == Mode.HOLD
        person.until(lambda: bool(requests) and bool(trembles))
        assert trembles[0] == 1.0
        request = requests[-1]
        assert (request.asked, request.rule, request.answer_s) == (True, "safe", contract.timing.help_answer_s)
        assert request.reason == "doubt 0 above -1"
        person.until(lambda: any("asks for help: doubt 0 above -1" in v.message for v in person.verdicts))
        person.press(DEADMAN)
        person.until_mode(Mode.EXPERT)
        person.until(lambda: not requests[-1].asked and trembles[-1] == 0.0)
        # A person may let it go on without an answer: that is an answer too.
        person.let_go(DEADMAN)
        person.until_mode(Mode.HOLD)
        person.until(lambda: person.ask("resume").success)
        person.until(lambda: person.decisions[-1].mode == Mode.POLICY and person.decisions[-1].help)
        assert person.ask("resume").message == "the policy goes on at the next tick"
        for node in nodes:
            node.destroy_node()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rule": "lazy"}, r"rule lazy: expected the parameter 'policy' \(folder of a checkpoint\), got nothing"),
        ({"rule": "lazy", "policy": "pi_000"}, "rule lazy: expected a policy whose limits were fitted for this rule"),
        ({"rule": "thrifty", "budget": 0.0}, "budget: expected a share of the policy's ticks between 0 and 1, got 0"),
        ({"rule": "safe", "policy": "pi_000", "policy_sha256": "b" * 64}, "policy_sha256: expected that of the policy"),
    ],
)
def test_rule_that_asks_is_refused_without_what_it_needs(
    ros_domain: int, patient: Path, tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    policy = weak_policy("peg", tmp_path / "pi_000", contract=load_contract(patient), limits=limits_for("safe"))
    given = parameters | ({"policy": str(policy)} if "policy" in parameters else {})
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    try:
        with pytest.raises(DaggerError, match=message):
            SupervisorNode({"contract": str(patient), **given}, context)
    finally:
        context.try_shutdown()
