"""Every fault that can reach the gate through a message, in one process: what it answers, and how fast it stops.

`docs/safety.md` names these tests by their ids. The same faults in a graph of several processes: test/nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from conftest import contract_path
from dagger_ros.contract import Mode, load_contract
from dagger_ros.supervisor import Event, Reason
from fault_loop import FaultLoop

pytest.importorskip("mujoco")
from dagger_ros.sim import Fault

PEG = load_contract(contract_path("peg"))
PERIOD_S = PEG.timing.period_ns * 1e-9
OLDEST_S = max(s.max_age_s for s in PEG.streams.values())
POLICY, EXPERT, HOLD, LOCKED, ESTOP = Mode.POLICY, Mode.EXPERT, Mode.HOLD, Mode.LOCKED, Mode.ESTOP
OBSERVED, PROPOSED, TAUGHT = "joint_states", "policy/action", "expert/action"


@dataclass(frozen=True)
class Case:
    """A fault while somebody drives, and the answer.

    Args:
        driver: Who drives before.
        kind: Of the fault.
        topic: Whose messages.
        mode: That the gate goes to.
        reason: That must be among those given.
        within_s: From the fault to that mode, beside one tick.
        value: Of the fault.
    """

    driver: Mode
    kind: str
    topic: str
    mode: Mode
    reason: Reason
    within_s: float = 0.0
    value: float = 1.0


R = Reason
CASES = {
    "stale_observation": Case(POLICY, "drop", OBSERVED, LOCKED, R.OBSERVATION_STALE, OLDEST_S),
    "stale_observation_expert": Case(EXPERT, "drop", OBSERVED, LOCKED, R.OBSERVATION_STALE, OLDEST_S),
    "frozen_observation": Case(POLICY, "freeze", OBSERVED, LOCKED, R.OBSERVATION_STALE, OLDEST_S),
    "delayed_observation": Case(POLICY, "delay", OBSERVED, LOCKED, R.OBSERVATION_STALE, OLDEST_S, value=0.4),
    "stale_action": Case(POLICY, "drop", PROPOSED, HOLD, R.POLICY_STALE, 0.1),
    "delayed_action": Case(POLICY, "delay", PROPOSED, HOLD, R.POLICY_STALE, 0.1, value=1.0),
    "slow_policy": Case(POLICY, "delay", PROPOSED, HOLD, R.POLICY_LATE, 0.5, value=0.05),
    "future_observation": Case(POLICY, "shift_stamp", OBSERVED, LOCKED, R.OBSERVATION_FUTURE, value=0.1),
    "future_action": Case(POLICY, "shift_stamp", PROPOSED, HOLD, R.POLICY_FUTURE, value=0.1),
    "future_expert": Case(EXPERT, "shift_stamp", TAUGHT, HOLD, R.EXPERT_FUTURE, value=0.1),
    "old_stamp_on_arrival": Case(POLICY, "shift_stamp", PROPOSED, HOLD, R.POLICY_STALE, value=-1.0),
    "observation_out_of_order": Case(POLICY, "swap", OBSERVED, LOCKED, R.OBSERVATION_SEQUENCE, 3.0),
    "action_out_of_order": Case(POLICY, "swap", PROPOSED, HOLD, R.POLICY_SEQUENCE, 3.0),
    "lost_actions": Case(POLICY, "lose", PROPOSED, HOLD, R.POLICY_SEQUENCE, 3.0, value=2.0),
    "duplicate_actions": Case(POLICY, "duplicate", PROPOSED, HOLD, R.POLICY_SEQUENCE, 1.0),
    "duplicate_expert": Case(EXPERT, "duplicate", TAUGHT, HOLD, R.EXPERT_SEQUENCE, 1.0),
    "nan_observation": Case(POLICY, "not_a_number", OBSERVED, LOCKED, R.OBSERVATION_NOT_FINITE),
    "inf_observation": Case(POLICY, "infinite", OBSERVED, LOCKED, R.OBSERVATION_NOT_FINITE),
    "nan_action": Case(POLICY, "not_a_number", PROPOSED, HOLD, R.POLICY_NOT_FINITE),
    "inf_action": Case(POLICY, "infinite", PROPOSED, HOLD, R.POLICY_NOT_FINITE),
    "nan_expert": Case(EXPERT, "not_a_number", TAUGHT, HOLD, R.EXPERT_NOT_FINITE),
    "short_observation": Case(POLICY, "shorten", OBSERVED, LOCKED, R.OBSERVATION_SIZE),
    "short_action": Case(POLICY, "shorten", PROPOSED, HOLD, R.POLICY_SIZE),
    "short_expert": Case(EXPERT, "shorten", TAUGHT, HOLD, R.EXPERT_SIZE),
    "renamed_joint": Case(POLICY, "rename", OBSERVED, LOCKED, R.OBSERVATION_SIZE),
    "millimetres": Case(POLICY, "scale", PROPOSED, HOLD, R.POLICY_JUMP, value=1000.0),
    "millimetres_expert": Case(EXPERT, "scale", TAUGHT, HOLD, R.EXPERT_JUMP, value=1000.0),
    "jump": Case(POLICY, "add", PROPOSED, HOLD, R.POLICY_JUMP, value=0.7),
    "other_contract": Case(POLICY, "contract", PROPOSED, HOLD, R.POLICY_CONTRACT),
    "other_contract_expert": Case(EXPERT, "contract", TAUGHT, HOLD, R.EXPERT_CONTRACT),
    "other_weights": Case(POLICY, "policy", PROPOSED, HOLD, R.POLICY_HASH),
    "clock_forward": Case(POLICY, "shift_stamp", "/clock", LOCKED, R.CLOCK_JUMP, value=5.0),
    "clock_back": Case(POLICY, "shift_stamp", "/clock", LOCKED, R.CLOCK_JUMP, value=-5.0),
    "out_of_the_workspace": Case(POLICY, "add", "tool_pose", HOLD, R.WORKSPACE, value=0.5),
    "out_of_the_workspace_expert": Case(EXPERT, "add", "tool_pose", HOLD, R.WORKSPACE, value=0.5),
    "joystick_unplugged": Case(EXPERT, "drop", TAUGHT, HOLD, R.EXPERT_STALE, 0.1),
    "joystick_unplugged_while_watching": Case(POLICY, "drop", TAUGHT, HOLD, R.EXPERT_STALE, 0.1),
    "joystick_frozen": Case(EXPERT, "freeze", TAUGHT, HOLD, R.EXPERT_STALE, 0.1),
    "deadman_let_go": Case(EXPERT, "takeover", TAUGHT, HOLD, R.HELD, value=0.0),
    "deadman_chatters": Case(POLICY, "flap", TAUGHT, HOLD, R.EXPERT_FLAPPING, 1.5),
    "estop_topic": Case(POLICY, "say", "estop", ESTOP, R.ESTOP_PRESSED),
    "estop_topic_expert": Case(EXPERT, "say", "estop", ESTOP, R.ESTOP_PRESSED),
    "second_writer": Case(POLICY, "say", "command", ESTOP, R.SECOND_WRITER),
}


def loop_with(case: Case) -> FaultLoop:
    fault = Fault.model_validate({"name": "fault", "kind": case.kind, "topic": case.topic, "value": case.value})
    loop = FaultLoop(PEG, [fault])
    loop.drive(case.driver)
    loop.injector.switch("fault", on=True, now_ns=loop.now_ns)
    return loop


@pytest.mark.parametrize("name", CASES)
def test_fault(name: str) -> None:
    """The mode and the reason, in time; then at rest within the deceleration limit; then nothing without a person."""
    case = CASES[name]
    loop, seen = loop_with(case), Reason(0)
    ticks = 1 + round(case.within_s / PERIOD_S)
    for _ in range(ticks + 1):
        row = loop.tick(takeover=case.driver is EXPERT)
        seen |= Reason(int(row["reasons"]))
        if row["mode"] == case.mode and seen & case.reason:
            break
    assert row["mode"] == case.mode, seen.words()
    assert seen & case.reason, seen.words()
    for _ in range(2):
        row = loop.tick(takeover=case.driver is EXPERT)
    assert (loop.sent[-1] == 0).all()
    assert np.abs(np.diff(loop.sent, axis=0)).max() <= 4.0 * PERIOD_S + 1e-9
    # The fault ends. A deadman that was pressed all the while is no wish.
    loop.injector.switch("fault", on=False, now_ns=loop.now_ns)
    loop.inbox.put_estop(False, loop.now_ns)
    for _ in range(40):
        row = loop.tick(takeover=case.driver is EXPERT and name != "deadman_let_go")
        assert row["mode"] not in (POLICY, EXPERT) or name == "deadman_let_go"
    loop.tick(Event.RESET_ESTOP)
    assert loop.tick()["mode"] in (HOLD, LOCKED)
    loop.tick(Event.ARM)
    loop.tick(Event.RESUME)
    assert loop.tick()["mode"] == POLICY


PASSING = {
    "reordered_joints": ("reorder", OBSERVED, 1.0),
    "saturated_action": ("scale", PROPOSED, 6.0),
    "one_lost_action_in_eight": ("lose", PROPOSED, 8.0),
    "one_lost_observation_in_three": ("lose", OBSERVED, 3.0),
    "late_observation": ("delay", OBSERVED, 0.1),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_is_no_danger_goes_on(name: str) -> None:
    kind, topic, value = PASSING[name]
    loop = loop_with(Case(POLICY, kind, topic, POLICY, Reason(0), value=value))
    for _ in range(60):
        loop.position[:] = [0.45, 0.0, 0.2]
        row = loop.tick()
        assert row["mode"] == POLICY, Reason(int(row["reasons"])).words()
    assert (np.abs(loop.sent) <= 0.24).all()
    if name == "saturated_action":
        assert row["reasons"] & np.uint64(Reason.CLAMPED_BOUND)
    if name == "late_observation":
        assert not row["reasons"]


def test_burst_of_actions_gives_one_command_a_tick() -> None:
    fault = {"name": "burst", "kind": "burst", "topic": PROPOSED, "value": 20.0}
    loop = FaultLoop(PEG, [Fault.model_validate(fault)])
    loop.drive(POLICY)
    count = len(loop.sent)
    loop.injector.switch("burst", on=True, now_ns=loop.now_ns)
    loop.policy_says[:] = [0.24, 0.24, 0.24]
    rows = [int(loop.tick()["mode"]) for _ in range(10)]
    assert rows == [POLICY] * 10
    assert len(loop.sent) == count + 10
    assert np.abs(np.diff(loop.sent, axis=0)).max() <= 4.0 * PERIOD_S + 1e-9


def test_nothing_received_is_locked_and_cannot_be_armed() -> None:
    for topic in PEG.topics[:3]:
        fault = Fault.model_validate({"name": "never", "kind": "drop", "topic": topic, "start_s": 0.0})
        loop = FaultLoop(PEG, [fault])
        for _ in range(10):
            row = loop.tick(Event.ARM, Event.RESUME)
            assert row["mode"] == LOCKED
            assert Reason(int(row["reasons"])) & Reason.OBSERVATION_NEVER
        assert (np.array(loop.sent) == 0).all()


@pytest.mark.parametrize("driver", [POLICY, EXPERT])
def test_nothing_received_from_the_driver_is_held(driver: Mode) -> None:
    topic = PROPOSED if driver is POLICY else TAUGHT
    loop = FaultLoop(PEG, [Fault.model_validate({"name": "never", "kind": "drop", "topic": topic, "start_s": 0.0})])
    loop.tick()
    loop.tick(Event.ARM)
    for _ in range(5):
        row = loop.tick(Event.RESUME, takeover=driver is EXPERT)
        assert row["mode"] == HOLD
        assert Reason(int(row["reasons"])) & (Reason.POLICY_NEVER if driver is POLICY else Reason.EXPERT_NEVER)


def test_deadman_that_is_stuck_from_the_start_does_not_drive() -> None:
    loop = FaultLoop(PEG)
    loop.tick(takeover=True)
    loop.tick(Event.ARM, takeover=True)
    for _ in range(10):
        assert loop.tick(takeover=True)["mode"] == HOLD


def test_partition_of_the_network_locks() -> None:
    """Everything is lost at once."""
    topics: list[Any] = [*PEG.topics, PROPOSED, TAUGHT]
    faults = [Fault.model_validate({"name": f"lost_{i}", "kind": "drop", "topic": t}) for i, t in enumerate(topics)]
    loop = FaultLoop(PEG, faults)
    loop.drive(POLICY)
    for fault in faults:
        loop.injector.switch(fault.name, on=True, now_ns=loop.now_ns)
    modes = [Mode(loop.tick()["mode"]) for _ in range(8)]
    assert modes[2] is HOLD
    assert modes[-1] is LOCKED
    assert (loop.sent[-1] == 0).all()


def test_policy_that_was_started_again_waits_for_a_person() -> None:
    loop = FaultLoop(PEG)
    loop.drive(POLICY)
    loop._sequence["policy"] = -1
    modes = [Mode(loop.tick()["mode"]) for _ in range(20)]
    assert modes[-1] is HOLD
    loop.tick(Event.RESUME)
    assert loop.tick()["mode"] == POLICY
