from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import LIMIT, PEG, PERIOD_NS, STEP, Bench, changed, position_contract
from dagger_ros.contract import NEVER_NS, Contract, ExpertIntent, Label, Mode
from dagger_ros.supervisor import BehaviourCloning, Dagger, Event, Gate, HumanGated, Reason, Rule

EASED = changed(handover={"limit_scale": 0.5, "longest_s": 0.3})


def test_command_within_limits_passes_unchanged() -> None:
    bench = Bench()
    for action in ([0.1, -0.05, 0.0], [0.2, 0.1, -0.1], [0.24, -0.09, 0.09]):
        row = bench.drive(policy=action)
        assert row["mode"] == Mode.POLICY
        assert row["executed_action"].tolist() == action
        assert row["reasons"] == 0


@pytest.mark.parametrize("beyond", [0.0, 1e-12, 0.1])
def test_bound_is_never_exceeded(beyond: float) -> None:
    bench = Bench()
    bench.drive(policy=[0.2, 0, 0])
    row = bench.drive(policy=[LIMIT + beyond, 0, 0])
    assert row["executed_action"][0] == LIMIT
    assert bool(row["reasons"] & np.uint64(Reason.CLAMPED_BOUND)) == (beyond > 0)


@pytest.mark.parametrize("step", [STEP, np.nextafter(STEP, 1), 0.23])
def test_rate_limit_holds_from_the_last_emitted_action(step: float) -> None:
    row = Bench().drive(policy=[step, 0, 0])
    assert row["executed_action"][0] == pytest.approx(STEP)
    assert bool(row["reasons"] & np.uint64(Reason.CLAMPED_RATE)) == (step > STEP)
    assert row["requested_action"][0] == step


@pytest.mark.parametrize(("gap", "expected"), [(0, 0.0), (1, 1.0), (2, 1.5), (4, 1.5)])
def test_neither_a_burst_nor_a_stall_earns_travel(gap: int, expected: float) -> None:
    bench = Bench()
    bench.drive(policy=[-LIMIT, 0, 0])
    last = bench.drive(policy=[-LIMIT, 0, 0])["executed_action"][0]
    bench.now_ns += (gap - 1) * PERIOD_NS
    row = bench.drive(policy=[LIMIT, 0, 0])
    assert row["executed_action"][0] - last == pytest.approx(min(expected * STEP, 2 * LIMIT))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_policy_that_is_not_finite_is_held(bad: float) -> None:
    bench = Bench()
    bench.drive(policy=[0.1, 0, 0])
    row = bench.drive(policy=[0.1, bad, 0])
    assert row["mode"] == Mode.HOLD
    refused = Reason.POLICY_JUMP if np.isinf(bad) else Reason(0)
    assert Reason(int(row["reasons"])) == Reason.POLICY_NOT_FINITE | Reason.HELD | refused
    assert row["executed_action"].tolist() == [0.0, 0.0, 0.0]
    assert row["label_source"] == Label.NONE


def test_hold_stays_until_an_explicit_resume() -> None:
    bench = Bench()
    bench.drive(policy=[np.nan, 0, 0])
    assert bench.drive(policy=[0.1, 0, 0])["mode"] == Mode.HOLD
    assert bench.drive(policy=[0.1, 0, 0], resume=True)["mode"] == Mode.POLICY


def test_velocity_stop_is_a_ramp_within_the_rate_limit() -> None:
    bench = Bench()
    for _ in range(3):
        bench.drive(policy=[LIMIT, 0, 0])
    rows = [bench.drive(policy=[np.nan, 0, 0]) for _ in range(3)]
    assert [r["executed_action"][0] for r in rows] == pytest.approx([LIMIT - STEP, 0.0, 0.0])


def test_nothing_received_is_locked_and_sends_a_stop() -> None:
    bench = Bench()
    row = bench.layout.new(1)[0]
    row["time_ns"] = row["monotonic_ns"] = bench.now_ns
    reasons = bench.tick(row)
    assert row["mode"] == Mode.LOCKED
    assert reasons & Reason.OBSERVATION_NEVER
    assert reasons & Reason.NOT_ARMED
    assert row["executed_action"].tolist() == [0.0, 0.0, 0.0]


AGE_NS = round(0.25 * 1e9)


@pytest.mark.parametrize("field", ["stamp_ns", "receive_ns"])
@pytest.mark.parametrize(("age_ns", "stale"), [(AGE_NS, False), (AGE_NS + 1, True)])
@pytest.mark.parametrize("stream", [i for i, s in enumerate(PEG.streams.values()) if not s.privileged])
def test_stale_observation_locks(field: str, age_ns: int, stale: bool, stream: int) -> None:
    bench = Bench()
    bench.drive()
    row = bench.row()
    row[field][stream] = bench.now_ns - age_ns
    reasons = bench.tick(row)
    assert bool(reasons & Reason.OBSERVATION_STALE) == stale
    assert (row["mode"] == Mode.LOCKED) == stale


@pytest.mark.parametrize(("ahead_ns", "future"), [(10_000_000, False), (10_000_001, True)])
def test_stamp_in_the_future_locks(ahead_ns: int, future: bool) -> None:
    bench = Bench()
    row = bench.row()
    row["stamp_ns"][0] = bench.now_ns + ahead_ns
    assert bool(bench.tick(row) & Reason.OBSERVATION_FUTURE) == future
    assert (row["mode"] == Mode.LOCKED) == future


