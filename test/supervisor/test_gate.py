from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import by_joint_position, contract_path
from dagger_ros.contract import Contract, ExpertIntent, Label, Mode, RowLayout, load_contract
from dagger_ros.supervisor import BehaviourCloning, Dagger, Event, Gate, HumanGated, Reason, Rule

SHIPPED = load_contract(contract_path("peg"))


def changed(**action: Any) -> Contract:
    """The peg's contract with another action part; hand-overs are as fast as everything else unless they are tested."""
    content = SHIPPED.model_dump(mode="json", by_alias=True)
    content["action"] |= {"handover": {"limit_scale": 1.0, "longest_s": 0.3}} | action
    return Contract.model_validate(content)


PEG = changed()
LAYOUT = RowLayout(PEG)
PERIOD_NS = PEG.timing.period_ns
LIMIT = 0.24
STEP = 4.0 * 0.05  # the contract's rate limit over one period


def position_contract(**limits: float) -> Contract:
    """The peg's arm commanded by joint positions."""
    content = PEG.model_dump(mode="json", by_alias=True)
    by_joint_position(content, **limits)
    return Contract.model_validate(content)


class Bench:
    """A gate and the clock around it."""

    def __init__(
        self, rule: Rule | None = None, *, auto_arm: bool = True, contract: Contract = PEG, **options: Any
    ) -> None:
        self.layout = RowLayout(contract)
        self.gate = Gate(contract, rule or HumanGated(), auto_arm=auto_arm, **options)
        self.now_ns = 10 * PERIOD_NS

    def row(self, policy: Any = 0.0, expert: Any = 0.0) -> Any:
        """A row in which everything is fresh."""
        row = self.layout.new(1)[0]
        row["time_ns"] = row["monotonic_ns"] = self.now_ns
        for name in ("stamp_ns", "receive_ns"):
            row[name] = self.now_ns
        row["observation"], row["privileged"] = 0.1, 0.1
        for i, stream in enumerate(self.layout.streams):
            if stream == "tool_position":
                self.layout.stream(row, i)[:] = [0.45, 0.0, 0.2]
        row["doubt"] = 0.0
        for source, action in (("policy", policy), ("expert", expert)):
            row[f"{source}_action"] = action
            row[f"{source}_stamp_ns"] = row[f"{source}_receive_ns"] = self.now_ns
        return row

    def tick(self, row: Any, intent: ExpertIntent | None = None, requests: tuple[Event, ...] = ()) -> Reason:
        intent = intent or ExpertIntent()
        row["expert_intent"], row["expert_reason"] = intent.bits(), intent.reason
        row["requests"] = sum(event.bit for event in requests)
        self.gate.decide(row)
        self.now_ns += PERIOD_NS
        return Reason(int(row["reasons"]))

    def drive(self, policy: Any = 0.0, expert: Any = 0.0, **intent: Any) -> Any:
        row = self.row(policy, expert)
        self.tick(row, ExpertIntent(**intent))
        return row


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


def test_fault_of_the_expert_does_not_stop_the_policy() -> None:
    bench = Bench()
    row = bench.row(policy=[0.1, 0, 0], expert=np.nan)
    assert bench.tick(row) == Reason.EXPERT_NOT_FINITE
    assert row["mode"] == Mode.POLICY


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
    assert bench.drive(policy=[0.1, 0, 0], resume=True)["mode"] in (Mode.POLICY, Mode.EXPERT)


def test_arming_by_a_person_does_not_move_before_a_resume() -> None:
    bench = Bench(BehaviourCloning(), auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM,))
    assert bench.drive(expert=[0.1, 0, 0])["mode"] == Mode.HOLD
    row = bench.row(expert=[0.1, 0, 0])
    bench.tick(row, requests=(Event.RESUME,))
    assert row["mode"] == Mode.EXPERT


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


ANY = st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf, LIMIT, -LIMIT, 0.0, 1e308])
TICK = st.tuples(
    st.tuples(ANY, ANY, ANY),
    st.tuples(ANY, ANY, ANY),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from([0, 1, 1, 1, 1, 2, 40]),
    st.sampled_from([None, None, None, *Event]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(TICK, min_size=1, max_size=30))
def test_whatever_comes_in_what_goes_out_is_finite_bounded_and_within_the_rate(ticks: list[Any]) -> None:
    bench = Bench()
    last = np.zeros(3)
    for policy, expert, takeover, resume, missing, periods, request in ticks:
        bench.now_ns += (periods - 1) * PERIOD_NS
        row = bench.row(policy, expert)
        if missing == 0:
            row["receive_ns"][0] = -1
        bench.tick(row, ExpertIntent(True, takeover, resume), () if request is None else (request,))
        out = row["executed_action"]
        assert np.isfinite(out).all()
        assert (np.abs(out) <= LIMIT).all()
        start = np.zeros(3) if periods == 40 else last  # the driver has stopped by itself meanwhile
        assert (np.abs(out - start) <= 1.5 * STEP + 1e-12).all()
        assert missing != 0 or row["mode"] in (Mode.LOCKED, Mode.ESTOP)
        last = out.copy()
