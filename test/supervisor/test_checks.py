"""Every check is proven able to trip, and not to trip just inside its limit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench import PEG, PERIOD_NS, Bench, changed, position_contract
from dagger_ros.contract import Contract, ExpertIntent, Intent, Mode, RowView
from dagger_ros.supervisor import ABOUT, INPUT_BITS, Event, Reason, Response, response_bits
from dagger_ros.supervisor.checks import CHECKS, TickView

AGE_NS, MAX_NS = 250_000_000, 100_000_000  # of the peg's streams, and of its proposals
FUTURE_NS = 10_000_000
START = 0.1  # the measured position too, in the bench's rows
BUDGET_NS = 20_000_000


Trip = Callable[[Bench, bool], Any]


def _set(field: str, value: Callable[[int, bool], Any], index: Any = ...) -> Trip:
    """A row with one field changed; `value` gets the time and whether to go beyond the limit."""

    def trip(bench: Bench, beyond: bool) -> Any:
        row = bench.row(START, START)
        if index is ...:
            row[field] = value(bench.now_ns, beyond)
        else:
            row[field][index] = value(bench.now_ns, beyond)
        return row

    return trip


def _late(bench: Bench, beyond: bool) -> Any:
    """Answers that come later than the budget, five in a row."""
    for _ in range(5):
        row = bench.row()
        row["receive_ns"] = bench.now_ns - BUDGET_NS - beyond
        if bench.tick(row) & Reason.POLICY_LATE:
            break
    row = bench.row()
    row["receive_ns"] = bench.now_ns - BUDGET_NS - beyond
    return row


def _flap(bench: Bench, beyond: bool) -> Any:
    """The deadman pressed six times within three ticks, or five times: a little drains in between."""
    for i in range(10 if beyond else 8):
        bench.tick(bench.row(), ExpertIntent(takeover=i % 2 == 0))
        bench.now_ns -= PERIOD_NS * 3 // 4
    return bench.row()


# Reason -> what to do to a fresh row so that it trips (True) or just does not (False); options of the bench.
SCENARIOS: dict[Reason, tuple[Trip, dict[str, Any]]] = {
    Reason.OBSERVATION_NEVER: (_set("receive_ns", lambda now, x: -1 if x else now, 0), {}),
    Reason.OBSERVATION_STALE: (_set("stamp_ns", lambda now, x: now - AGE_NS - x, 1), {}),
    Reason.OBSERVATION_FUTURE: (_set("stamp_ns", lambda now, x: now + FUTURE_NS + x, 2), {}),
    Reason.OBSERVATION_NOT_FINITE: (_set("observation", lambda now, x: np.inf if x else 1e300, 3), {}),
    Reason.CLOCK_JUMP: (_set("time_ns", lambda now, x: now + FUTURE_NS + 2 * PERIOD_NS + x), {}),
    Reason.POLICY_DOUBT: (_set("doubt", lambda now, x: np.nextafter(0.5, 1) if x else 0.5), {"doubt_limit": 0.5}),
    Reason.POLICY_HASH: (_set("policy_sha256", lambda now, x: b"b" if x else b"a"), {"policy_sha256": b"a"}),
    Reason.POLICY_LATE: (_late, {}),
    Reason.EXPERT_FLAPPING: (_flap, {}),
    Reason.WORKSPACE: (
        _set("observation", lambda now, x: 0.75 + x * 1e-9, 3),
        {"contract": PEG},
    ),
    Reason.TRACKING: (
        _set("observation", lambda now, x: -0.3 + 0.1 - x * 1e-9, 6),
        {"contract": position_contract(tracking_limit=0.3)},
    ),
}
for _source in ("policy", "expert"):
    _prefix = _source.upper()
    SCENARIOS |= {
        Reason[f"{_prefix}_NEVER"]: (_set(f"{_source}_receive_ns", lambda now, x: -1 if x else now), {}),
        Reason[f"{_prefix}_STALE"]: (_set(f"{_source}_receive_ns", lambda now, x: now - MAX_NS - x), {}),
        Reason[f"{_prefix}_FUTURE"]: (_set(f"{_source}_stamp_ns", lambda now, x: now + FUTURE_NS + x), {}),
        Reason[f"{_prefix}_NOT_FINITE"]: (_set(f"{_source}_action", lambda now, x: np.nan if x else 0.1, 2), {}),
        Reason[f"{_prefix}_JUMP"]: (_set(f"{_source}_action", lambda now, x: START - 0.6 - x * 1e-9, 1), {}),
    }


def reasons_of(reason: Reason, *, beyond: bool) -> tuple[Reason, Mode]:
    trip, options = SCENARIOS[reason]
    bench = Bench(**options)
    bench.drive(START, START)
    row = trip(bench, beyond)
    last_press = ExpertIntent(takeover=reason is Reason.EXPERT_FLAPPING)
    return bench.tick(row, last_press), Mode(row["mode"])


@pytest.mark.parametrize("reason", SCENARIOS, ids=lambda r: r.name)
def test_check_trips_beyond_its_limit_and_not_at_it(reason: Reason) -> None:
    assert reasons_of(reason, beyond=True)[0] & reason
    assert not reasons_of(reason, beyond=False)[0] & reason


@pytest.mark.parametrize("reason", SCENARIOS, ids=lambda r: r.name)
def test_tripped_check_has_the_response_of_the_table(reason: Reason) -> None:
    reasons, mode = reasons_of(reason, beyond=True)
    expected = {Response.LOCK: Mode.LOCKED, Response.HOLD_POLICY: Mode.HOLD, Response.HOLD: Mode.HOLD}
    # The policy drives: a fault of the expert's action is no reason to stop it; that there is none, or no channel, is.
    silent = Reason.EXPERT_NEVER | Reason.EXPERT_STALE | Reason.EXPERT_FUTURE | Reason.EXPERT_NOT_FINITE
    mode_for_expert = Mode.HOLD if reason & silent else Mode.POLICY
    assert mode is expected.get(ABOUT[reason].response, mode_for_expert), reasons.words()


def test_every_reason_is_raised_somewhere() -> None:
    """By a check here, by how messages came (test_inbox.py), or by what the gate did (test_gate.py, test_help.py)."""
    by_gate = Reason.NOT_ARMED | Reason.HELD | Reason.ESTOP | Reason.HELP_UNANSWERED
    by_limits = Reason(0)
    for reason, about in ABOUT.items():
        if about.response is Response.LIMIT:
            by_limits |= reason
    for reason in Reason:
        homes = [
            reason in SCENARIOS,
            bool(INPUT_BITS & reason),
            bool((by_gate | by_limits | Reason.JERK_EXCEEDED) & reason),
        ]
        assert sum(homes) == 1, reason.name
    assert len(CHECKS) == len(SCENARIOS)


def test_every_reason_is_explained() -> None:
    assert set(ABOUT) == set(Reason)
    assert len({about.words for about in ABOUT.values()}) == len(ABOUT)


def test_clock_that_goes_back_locks() -> None:
    for field in ("time_ns", "monotonic_ns"):
        bench = Bench(auto_arm=False)
        bench.tick(bench.row(), requests=(Event.ARM, Event.RESUME))
        assert bench.drive()["mode"] == Mode.POLICY
        row = bench.row()
        row[field] = bench.now_ns - PERIOD_NS - 1
        for name in ("stamp_ns", "receive_ns"):
            row[name] = row["time_ns" if name == "stamp_ns" else "monotonic_ns"]
        assert bench.tick(row) & Reason.CLOCK_JUMP
        assert row["mode"] == Mode.LOCKED
        assert bench.drive()["mode"] == Mode.LOCKED  # until a person arms


def test_clock_that_stands_is_no_jump() -> None:
    """A simulated clock that is slower than the wall."""
    bench = Bench()
    bench.drive()
    row = bench.row()
    row["time_ns"] = bench.now_ns - PERIOD_NS
    row["stamp_ns"] = row["policy_stamp_ns"] = row["expert_stamp_ns"] = row["time_ns"]
    assert not bench.tick(row)


def test_first_tick_after_a_lock_is_no_jump_of_the_clock() -> None:
    bench = Bench()
    bench.drive()
    bench.now_ns //= 2
    row = bench.row()
    assert not bench.tick(row, requests=(Event.LOCK,)) & Reason.CLOCK_JUMP


def test_one_late_answer_is_forgiven() -> None:
    bench = Bench()
    for late in (True, False, False, False, False) * 6:
        row = bench.row()
        row["receive_ns"] -= late * (BUDGET_NS + 1)
        assert not bench.tick(row) & Reason.POLICY_LATE


def test_policy_that_does_not_answer_at_all_is_late() -> None:
    contract = changed()
    bench = Bench(contract=Contract.model_validate(contract))
    bench.drive()
    seen = Reason(0)
    for _ in range(8):
        row = bench.row()
        row["policy_stamp_ns"] = 10 * PERIOD_NS  # it goes on about the first observation
        seen |= bench.tick(row)
    assert seen & Reason.POLICY_LATE


def test_answer_to_a_newer_observation_says_nothing_of_the_time() -> None:
    bench = Bench()
    for _ in range(10):
        row = bench.row()
        row["policy_stamp_ns"] = bench.now_ns + 1
        row["receive_ns"] -= BUDGET_NS * 2
        assert not bench.tick(row) & Reason.POLICY_LATE


@pytest.mark.parametrize("doubt", [np.nan, np.inf])
def test_doubt_that_is_no_number_is_doubt(doubt: float) -> None:
    bench = Bench()
    row = bench.row()
    row["doubt"] = doubt
    assert bench.tick(row) & Reason.POLICY_DOUBT


def test_nothing_is_asked_of_a_policy_that_is_not_there() -> None:
    bench = Bench(doubt_limit=0.1, policy_sha256=b"a" * 64)
    row = bench.row()
    row["policy_receive_ns"] = row["policy_stamp_ns"] = -1
    row["policy_action"] = row["doubt"] = np.nan
    assert bench.tick(row) == Reason.POLICY_NEVER | Reason.HELD


def test_deadman_pressed_as_fast_as_a_hand_can_is_no_flapping() -> None:
    bench = Bench()
    for i in range(100):
        pressed = i % 10 < 5  # twice a second
        assert not bench.tick(bench.row(), ExpertIntent(takeover=pressed)) & Reason.EXPERT_FLAPPING


def test_flapping_deadman_holds_until_it_is_quiet() -> None:
    bench = Bench(auto_arm=False)
    bench.tick(bench.row(), requests=(Event.ARM, Event.RESUME))
    modes = [bench.drive(takeover=bool(i % 2))["mode"] for i in range(40)]
    changes = np.count_nonzero(np.diff(modes[14:]))
    assert changes == 0, modes
    assert modes[-1] == Mode.HOLD


def test_episode_forgets_what_the_last_one_left() -> None:
    bench = Bench(auto_arm=False)
    for i in range(40):
        bench.drive(takeover=bool(i % 2))
    assert not bench.tick(bench.row(), requests=(Event.LOCK,)) & Reason.EXPERT_FLAPPING


def test_answer_that_comes_again_for_an_old_observation_is_not_late() -> None:
    """In lockstep the policy answers each tick, also one without a new observation."""
    bench = Bench()
    bench.drive()
    stamp_ns = bench.now_ns
    for _ in range(4):
        row = bench.row()
        row["stamp_ns"] = row["receive_ns"] = row["policy_stamp_ns"] = stamp_ns
        assert not bench.tick(row) & Reason.POLICY_LATE
    assert bench.gate._view.late.level == 0


def test_policy_that_was_never_heard_is_not_also_late() -> None:
    bench = Bench()
    for _ in range(10):
        row = bench.row()
        row["policy_receive_ns"] = row["policy_stamp_ns"] = -1
        assert not bench.tick(row) & Reason.POLICY_LATE


@pytest.mark.parametrize(("waited_ns", "late"), [(BUDGET_NS, False), (BUDGET_NS + 1, True)])
def test_answer_that_is_still_to_come_has_the_budget(waited_ns: int, late: bool) -> None:
    """Every tick finds the answer to the observation before; the newest one came just now."""
    bench = Bench()
    previous_ns, seen = bench.now_ns - PERIOD_NS, Reason(0)
    for _ in range(20):
        row = bench.row()
        row["receive_ns"] = bench.now_ns - waited_ns
        row["policy_stamp_ns"] = previous_ns
        row["policy_receive_ns"] = bench.now_ns - PERIOD_NS - waited_ns + BUDGET_NS // 2
        previous_ns = bench.now_ns
        seen |= bench.tick(row)
    assert bool(seen & Reason.POLICY_LATE) == late


def test_same_moment_twice_is_no_jump_of_the_clock() -> None:
    bench = Bench()
    bench.drive()
    bench.now_ns -= PERIOD_NS
    assert not bench.tick(bench.row()) & Reason.CLOCK_JUMP


def test_lower_corner_of_the_workspace_is_inside() -> None:
    contract = changed(workspace=[{"stream": "tool_position", "lower": [0.45, -1, -1], "upper": [1, 1, 1]}])
    assert not Bench(contract=contract).tick(Bench().row()) & Reason.WORKSPACE


@pytest.mark.parametrize("source", ["policy", "expert"])
@pytest.mark.parametrize("beyond_ns", [0, 1])
def test_action_may_be_as_old_as_its_limit_and_the_oldest_observation(source: str, beyond_ns: int) -> None:
    bench = Bench()
    row = bench.row()
    row[f"{source}_stamp_ns"] = bench.now_ns - MAX_NS - AGE_NS - beyond_ns
    assert bool(bench.tick(row) & Reason[f"{source.upper()}_STALE"]) == bool(beyond_ns)


def test_responses_are_masks_of_their_reasons() -> None:
    assert response_bits(Response.ESTOP) == int(Reason.ESTOP_PRESSED | Reason.SECOND_WRITER)
    hold = Reason.EXPERT_FLAPPING | Reason.TRACKING | Reason.RECORDER_STALE
    assert response_bits(Response.HOLD) == int(hold)
    assert response_bits(Response.HOLD, Response.ESTOP) == int(hold | Reason.ESTOP_PRESSED | Reason.SECOND_WRITER)
    assert response_bits() == 0
    assert response_bits(*Response) == sum(int(reason) for reason in Reason)


def test_infinities_are_reasons_and_not_warnings() -> None:
    bench = Bench(contract=position_contract())
    row = bench.row(np.inf, -np.inf)
    row["observation"] = np.inf  # what is measured too: one infinity less another
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reasons = bench.tick(row)
    assert reasons & Reason.OBSERVATION_NOT_FINITE
    assert reasons & Reason.POLICY_NOT_FINITE


def test_row_that_is_looked_at_again_and_again_is_decided_like_a_new_one() -> None:
    decided = []
    for again in (False, True):
        bench = Bench(contract=position_contract(tracking_limit=0.3))
        kept, said = RowView.of(bench.layout.new(1)[0]), b""
        for i in range(6):
            row = bench.row(START + 0.01 * i, START)
            if again:
                kept.bytes[:] = row.tobytes()
            bench.tick(kept if again else row, ExpertIntent(takeover=i > 3))
            said += bytes(RowView.of(kept if again else row).bytes)
        decided.append(said)
    assert decided[0] == decided[1]


def test_intent_may_be_given_instead_of_that_in_the_row() -> None:
    bench = Bench()
    view = TickView(bench.layout, np.inf, b"")
    row = bench.row(expert=0.2)
    for intent, pressed in ((None, False), (int(Intent.TAKEOVER | Intent.LABEL), True)):
        view.read(RowView.of(row), intent=intent)
        assert view.pressed is pressed
        assert bool(np.isnan(view.scores.discrepancy)) is not pressed