def test_stream_that_only_the_expert_sees_is_not_needed_by_the_policy() -> None:
    """On a robot there is no ground truth."""
    bench = Bench()
    row = bench.row(policy=[0.1, 0, 0])
    row["receive_ns"][-1] = row["stamp_ns"][-1] = -1
    row["privileged"] = np.nan
    bench.tick(row)
    assert row["mode"] == Mode.POLICY


def test_observation_that_is_not_finite_locks() -> None:
    bench = Bench()
    row = bench.row()
    row["observation"][1] = np.nan
    assert bench.tick(row) & Reason.OBSERVATION_NOT_FINITE
    assert row["mode"] == Mode.LOCKED


def test_malformed_observation_locks() -> None:
    bench = Bench()
    row = bench.row()
    row["reasons"] = int(Reason.OBSERVATION_SIZE)
    bench.tick(row)
    assert row["mode"] == Mode.LOCKED


@pytest.mark.parametrize("fault", [Reason.POLICY_SIZE, Reason.POLICY_CONTRACT])
def test_policy_of_another_size_or_contract_is_held(fault: Reason) -> None:
    bench = Bench()
    row = bench.row()
    row["reasons"] = int(fault)
    assert bench.tick(row) == fault | Reason.HELD


MAX_NS = round(0.1 * 1e9)


@pytest.mark.parametrize("source", ["policy", "expert"])
@pytest.mark.parametrize(("age_ns", "stale"), [(MAX_NS, False), (MAX_NS + 1, True)])
def test_stale_driver_is_held(source: str, age_ns: int, stale: bool) -> None:
    bench = Bench()
    bench.drive(takeover=source == "expert")
    row = bench.row()
    row[f"{source}_receive_ns"] = bench.now_ns - age_ns
    reasons = bench.tick(row, ExpertIntent(takeover=source == "expert"))
    assert bool(reasons & Reason[f"{source.upper()}_STALE"]) == stale
    assert (row["mode"] == Mode.HOLD) == stale


def test_action_computed_from_an_old_observation_is_stale() -> None:
    bench = Bench()
    row = bench.row()
    row["policy_stamp_ns"] = bench.now_ns - MAX_NS - AGE_NS - 1
    assert bench.tick(row) & Reason.POLICY_STALE


def test_fault_in_one_action_of_the_expert_does_not_stop_the_policy() -> None:
    bench = Bench()
    row = bench.row(policy=[0.1, 0, 0], expert=[5.0, 0, 0])
    assert bench.tick(row) == Reason.EXPERT_JUMP
    assert row["mode"] == Mode.POLICY


@pytest.mark.parametrize(("needs_expert", "mode"), [(True, Mode.HOLD), (False, Mode.POLICY)])
def test_policy_does_not_drive_beside_an_expert_who_could_not_take_over(needs_expert: bool, mode: Mode) -> None:
    bench = Bench(needs_expert=needs_expert)
    row = bench.row(policy=[0.1, 0, 0], expert=np.nan)
    assert bench.tick(row) & Reason.EXPERT_NOT_FINITE
    assert row["mode"] == mode


def test_arming_is_refused_while_an_observation_is_missing() -> None:
    bench = Bench(auto_arm=False)
    row = bench.row()
    row["receive_ns"][2] = -1
    bench.tick(row, requests=(Event.ARM,))
    assert row["mode"] == Mode.LOCKED
    row = bench.row()
    bench.tick(row)
    assert row["mode"] == Mode.LOCKED
    row = bench.row()
    bench.tick(row, requests=(Event.ARM,))
    assert row["mode"] == Mode.HOLD


def test_estop_latches_over_everything() -> None:
    bench = Bench()
    bench.drive()
    row = bench.row(policy=[0.1, 0, 0])
    assert bench.tick(row, ExpertIntent(takeover=True), (Event.ESTOP,)) & Reason.ESTOP
    row = bench.row(policy=[0.1, 0, 0])
    bench.tick(row, ExpertIntent(takeover=True, resume=True), (Event.ARM, Event.RESUME))
    assert row["mode"] == Mode.ESTOP
    assert row["executed_action"].tolist() == [0.0, 0.0, 0.0]
    row = bench.row()
    bench.tick(row, requests=(Event.RESET_ESTOP,))
    assert row["mode"] == Mode.HOLD


def test_emergency_stop_and_its_reset_are_heard_by_who_cannot_see() -> None:
    bench = Bench(auto_arm=False)
    for event, mode in ((Event.ESTOP, Mode.ESTOP), (Event.HOLD, Mode.ESTOP)):
        row = bench.row()
        row["receive_ns"][0] = NEVER_NS
        bench.tick(row, requests=(event,))
        assert row["mode"] == mode
    row = bench.row()
    bench.tick(row)
    assert row["mode"] == Mode.ESTOP  # latched
    row = bench.row()
    row["receive_ns"][0] = NEVER_NS
    bench.tick(row, requests=(Event.RESET_ESTOP,))
    assert row["mode"] == Mode.LOCKED


