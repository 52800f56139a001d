"""How messages come, without ROS: messages are anything with the right attributes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import PEG, PERIOD_NS
from dagger_ros.contract import SCORES_OF_POLICY, Contract, RowLayout
from dagger_ros.control import Inbox
from dagger_ros.supervisor import Event, Reason

LAYOUT = RowLayout(PEG)
STREAMS = len(PEG.streams)
NOW_NS = 100 * PERIOD_NS


def proposal(sequence: int, **changes: Any) -> Any:
    sec, nanosec = divmod(NOW_NS, 10**9)
    fields: dict[str, Any] = {
        "header": SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)),
        "sequence": sequence,
        "tick": -1,
        "contract_sha256": PEG.sha256,
        "policy": "pi_003",
        "policy_sha256": "a" * 64,
        "round": 3,
        "doubt": 0.25,
        "novelty": 0.5,
        "deviation": 0.75,
        "risk": 0.125,
        "inference_s": 0.002,
        "operator_id": "Ada",
        "action": [0.1, 0.2, 0.3],
        "label": True,
        "takeover": False,
        "unattended": False,
        "resume": False,
        "reason": 4,
    }
    return SimpleNamespace(**(fields | changes))


def filled(inbox: Inbox, now_ns: int = NOW_NS) -> Any:
    row = inbox_layout(inbox).new(1)[0]
    row["time_ns"] = row["monotonic_ns"] = now_ns
    inbox.fill(row)
    return row


def inbox_layout(inbox: Inbox) -> RowLayout:
    return inbox.streams._layout


def reasons(inbox: Inbox, now_ns: int = NOW_NS) -> Reason:
    return Reason(int(filled(inbox, now_ns)["reasons"]))


def put(inbox: Inbox, source: str, message: Any) -> None:
    {"policy": inbox.put_policy, "expert": inbox.put_expert}[source](message, NOW_NS)


def test_empty_inbox_fills_nothing() -> None:
    row = filled(Inbox(LAYOUT))
    assert row["reasons"] == 0
    assert (row["receive_ns"] == -1).all()
    assert row["policy_receive_ns"] == row["expert_receive_ns"] == -1
    assert np.isnan(row["policy_action"]).all()
    assert row["requests"] == row["expert_intent"] == 0


def test_proposals_and_their_provenance_stand_in_the_row() -> None:
    inbox = Inbox(LAYOUT)
    inbox.put_policy(proposal(0), NOW_NS - 5)
    inbox.put_expert(proposal(0, action=[0.0, 0.0, -0.1], takeover=True), NOW_NS - 3)
    row = filled(inbox)
    assert row["policy_action"].tolist() == [0.1, 0.2, 0.3]
    assert row["expert_action"].tolist() == [0.0, 0.0, -0.1]
    assert (row["policy_receive_ns"], row["expert_receive_ns"]) == (NOW_NS - 5, NOW_NS - 3)
    assert row["policy_stamp_ns"] == row["expert_stamp_ns"] == NOW_NS
    assert [row[name] for name in SCORES_OF_POLICY] == [0.25, 0.5, 0.75, 0.125]
    assert row["inference_s"] == 0.002
    assert (row["policy_round"], row["policy"]) == (3, b"pi_003")
    assert (row["operator_id"], row["expert_intent"], row["expert_reason"]) == (b"Ada", 3, 4)
    assert row["reasons"] == 0


@pytest.mark.parametrize("source", ["policy", "expert"])
@pytest.mark.parametrize(
    ("sequences", "fault", "used"),
    [
        ([4, 4], "DUPLICATE", 0),
        ([4, 3], "OUT_OF_ORDER", 0),
        ([4, 6], "GAP", 1),
    ],
)
def test_order_of_proposals_is_noted_once(source: str, sequences: list[int], fault: str, used: int) -> None:
    inbox = Inbox(LAYOUT)
    for i, sequence in enumerate(sequences):
        put(inbox, source, proposal(sequence, action=[float(i)] * 3))
    row = filled(inbox)
    assert Reason(int(row["reasons"])) == Reason[f"{source.upper()}_{fault}"]
    assert row[f"{source}_action"][0] == used
    assert reasons(inbox) == 0


@pytest.mark.parametrize("source", ["policy", "expert"])
def test_source_that_keeps_losing_messages_is_invalid(source: str) -> None:
    inbox = Inbox(LAYOUT)
    for sequence in range(0, 12, 2):
        put(inbox, source, proposal(sequence))
    assert reasons(inbox) & Reason[f"{source.upper()}_SEQUENCE"]
    put(inbox, source, proposal(11))
    assert not reasons(inbox) & Reason[f"{source.upper()}_SEQUENCE"]


@pytest.mark.parametrize("source", ["policy", "expert"])
@pytest.mark.parametrize("action", [[], [0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
def test_wrong_size_is_refused_whole(source: str, action: list[float]) -> None:
    inbox = Inbox(LAYOUT)
    put(inbox, source, proposal(0, action=action))
    row = filled(inbox)
    assert Reason(int(row["reasons"])) == Reason[f"{source.upper()}_SIZE"]
    assert np.isnan(row[f"{source}_action"]).all()


@pytest.mark.parametrize("source", ["policy", "expert"])
def test_other_contract_is_said(source: str) -> None:
    inbox = Inbox(LAYOUT)
    put(inbox, source, proposal(0, contract_sha256="0" * 64))
    assert reasons(inbox) == Reason[f"{source.upper()}_CONTRACT"]


def test_hand_back_between_two_ticks_is_not_lost_and_counts_once() -> None:
    inbox = Inbox(LAYOUT)
    inbox.put_expert(proposal(0, resume=True), NOW_NS)
    inbox.put_expert(proposal(1), NOW_NS)
    assert filled(inbox)["expert_intent"] & 4
    assert not filled(inbox)["expert_intent"] & 4
    inbox.put_expert(proposal(2), NOW_NS)
    assert not filled(inbox)["expert_intent"] & 4


def test_reason_that_nobody_knows_is_none() -> None:
    inbox = Inbox(LAYOUT)
    inbox.put_expert(proposal(0, reason=200), NOW_NS)
    assert filled(inbox)["expert_reason"] == 0


def test_requests_count_at_one_tick() -> None:
    inbox = Inbox(LAYOUT)
    inbox.request(Event.ARM)
    inbox.request(Event.RESUME)
    assert filled(inbox)["requests"] == Event.ARM.bit | Event.RESUME.bit
    assert filled(inbox)["requests"] == 0


def test_estop_topic_is_heard_and_where_the_contract_says_so_missed() -> None:
    inbox = Inbox(LAYOUT)
    assert reasons(inbox) == 0
    inbox.put_estop(True, NOW_NS)
    assert reasons(inbox, NOW_NS * 100) == Reason.ESTOP_PRESSED
    inbox.put_estop(False, NOW_NS)
    assert reasons(inbox, NOW_NS * 100) == 0
    content = PEG.model_dump(mode="json", by_alias=True)
    content["timing"]["estop_max_age_s"] = 0.5
    inbox = Inbox(RowLayout(Contract.model_validate(content)))
    assert reasons(inbox) == Reason.ESTOP_STALE  # never heard
    inbox.put_estop(False, NOW_NS)
    assert reasons(inbox, NOW_NS + 500_000_000) == 0
    assert reasons(inbox, NOW_NS + 500_000_001) == Reason.ESTOP_STALE


def test_recorder_is_missed_only_while_an_episode_is_under_way() -> None:
    inbox = Inbox(LAYOUT)
    inbox.put_recorder(True, NOW_NS)
    assert reasons(inbox, NOW_NS + 125_000_000) == 0
    assert reasons(inbox, NOW_NS + 125_000_001) == Reason.RECORDER_STALE
    inbox.put_recorder(False, NOW_NS)
    assert reasons(inbox, NOW_NS * 100) == 0


def test_second_writer_is_said() -> None:
    inbox = Inbox(LAYOUT)
    inbox.second_writer = True
    assert reasons(inbox) == Reason.SECOND_WRITER


def test_cleared_inbox_keeps_neither_observations_nor_proposals() -> None:
    inbox = Inbox(LAYOUT)
    inbox.streams.put(0, np.ones(3), NOW_NS, NOW_NS)
    inbox.put_policy(proposal(0), NOW_NS)
    inbox.put_expert(proposal(0), NOW_NS)
    inbox.clear()
    row = filled(inbox)
    assert (row["receive_ns"] == -1).all()
    assert row["policy_receive_ns"] == row["expert_receive_ns"] == -1
    inbox.put_policy(proposal(1), NOW_NS)
    assert reasons(inbox) == 0  # the counter went on


def test_lockstep_counts_everything_as_received_at_the_tick() -> None:
    inbox = Inbox(LAYOUT)
    inbox.put_policy(proposal(0), 5)
    inbox.received_at(NOW_NS)
    assert filled(inbox)["policy_receive_ns"] == NOW_NS


def test_proposal_without_a_stamp_was_computed_from_nothing() -> None:
    inbox = Inbox(LAYOUT)
    message = proposal(0)
    message.header.stamp.sec, message.header.stamp.nanosec = -1, 999_999_999
    inbox.put_policy(message, NOW_NS)
    assert filled(inbox)["policy_receive_ns"] == -1


STEP_NS = PERIOD_NS


@pytest.mark.parametrize(
    ("stamps", "fault", "kept"),
    [
        ([5, 5], Reason.OBSERVATION_DUPLICATE, 0),
        ([5, 4], Reason.OBSERVATION_OUT_OF_ORDER, 0),
        ([5, 7], Reason.OBSERVATION_GAP, 1),
        ([5, 6], Reason(0), 1),
    ],
)
def test_order_of_observations_is_noted(stamps: list[int], fault: Reason, kept: int) -> None:
    inbox = Inbox(LAYOUT)
    for i, stamp in enumerate(stamps):
        inbox.streams.put(0, np.full(3, float(i)), stamp * STEP_NS, stamp * STEP_NS)
    row = filled(inbox)
    assert Reason(int(row["reasons"])) == fault
    assert row["observation"][0] == kept


def test_stream_that_keeps_repeating_itself_is_invalid_and_not_fresh() -> None:
    inbox = Inbox(LAYOUT)
    for i in range(6):
        inbox.streams.put(1, np.zeros(3), STEP_NS, (i + 1) * STEP_NS)
    row = filled(inbox)
    assert Reason(int(row["reasons"])) & Reason.OBSERVATION_SEQUENCE
    assert row["receive_ns"][1] == STEP_NS


def test_message_that_lacked_a_field_is_said_until_a_whole_one_comes() -> None:
    inbox = Inbox(LAYOUT)
    inbox.streams.put(2, None, STEP_NS, STEP_NS)
    for _ in range(2):
        row = filled(inbox)
        assert Reason(int(row["reasons"])) == Reason.OBSERVATION_SIZE
        assert np.isnan(row["observation"][6:12]).all()
    inbox.streams.put(2, np.zeros(6), 2 * STEP_NS, 2 * STEP_NS)
    assert reasons(inbox) == 0


def test_emergency_stop_of_the_pad_counts_until_it_is_not_repeated_any_more() -> None:
    max_age_ns = round(PEG.timing.expert_max_age_s * 1e9)
    inbox = Inbox(LAYOUT)
    for age_ns, pressed in ((max_age_ns, True), (max_age_ns + 1, False)):
        inbox.put_estop_act(NOW_NS - age_ns)
        assert reasons(inbox) & Reason.ESTOP_PRESSED  # once, however old: nobody pressed it for nothing
        assert bool(reasons(inbox) & Reason.ESTOP_PRESSED) == pressed


def test_emergency_stop_that_is_shorter_than_a_tick_stops() -> None:
    inbox = Inbox(LAYOUT)
    inbox.put_estop(True, NOW_NS)
    inbox.put_estop(False, NOW_NS)
    assert reasons(inbox) & Reason.ESTOP_PRESSED
    assert not reasons(inbox) & Reason.ESTOP_PRESSED