BLIND = [BehaviourCloning(), Dagger(0.5), HumanGated()]


@pytest.mark.parametrize("rule", BLIND)
@pytest.mark.parametrize("event", Event)
def test_nothing_leads_past_a_missing_observation(rule: Rule, event: Event) -> None:
    for start in (Event.ESTOP, Event.LOCK):
        bench = Bench(rule)
        bench.drive(policy=[0.1, 0, 0], expert=[0.1, 0, 0], takeover=True)
        bench.tick(bench.row(), requests=(start,))
        row = bench.row(policy=[0.2, 0, 0], expert=[0.2, 0, 0])
        row["receive_ns"][0] = -1
        bench.tick(row, ExpertIntent(True, takeover=True, resume=True), (event, Event.ARM, Event.RESUME))
        assert row["mode"] in (Mode.LOCKED, Mode.ESTOP)


@pytest.mark.parametrize("rule", BLIND)
def test_hold_that_a_person_asked_for_lasts_until_a_person_resumes(rule: Rule) -> None:
    bench = Bench(rule)
    bench.drive(policy=[0.1, 0, 0], takeover=True)
    bench.tick(bench.row(), ExpertIntent(takeover=True), (Event.HOLD,))
    for _ in range(20):
        assert bench.drive(policy=[0.1, 0, 0], takeover=True)["mode"] == Mode.HOLD
    bench.tick(bench.row(), ExpertIntent(), (Event.RESUME,))
    assert bench.drive(policy=[0.1, 0, 0], takeover=True)["mode"] == Mode.EXPERT


def test_arming_by_a_person_does_not_move_before_a_resume() -> None:
    bench, script = Bench(BehaviourCloning(), auto_arm=False), ExpertIntent(unattended=True)
    for request, mode in ((Event.ARM, Mode.HOLD), (None, Mode.HOLD), (Event.RESUME, Mode.EXPERT)):
        row = bench.row(expert=[0.1, 0, 0])
        bench.tick(row, script, () if request is None else (request,))
        assert row["mode"] == mode


BY_PERSONS = [BehaviourCloning(), Dagger(0.0), Dagger(0.5), Dagger(1.0), HumanGated()]


@pytest.mark.parametrize("auto_arm", [False, True])
@pytest.mark.parametrize("rule", BY_PERSONS, ids=["bc", "dagger0", "dagger0.5", "dagger1", "hg"])
def test_person_drives_while_the_deadman_is_pressed_and_at_no_other_time(rule: Rule, auto_arm: bool) -> None:
    bench = Bench(rule, auto_arm=auto_arm)
    expert = [0.2, 0, 0]
    bench.tick(bench.row(expert=expert), requests=(Event.ARM,))
    bench.tick(bench.row(expert=expert), requests=(Event.RESUME,))
    for _ in range(20):
        assert bench.drive(expert=expert)["mode"] != Mode.EXPERT
    for _ in range(3):
        for _ in range(5):
            assert bench.drive(expert=expert, takeover=True)["mode"] == Mode.EXPERT
        for _ in range(20):  # letting go never leads back to the policy
            assert bench.drive(expert=expert)["mode"] == Mode.HOLD


def test_person_who_labels_in_the_shadow_is_mixed_in_only_with_the_deadman_pressed() -> None:
    bench = Bench(Dagger(1.0), auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM,))
    bench.tick(bench.row(), requests=(Event.RESUME,))
    assert bench.drive()["mode"] == Mode.POLICY
    assert bench.drive(label=True)["mode"] == Mode.EXPERT
    assert bench.drive()["mode"] == Mode.HOLD


def test_hold_prevails_over_a_press_of_the_deadman_in_the_same_tick() -> None:
    bench = Bench(auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM,))
    bench.tick(bench.row(), requests=(Event.RESUME,))
    row = bench.row()
    bench.tick(row, ExpertIntent(takeover=True), (Event.HOLD,))
    assert row["mode"] == Mode.HOLD
    assert bench.drive(takeover=True)["mode"] == Mode.HOLD
    bench.drive()
    assert bench.drive(takeover=True)["mode"] == Mode.EXPERT


def test_correction_that_goes_on_into_an_episode_is_its_first() -> None:
    bench = Bench()
    for _ in range(3):
        bench.drive()
        assert bench.drive(takeover=True)["mode"] == Mode.EXPERT
    bench.gate.start_episode(0)
    assert bench.drive(takeover=True)["intervention"] == 1
    bench.drive()
    assert bench.drive(takeover=True)["intervention"] == 2


def test_after_the_drivers_timeout_the_limit_starts_from_standstill() -> None:
    bench = Bench()
    bench.drive(policy=[LIMIT, 0, 0])
    bench.drive(policy=[LIMIT, 0, 0])
    bench.now_ns += round(PEG.timing.driver_timeout_s * 1e9)
    assert bench.drive(policy=[LIMIT, 0, 0])["executed_action"][0] == pytest.approx(STEP)


def test_takeovers_are_counted_and_carry_their_reason() -> None:
    bench = Bench()
    rows = [bench.drive(takeover=t, resume=not t, label=t, reason=8) for t in (False, True, True, False, True)]
    assert [int(r["intervention"]) for r in rows] == [0, 1, 1, 0, 2]
    assert [int(r["intervention_reason"]) for r in rows] == [0, 8, 8, 0, 8]
    assert [int(r["label_source"]) for r in rows] == [0, 1, 1, 0, 1]


def test_label_needs_a_fresh_expert() -> None:
    bench = Bench(BehaviourCloning())
    assert bench.drive(label=True)["label_source"] == Label.EXPERT
    assert bench.drive(expert=np.nan, label=True)["label_source"] == Label.NONE


def test_dagger_labels_what_the_policy_visits() -> None:
    row = Bench(Dagger(beta=0.0)).drive(policy=[0.1, 0, 0], expert=[-0.1, 0, 0], label=True)
    assert (row["mode"], row["label_source"]) == (Mode.POLICY, Label.EXPERT)
    assert row["executed_action"][0] == 0.1


def test_beta_is_the_share_of_ticks_that_the_expert_drives() -> None:
    bench = Bench(Dagger(beta=0.3))
    bench.gate.start_episode(5)
    driven = np.mean([bench.drive(label=True)["mode"] == Mode.EXPERT for _ in range(2000)])
    assert driven == pytest.approx(0.3, abs=0.04)


def test_position_hold_starts_from_the_measured_position_and_never_from_zero() -> None:
    bench = Bench(contract=position_contract(), auto_arm=False)
    row = bench.row()
    index = bench.layout.streams.index("joint_position")
    bench.layout.stream(row, index)[:] = [0.5, -1.0, 1.5, -0.5, 0.2, 0.1]
    bench.tick(row)
    assert row["mode"] == Mode.LOCKED
    assert row["executed_action"].tolist() == [0.5, -1.0, 1.5, -0.5, 0.2, 0.1]


def test_position_measured_outside_the_bounds_sends_nothing() -> None:
    bench = Bench(contract=position_contract(), auto_arm=False)
    row = bench.row()
    bench.layout.stream(row, bench.layout.streams.index("joint_position"))[:] = 3.2
    assert bench.tick(row) & Reason.START_OUT_OF_BOUNDS
    assert np.isnan(row["executed_action"]).all()


def test_position_measured_long_ago_is_not_held() -> None:
    bench = Bench(contract=position_contract(), auto_arm=False)
    row = bench.row()
    row["receive_ns"] = row["stamp_ns"] = 1
    bench.now_ns += 10**12
    row["time_ns"] = row["monotonic_ns"] = bench.now_ns
    bench.tick(row)
    assert np.isnan(row["executed_action"]).all()
    assert np.isnan(Gate(position_contract(), HumanGated(), auto_arm=False).final_stop()).all()


def test_position_that_was_never_measured_sends_nothing() -> None:
    bench = Bench(contract=position_contract())
    row = bench.layout.new(1)[0]
    row["time_ns"] = row["monotonic_ns"] = bench.now_ns
    bench.tick(row)
    assert np.isnan(row["executed_action"]).all()


def test_effort_at_rest_is_left_to_the_driver() -> None:
    content = PEG.model_dump(mode="json", by_alias=True)
    content["action"] |= {"interface": "effort", "stop": "delegate"}
    bench = Bench(contract=Contract.model_validate(content), auto_arm=False)
    row = bench.row()
    bench.tick(row)
    assert np.isnan(row["executed_action"]).all()


def test_expert_that_is_not_heard_holds_the_policy_where_one_is_needed() -> None:
    """Nobody could take over."""
    for needed, mode in ((True, Mode.HOLD), (False, Mode.POLICY)):
        bench = Bench(needs_expert=needed)
        bench.drive(policy=[0.1, 0, 0])
        row = bench.row(policy=[0.1, 0, 0])
        row["expert_receive_ns"] = bench.now_ns - MAX_NS - 1
        assert bench.tick(row) & Reason.EXPERT_STALE
        assert row["mode"] == mode


def test_deadman_held_through_a_fault_takes_a_new_press() -> None:
    bench = Bench(auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM,))
    assert bench.drive(expert=[0.1, 0, 0], takeover=True)["mode"] == Mode.EXPERT
    assert bench.drive(expert=[np.nan, 0, 0], takeover=True)["mode"] == Mode.HOLD
    for _ in range(5):
        assert bench.drive(expert=[0.1, 0, 0], takeover=True)["mode"] == Mode.HOLD
    bench.drive(takeover=False)
    assert bench.drive(expert=[0.1, 0, 0], takeover=True)["mode"] == Mode.EXPERT


def test_deadman_held_while_arming_does_not_drive() -> None:
    bench = Bench(auto_arm=False)
    bench.drive(takeover=True)
    bench.tick(bench.row(), ExpertIntent(takeover=True), (Event.ARM,))
    assert bench.drive(expert=[0.1, 0, 0], takeover=True)["mode"] == Mode.HOLD


def test_estop_is_not_reset_while_its_cause_persists() -> None:
    bench = Bench()
    bench.drive()
    for pressed, mode in ((True, Mode.ESTOP), (False, Mode.HOLD)):
        row = bench.row()
        row["reasons"] = int(Reason.ESTOP_PRESSED) * pressed
        bench.tick(row, requests=(Event.RESET_ESTOP,))
        assert row["mode"] == mode


@pytest.mark.parametrize("cause", [Reason.ESTOP_PRESSED, Reason.SECOND_WRITER])
def test_emergency_prevails_over_every_wish(cause: Reason) -> None:
    bench = Bench()
    bench.drive(takeover=True)
    row = bench.row(expert=[0.1, 0, 0])
    row["reasons"] = int(cause)
    bench.tick(row, ExpertIntent(takeover=True, resume=True), tuple(Event)[:5])
    assert row["mode"] == Mode.ESTOP


def test_most_restrictive_of_several_requests_prevails() -> None:
    bench = Bench(auto_arm=False)
    row = bench.row()
    bench.tick(row, requests=(Event.HOLD, Event.RESUME, Event.ARM))
    assert row["mode"] == Mode.HOLD
    bench.drive()
    row = bench.row()
    bench.tick(row, requests=(Event.ESTOP, Event.RESET_ESTOP))
    assert row["mode"] == Mode.ESTOP


def test_fault_of_the_recorder_holds_whoever_drives() -> None:
    for takeover in (False, True):
        bench = Bench(auto_arm=False)
        bench.tick(bench.row(), requests=(Event.ARM, Event.RESUME))
        bench.drive(takeover=takeover)
        row = bench.row()
        row["reasons"] = int(Reason.RECORDER_STALE)
        bench.tick(row, ExpertIntent(takeover=takeover))
        assert row["mode"] == Mode.HOLD


def test_only_a_new_takeover_drives_outside_the_workspace() -> None:
    contract = changed(workspace=[{"stream": "tool_position", "lower": [0, -1, -1], "upper": [1, 1, 1]}])
    tool = list(contract.streams).index("tool_position")

    def drive(bench: Bench, x: float, **intent: Any) -> Mode:
        row = bench.row()
        bench.layout.stream(row, tool)[0] = x
        bench.tick(row, ExpertIntent(**intent))
        return Mode(row["mode"])

    bench = Bench(contract=contract, auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM, Event.RESUME))
    assert drive(bench, 1.0) is Mode.POLICY
    assert drive(bench, 1.001) is Mode.HOLD
    assert drive(bench, 1.001, resume=True) is Mode.HOLD  # the policy does not drive there
    assert drive(bench, 1.001, takeover=True) is Mode.EXPERT
    assert drive(bench, 1.1, takeover=True) is Mode.EXPERT
    assert drive(bench, 0.9, takeover=True) is Mode.EXPERT
    assert drive(bench, 1.1, takeover=True) is Mode.HOLD  # crossing it stops the expert too
    assert drive(bench, 1.1, takeover=True) is Mode.HOLD


def test_hand_over_is_eased_from_the_last_command_and_is_no_label() -> None:
    bench = Bench(contract=EASED)
    for _ in range(3):
        row = bench.drive(policy=[LIMIT, 0, 0])
    assert row["executed_action"][0] == LIMIT
    rows = [bench.drive(expert=[-LIMIT, 0, 0], takeover=True, label=True) for _ in range(6)]
    steps = np.diff([LIMIT, *(r["executed_action"][0] for r in rows)])
    assert steps == pytest.approx([-STEP / 2] * 4 + [-LIMIT * 2 + STEP * 2, 0])
    assert [int(r["label_source"]) for r in rows] == [-1] * 4 + [1, 1]
    assert [bool(r["reasons"] & np.uint64(Reason.HANDOVER)) for r in rows] == [True] * 4 + [False] * 2
    back = bench.drive(policy=[LIMIT, 0, 0], resume=True)
    assert back["executed_action"][0] == pytest.approx(-LIMIT + STEP / 2)
    assert back["label_source"] == Label.NONE


def test_hand_over_ends_when_the_request_passes_or_its_time_is_over() -> None:
    bench = Bench(contract=EASED)
    bench.drive(policy=[0.05, 0, 0])
    assert bench.drive(expert=[0.05, 0, 0], takeover=True, label=True)["label_source"] == Label.EXPERT
    assert bench.drive(expert=[LIMIT, 0, 0], takeover=True)["executed_action"][0] == LIMIT  # no longer eased
    contract = changed(handover={"limit_scale": 0.01, "longest_s": 0.1})
    bench = Bench(contract=contract)
    bench.drive()
    rows = [bench.drive(expert=[LIMIT, 0, 0], takeover=True) for _ in range(5)]
    assert [bool(r["reasons"] & np.uint64(Reason.HANDOVER)) for r in rows] == [True, True, True, False, False]


def test_first_driver_after_a_lock_takes_over_from_nobody() -> None:
    bench = Bench(contract=EASED)
    assert bench.drive(policy=[STEP, 0, 0])["executed_action"][0] == pytest.approx(STEP)
    bench.drive(takeover=True)
    row = bench.row(policy=[STEP, 0, 0])
    bench.tick(row, requests=(Event.LOCK,))
    assert row["mode"] == Mode.POLICY
    assert row["executed_action"][0] == pytest.approx(STEP)


def test_arming_starts_from_where_the_robot_was_moved_to() -> None:
    bench = Bench(contract=position_contract(), auto_arm=False)
    joints = bench.layout.streams.index("joint_position")

    def tick(angle: float, *requests: Event) -> Any:
        row = bench.row(policy=angle, expert=angle)
        bench.layout.stream(row, joints)[:] = angle
        bench.tick(row, requests=requests)
        return row["executed_action"].tolist()

    assert tick(0.5) == [0.5] * 6
    assert tick(0.6) == [0.5] * 6  # locked: what was sent is kept
    assert tick(0.6, Event.ARM) == [0.6] * 6


def test_position_that_is_blocked_gives_way() -> None:
    """It would push on with all its force otherwise."""
    bench = Bench(contract=position_contract(tracking_limit=0.1), auto_arm=False)
    joints = bench.layout.streams.index("joint_position")

    def tick(policy: float, measured: float, *requests: Event) -> Any:
        row = bench.row(policy=policy, expert=policy)
        bench.layout.stream(row, joints)[:] = measured
        bench.tick(row, requests=requests)
        return row

    tick(0.0, 0.0, Event.ARM, Event.RESUME)
    angle = 0.0
    for _ in range(10):
        row = tick(angle := angle + 0.02, 0.0)
        if row["mode"] == Mode.HOLD:
            break
    assert Reason(int(row["reasons"])) & Reason.TRACKING
    assert 0.1 < row["executed_action"][0] < 0.15
    for _ in range(10):
        row = tick(0.2, 0.0)
    assert row["executed_action"][0] <= 0.1
    assert row["mode"] == Mode.HOLD


def test_velocity_starts_from_what_is_measured() -> None:
    measured = changed(measured="tool_velocity")
    content = measured.model_dump(mode="json", by_alias=True)
    content["streams"]["tool_velocity"] = content["streams"]["tool_position"] | {"unit": "m/s", "topic": "tool_twist"}
    bench = Bench(contract=Contract.model_validate(content))
    row = bench.row(policy=[0.24, 0, 0])
    bench.layout.stream(row, bench.layout.streams.index("tool_velocity"))[:] = [0.1, 0, 0]
    bench.tick(row)
    assert row["executed_action"][0] == 0.24
    row = bench.row(policy=[0.24, 0, 0])
    bench.layout.stream(row, bench.layout.streams.index("tool_velocity"))[:] = [0.3, 0, 0]
    bench.tick(row, requests=(Event.LOCK,))
    assert row["executed_action"][0] == 0.24  # measured a little faster than allowed
    row = bench.row()
    row["receive_ns"][0] = -1
    row["requests"] = Event.LOCK.bit
    bench.gate.decide(row)
    assert row["executed_action"].tolist() == [0.0, 0.0, 0.0]  # blind: from standstill


def test_weights_that_change_while_they_drive_are_held() -> None:
    bench = Bench()
    for sha256, mode in ((b"a", Mode.POLICY), (b"a", Mode.POLICY), (b"b", Mode.HOLD), (b"b", Mode.HOLD)):
        row = bench.row()
        row["policy_sha256"] = sha256 * 64
        bench.tick(row)
        assert row["mode"] == mode
    row = bench.row()
    row["policy_sha256"] = b"b" * 64
    bench.tick(row, ExpertIntent(resume=True))
    assert row["mode"] == Mode.POLICY


def test_command_too_soon_after_the_last_repeats_it_and_its_time_is_not_lost() -> None:
    bench = Bench()
    bench.drive(policy=[0.0, 0, 0])
    bench.now_ns -= PERIOD_NS
    for _ in range(20):
        bench.now_ns += PERIOD_NS // 20
        row = bench.row(policy=[LIMIT, 0, 0])
        bench.gate.decide(row)
    assert row["executed_action"][0] <= STEP + 1e-12
    assert row["executed_action"][0] > 0.8 * STEP


@pytest.mark.parametrize(
    ("contract", "at_rest"),
    [
        (PEG, [False, False, True]),
        (position_contract(), [True, True, True]),
    ],
)
def test_gate_says_when_it_has_come_to_rest(contract: Contract, at_rest: list[bool]) -> None:
    bench = Bench(contract=contract)
    bench.drive(policy=0.1)
    bench.drive(policy=0.24 if contract is PEG else 0.1)
    seen = [bench.gate.at_rest]
    for _ in range(2):
        bench.tick(bench.row(), requests=(Event.HOLD,))
        seen.append(bench.gate.at_rest)
    assert seen == at_rest


def test_position_comes_to_rest_within_its_acceleration() -> None:
    bench = Bench(contract=position_contract(acceleration_limit=4.0))
    joints = bench.layout.streams.index("joint_position")
    sent = [0.0]
    for i in range(12):
        row = bench.row(policy=0.04 * i * (i < 6) + 0.2 * (i >= 6))
        bench.layout.stream(row, joints)[:] = sent[-1]
        bench.tick(row, requests=() if i < 6 else (Event.HOLD,))
        sent.append(row["executed_action"][0])
    speeds = np.diff(sent) / 0.05
    assert not bench.gate.at_rest or speeds[-1] == 0.0
    assert np.abs(np.diff(speeds)).max() <= 4.0 * 0.05 + 1e-9
    assert speeds[5] > 0.5
    assert speeds[-1] == 0.0
    assert sent == sorted(sent)  # never back


def test_effort_is_always_at_rest_for_the_gate() -> None:
    content = PEG.model_dump(mode="json", by_alias=True)
    content["action"] |= {"interface": "effort", "stop": "delegate"}
    for d in content["action"]["dimensions"]:
        d |= {"rate_limit": 4.0}
    bench = Bench(contract=Contract.model_validate(content))
    assert bench.drive(policy=[0.1, 0, 0])["executed_action"][0] == pytest.approx(0.1)
    assert bench.gate.at_rest
    assert np.isnan(bench.gate.final_stop()).all()


def test_what_is_not_finite_never_goes_out_even_if_a_limit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.drive()

    def broken(action: Any, now_ns: int, *, stop: bool, scale: float) -> int:
        action[0] = np.nan
        return 0

    monkeypatch.setattr(bench.gate._limiter, "limit", broken)
    row = bench.drive(policy=[0.1, 0, 0])
    assert row["reasons"] == Reason.OUTPUT_NOT_FINITE
    assert np.isnan(row["executed_action"]).all()


def test_reasons_are_said_in_names_and_in_sentences() -> None:
    reasons = Reason.POLICY_STALE | Reason.HELD
    assert reasons.words() == "POLICY_STALE|HELD"
    assert reasons.sentences().endswith("; armed, but nobody drives")
    assert Reason(0).words() == Reason(0).sentences() == ""


def joined(bench: Bench, row: Any) -> Bench:
    """Another bench, whose gate goes on from the row."""
    other = Bench(contract=bench.layout.contract, auto_arm=False)
    other.now_ns = bench.now_ns
    other.gate.go_on_from(row)
    return other


@pytest.mark.parametrize(("auto_arm", "mode"), [(True, Mode.POLICY), (False, Mode.HOLD)])
def test_robot_that_was_held_when_the_record_began_goes_on_where_nobody_arms_it(auto_arm: bool, mode: Mode) -> None:
    bench = Bench(auto_arm=auto_arm)
    row = bench.row()
    row["mode"], row["executed_action"] = Mode.HOLD, 0.0
    bench.gate.go_on_from(row)
    bench.now_ns += PERIOD_NS
    assert bench.drive(resume=True)["mode"] == mode


@pytest.mark.parametrize("contract", [PEG, position_contract()], ids=["velocity", "position"])
@pytest.mark.parametrize("mode", [Mode.LOCKED, Mode.HOLD, Mode.POLICY, Mode.EXPERT, Mode.ESTOP])
def test_gate_goes_on_from_a_recorded_row(contract: Contract, mode: Mode) -> None:
    """The next rows are those that the gate that made the row would have made."""
    bench = Bench(contract=contract, auto_arm=False)
    requests: dict[Mode, tuple[Event, ...]] = {
        Mode.LOCKED: (),
        Mode.HOLD: (Event.ARM,),
        Mode.POLICY: (Event.ARM, Event.RESUME),
        Mode.EXPERT: (Event.ARM,),
        Mode.ESTOP: (Event.ESTOP,),
    }
    intent = ExpertIntent(takeover=mode is Mode.EXPERT)
    bench.tick(bench.row(0.12, 0.12), requests=requests[mode])
    row = bench.row(0.12, 0.12)
    row["policy_sha256"] = b"a" * 64
    bench.tick(row, intent)
    assert row["mode"] == mode
    other = joined(bench, row)
    assert other.gate.mode is mode
    for sha256, wish in ((b"b", intent), (b"b", ExpertIntent(resume=True)), (b"b", ExpertIntent(takeover=True))):
        rows = []
        for each in (bench, other):
            row = each.row(0.14, 0.13)
            row["policy_sha256"] = sha256 * 64
            each.tick(row, wish)
            rows.append(row)
        assert rows[0].tobytes() == rows[1].tobytes()


def test_gate_that_goes_on_outside_the_workspace_knows_it() -> None:
    contract = changed(workspace=[{"stream": "tool_position", "lower": [0.5, -1, -1], "upper": [1, 1, 1]}])
    bench = Bench(contract=contract, auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM,))
    row = bench.row()
    bench.tick(row, ExpertIntent(takeover=True))
    assert row["mode"] == Mode.EXPERT
    other = joined(bench, row)
    row = other.row()
    other.tick(row, ExpertIntent(takeover=True))
    assert row["mode"] == Mode.EXPERT  # no crossing
    assert row["intervention"] == 1


def test_interventions_of_an_episode_count_from_one() -> None:
    bench = Bench()
    for _ in range(2):
        bench.gate.start_episode(3)
        assert bench.drive(takeover=True)["intervention"] == 1
        bench.drive(resume=True)


def test_last_command_of_a_position_is_where_it_was_sent() -> None:
    bench = Bench(contract=position_contract(tracking_limit=0.02))
    bench.drive(policy=0.1)
    row = bench.row(policy=0.1)
    bench.layout.stream(row, bench.layout.streams.index("joint_position"))[:] = 0.5
    bench.tick(row)
    assert bench.gate.final_stop().tolist() == bench.gate._limiter.last.tolist()
    assert Bench().gate.final_stop().tolist() == [0.0] * 3


def test_reset_that_is_refused_leads_nowhere() -> None:
    bench = Bench(auto_arm=False)
    row = bench.row()
    row["reasons"] = int(Reason.ESTOP_PRESSED)
    bench.tick(row)
    row = bench.row()
    row["reasons"] = int(Reason.ESTOP_PRESSED)
    bench.tick(row, requests=(Event.RESET_ESTOP, Event.RESUME))
    assert row["mode"] == Mode.ESTOP
    row = bench.row()
    bench.tick(row, requests=(Event.RESET_ESTOP, Event.RESUME))
    assert row["mode"] == Mode.POLICY


@pytest.mark.parametrize(("held", "mode"), [(True, Mode.HOLD), (False, Mode.EXPERT)])
def test_gate_that_goes_on_from_a_hold_knows_whether_the_deadman_was_pressed(held: bool, mode: Mode) -> None:
    bench = Bench(auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM,))
    bench.drive(takeover=True)
    row = bench.row(expert=np.nan)
    bench.tick(row, ExpertIntent(takeover=held))
    assert row["mode"] == Mode.HOLD
    assert joined(bench, row).drive(takeover=True)["mode"] == mode


def test_gate_that_goes_on_inside_the_workspace_sees_the_expert_leave_it() -> None:
    contract = changed(workspace=[{"stream": "tool_position", "lower": [0, -1, -1], "upper": [1, 1, 1]}])
    bench = Bench(contract=contract, auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM,))
    row = bench.row()
    bench.tick(row, ExpertIntent(takeover=True))
    other = joined(bench, row)
    row = other.row()
    other.layout.stream(row, other.layout.streams.index("tool_position"))[0] = 2.0
    other.tick(row, ExpertIntent(takeover=True))
    assert row["mode"] == Mode.HOLD


@pytest.mark.parametrize("driven", [True, False])
def test_gate_that_goes_on_eases_who_takes_over_from_somebody(driven: bool) -> None:
    bench = Bench(contract=EASED, auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM, Event.RESUME) if driven else (Event.ARM,))
    row = bench.row()
    bench.tick(row)
    assert row["mode"] == (Mode.POLICY if driven else Mode.HOLD)
    row = joined(bench, row).drive(expert=[LIMIT, 0, 0], takeover=True)
    assert row["executed_action"][0] == pytest.approx(STEP / 2 if driven else STEP)


def test_what_the_expert_does_not_mean_as_a_label_is_none() -> None:
    bench = Bench()
    assert bench.drive(takeover=True, label=False)["label_source"] == Label.NONE
    assert bench.drive(takeover=True, label=True)["label_source"] == Label.EXPERT


def test_new_episode_begins_with_a_takeover_of_its_own() -> None:
    bench = Bench(BehaviourCloning())
    for _ in range(2):
        bench.gate.start_episode(0)
        row = bench.row()
        bench.tick(row, ExpertIntent(unattended=True), (Event.LOCK,))
        assert (row["mode"], row["intervention"]) == (Mode.EXPERT, 1)
        bench.drive(unattended=True)


def test_stop_is_not_slowed_down_by_a_jerk_limit() -> None:
    content = PEG.model_dump(mode="json", by_alias=True)
    for dimension in content["action"]["dimensions"]:
        dimension["jerk_limit"] = 1.0
    bench = Bench(contract=Contract.model_validate(content))
    for _ in range(30):
        row = bench.drive(policy=[LIMIT, 0, 0])
    speed = row["executed_action"][0]
    assert speed > 0.1
    row = bench.row()
    assert bench.tick(row, requests=(Event.HOLD,)) & Reason.JERK_EXCEEDED
    assert row["executed_action"][0] == pytest.approx(max(0.0, speed - STEP))


def test_expert_that_begins_outside_the_workspace_has_crossed_its_edge() -> None:
    contract = changed(workspace=[{"stream": "tool_position", "lower": [0.5, -1, -1], "upper": [1, 1, 1]}])
    bench = Bench(BehaviourCloning(), contract=contract)
    assert bench.drive(unattended=True)["mode"] == Mode.HOLD
    assert bench.drive(unattended=True)["mode"] == Mode.EXPERT


@pytest.mark.parametrize("stop", [Event.ESTOP, Event.LOCK])
def test_robot_that_was_moved_while_stopped_is_not_pulled_back(stop: Event) -> None:
    """What is sent gives way to where it is; and a reset starts from there."""
    bench = Bench(contract=position_contract(tracking_limit=0.1), auto_arm=False)
    joints = bench.layout.streams.index("joint_position")

    def tick(angle: float, *requests: Event) -> Any:
        row = bench.row(policy=angle, expert=angle)
        bench.layout.stream(row, joints)[:] = angle
        bench.tick(row, requests=requests)
        return row

    tick(0.0, Event.ARM)
    tick(0.0, stop)
    for i in range(40):
        row = tick(min(0.5, 0.02 * i))
    assert row["mode"] == (Mode.ESTOP if stop is Event.ESTOP else Mode.LOCKED)
    assert abs(row["executed_action"][0] - 0.5) <= 0.1 + 1e-9
    row = tick(0.5, Event.RESET_ESTOP, Event.ARM)
    assert row["mode"] == Mode.HOLD
    assert row["executed_action"].tolist() == [0.5] * 6
