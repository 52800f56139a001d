"""A rule asks for help: what the gate makes of it, and of an answer or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import LIMIT, PEG, PERIOD_NS, Bench, changed
from dagger_ros.contract import Contract, DaggerError, ExpertIntent, InterventionReason, Label, Mode, Scores
from dagger_ros.supervisor import (
    ROBOT_GATED,
    Dagger,
    Event,
    Gate,
    HumanGated,
    Lazy,
    Limits,
    Reason,
    RobotGated,
    Rule,
    help_words,
    make_rule,
)
from dagger_ros.supervisor.help import HelpWatch

ANSWER_TICKS = 20  # 1 s
LIMITS = Limits(Scores(doubt=0.5), Scores(doubt=0.2))
SURE, DOUBTFUL = 0.1, 0.6
# Nobody presses, and who labels beside the policy does not drive either.
ABSENT = ExpertIntent()
PRESSED = ExpertIntent(label=True, takeover=True)
SCRIPT = ExpertIntent(label=True, unattended=True, reason=InterventionReason.DEMONSTRATION)


def bench(rule: Rule | None = None, **options: Any) -> Bench:
    """A gate whose policy drives and is sure."""
    made = Bench(rule or RobotGated("safe", LIMITS), auto_arm=False, **options)
    made.tick(row_of(made, SURE), ABSENT, (Event.ARM, Event.RESUME))
    return made


def row_of(made: Bench, doubt: float, policy: Any = 0.1, expert: Any = 0.1) -> Any:
    row = made.row(policy, expert)
    row["doubt"] = doubt
    return row


def tick(made: Bench, doubt: float, intent: ExpertIntent = ABSENT, *requests: Event) -> Any:
    row = row_of(made, doubt)
    made.tick(row, intent, requests)
    return row


def modes(made: Bench, doubt: float, count: int, intent: ExpertIntent = ABSENT) -> list[Mode]:
    return [Mode(tick(made, doubt, intent)["mode"]) for _ in range(count)]


def test_request_that_nobody_answers_holds_the_policy_after_the_time_of_the_contract() -> None:
    made = bench()
    assert modes(made, DOUBTFUL, 1 + ANSWER_TICKS) == [Mode.POLICY] * (1 + ANSWER_TICKS)
    row = tick(made, DOUBTFUL)
    assert row["mode"] == Mode.HOLD
    assert Reason(int(row["reasons"])) == Reason.HELP_UNANSWERED | Reason.HELD
    assert row["help"] == 1
    # It waits: the robot is held, and help still asked for.
    row = tick(made, SURE)
    assert (row["mode"], row["help"]) == (Mode.HOLD, 1)
    assert Reason(int(row["reasons"])) == Reason.HELD


def test_request_stands_though_the_score_falls_below_its_limit_again() -> None:
    made = bench()
    assert tick(made, DOUBTFUL)["help"] == 1
    assert [tick(made, SURE)["help"] for _ in range(ANSWER_TICKS)] == [1] * ANSWER_TICKS
    assert tick(made, SURE)["mode"] == Mode.HOLD


def test_policy_that_is_sure_asks_for_nothing() -> None:
    made = bench()
    rows = [tick(made, 0.5) for _ in range(2 * ANSWER_TICKS)]
    assert {(int(r["mode"]), int(r["help"]), int(r["reasons"])) for r in rows} == {(Mode.POLICY, 0, 0)}


def test_deadman_answers_at_once_and_the_request_is_over() -> None:
    made = bench()
    tick(made, DOUBTFUL)
    row = tick(made, DOUBTFUL, PRESSED)
    assert (row["mode"], row["help"], row["label_source"]) == (Mode.EXPERT, 1, Label.EXPERT)
    assert row["intervention"] == 1
    assert tick(made, DOUBTFUL, PRESSED)["help"] == 0


def test_deadman_answers_a_robot_that_is_held_for_want_of_one() -> None:
    made = bench()
    modes(made, DOUBTFUL, 2 + ANSWER_TICKS)
    assert tick(made, DOUBTFUL, PRESSED)["mode"] == Mode.EXPERT
    assert tick(made, DOUBTFUL, PRESSED)["help"] == 0


def test_script_that_needs_no_deadman_answers_in_the_tick_of_the_request() -> None:
    made = bench()
    row = tick(made, DOUBTFUL, ExpertIntent(label=True, unattended=True))
    assert (row["mode"], row["help"]) == (Mode.EXPERT, 1)
    row = tick(made, DOUBTFUL, ExpertIntent(label=True, unattended=True))
    assert (row["mode"], row["help"]) == (Mode.EXPERT, 0)
    row = tick(made, SURE, ExpertIntent(label=True, unattended=True))
    assert (row["mode"], row["help"]) == (Mode.POLICY, 0)


@pytest.mark.parametrize("driving", [True, False])
def test_person_lets_the_policy_go_on_and_the_time_begins_anew(driving: bool) -> None:
    made = bench()
    modes(made, DOUBTFUL, ANSWER_TICKS if driving else 2 + ANSWER_TICKS)
    row = tick(made, DOUBTFUL, ABSENT, Event.RESUME)
    assert (row["mode"], row["help"]) == (Mode.POLICY, 1)
    assert modes(made, DOUBTFUL, ANSWER_TICKS)[-1] is Mode.POLICY
    assert tick(made, DOUBTFUL)["mode"] == Mode.HOLD


def test_person_who_lets_a_sure_policy_go_on_ends_the_request() -> None:
    made = bench()
    tick(made, DOUBTFUL)
    assert tick(made, SURE, ABSENT, Event.RESUME)["help"] == 0
    assert tick(made, SURE)["help"] == 0


@pytest.mark.parametrize("stop", [Event.LOCK, Event.ESTOP])
def test_robot_that_is_stopped_asks_nobody(stop: Event) -> None:
    made = bench()
    tick(made, DOUBTFUL)
    assert tick(made, DOUBTFUL, ABSENT, stop)["help"] == 0


def test_robot_that_a_person_holds_still_waits_for_help_and_its_time_does_not_run() -> None:
    made = bench()
    tick(made, DOUBTFUL)
    rows = [tick(made, DOUBTFUL, ABSENT, Event.HOLD)] + [tick(made, DOUBTFUL) for _ in range(2 * ANSWER_TICKS)]
    assert {(int(r["mode"]), int(r["help"])) for r in rows} == {(Mode.HOLD, 1)}
    assert not any(r["reasons"] & np.uint64(Reason.HELP_UNANSWERED) for r in rows)


def test_rule_takes_control_back_from_a_pressed_deadman_and_only_a_new_press_takes_it_again() -> None:
    made = bench()
    tick(made, DOUBTFUL)
    assert tick(made, DOUBTFUL, PRESSED)["mode"] == Mode.EXPERT
    assert modes(made, SURE, 5, PRESSED) == [Mode.POLICY] * 5
    row = tick(made, SURE, PRESSED)
    assert row["label_source"] == Label.POLICY  # what the hand says now is no label of this rule
    assert tick(made, SURE, ABSENT)["mode"] == Mode.POLICY
    assert tick(made, SURE, PRESSED)["mode"] == Mode.EXPERT


@pytest.mark.parametrize(
    ("intent", "asked", "why"),
    [
        (PRESSED, True, InterventionReason.ASKED),
        (ExpertIntent(label=True, takeover=True, reason=InterventionReason.CONTROL), True, InterventionReason.CONTROL),
        (
            ExpertIntent(label=True, unattended=True, reason=InterventionReason.DEMONSTRATION),
            True,
            InterventionReason.ASKED,
        ),
        (PRESSED, False, InterventionReason.NONE),
    ],
)
def test_correction_that_the_robot_asked_for_says_so(
    intent: ExpertIntent, asked: bool, why: InterventionReason
) -> None:
    made = bench()
    row = tick(made, DOUBTFUL if asked else SURE, intent)
    assert (row["mode"], row["intervention_reason"]) == (Mode.EXPERT, why)


def test_rule_takes_control_back_however_long_the_answer_took() -> None:
    made = bench()
    assert modes(made, DOUBTFUL, 5, PRESSED) == [Mode.EXPERT] * 5
    assert tick(made, SURE, PRESSED)["mode"] == Mode.POLICY


@pytest.mark.parametrize("score", Scores._fields[:-1])
def test_each_score_of_the_policy_reaches_the_rule(score: str) -> None:
    made = Bench(RobotGated("safe", Limits(Scores(**{score: 0.5}), Scores(**{score: 0.2}))), auto_arm=False)
    for value, requests, asked in ((0.1, (Event.ARM, Event.RESUME), 0), (0.6, (), 1)):
        row = row_of(made, SURE)
        row[score] = value
        made.tick(row, ABSENT, requests)
        assert (row["mode"], row["help"]) == (Mode.POLICY, asked)


def test_rule_that_asks_again_is_not_answered_by_a_deadman_that_is_still_pressed() -> None:
    made = bench()
    tick(made, DOUBTFUL, PRESSED)
    assert tick(made, SURE, PRESSED)["mode"] == Mode.POLICY
    row = tick(made, DOUBTFUL, PRESSED)
    assert (row["mode"], row["help"]) == (Mode.POLICY, 1)
    tick(made, DOUBTFUL, ABSENT)
    assert tick(made, DOUBTFUL, PRESSED)["mode"] == Mode.EXPERT


def test_what_a_person_took_unasked_the_rule_does_not_take_back() -> None:
    made = bench()
    assert modes(made, SURE, 5, PRESSED) == [Mode.EXPERT] * 5
    assert tick(made, SURE, ExpertIntent(label=True, takeover=True, resume=True))["mode"] == Mode.POLICY


@pytest.mark.parametrize("fault", ["policy_receive_ns", "policy_action"])
def test_rule_gives_nothing_back_to_a_policy_that_could_not_drive(fault: str) -> None:
    made = bench()
    tick(made, DOUBTFUL, PRESSED)
    row = row_of(made, SURE)
    row[fault] = made.now_ns - 10**9 if fault == "policy_receive_ns" else np.nan
    made.tick(row, PRESSED)
    assert row["mode"] == Mode.EXPERT
    assert tick(made, SURE, PRESSED)["mode"] == Mode.POLICY


def test_expert_who_falls_silent_holds_though_the_rule_would_go_on() -> None:
    made = bench(needs_expert=False)
    tick(made, DOUBTFUL, PRESSED)
    row = row_of(made, SURE)
    row["expert_receive_ns"] = made.now_ns - 10**9
    made.tick(row, PRESSED)
    assert row["mode"] == Mode.HOLD


@pytest.mark.parametrize("intent", [PRESSED, ExpertIntent(label=True, unattended=True)])
def test_policy_that_failed_waits_for_a_person_whatever_the_rule_asks(intent: ExpertIntent) -> None:
    made = bench()
    tick(made, DOUBTFUL, PRESSED)
    assert tick(made, SURE, PRESSED)["mode"] == Mode.POLICY
    row = row_of(made, SURE, policy=np.nan)
    made.tick(row, intent)
    assert row["mode"] == Mode.HOLD
    assert modes(made, DOUBTFUL, 5, intent) == [Mode.HOLD] * 5


def test_arming_what_is_armed_does_not_silence_the_rule() -> None:
    made = bench()
    assert tick(made, DOUBTFUL, ABSENT, Event.ARM)["help"] == 1
    assert tick(made, DOUBTFUL)["help"] == 1


def test_new_episode_asks_for_nothing_and_needs_no_new_press() -> None:
    made = Bench(RobotGated("safe", LIMITS))
    tick(made, DOUBTFUL)
    made.gate.start_episode(1)
    row = tick(made, SURE, ABSENT, Event.LOCK)
    assert (row["mode"], row["help"]) == (Mode.POLICY, 0)
    assert [tick(made, SURE)["mode"] for _ in range(2 * ANSWER_TICKS)] == [Mode.POLICY] * 2 * ANSWER_TICKS
    tick(made, DOUBTFUL, PRESSED)
    tick(made, SURE, PRESSED)
    made.gate.start_episode(2)
    row = tick(made, SURE, PRESSED, Event.LOCK)
    assert (row["mode"], row["intervention"]) == (Mode.EXPERT, 1)


def test_gate_that_goes_on_knows_of_the_request_and_of_the_press_that_is_over() -> None:
    made = bench()
    tick(made, DOUBTFUL)
    rows = [tick(made, SURE).copy() for _ in range(3)]
    other = Bench(RobotGated("safe", LIMITS), auto_arm=False)
    other.now_ns = made.now_ns
    other.gate.go_on_from(rows[-1])
    assert tick(other, SURE)["help"] == 1
    made = bench()
    tick(made, DOUBTFUL, PRESSED)
    row = tick(made, SURE, PRESSED)
    other = Bench(RobotGated("safe", LIMITS), auto_arm=False)
    other.now_ns = made.now_ns
    other.gate.go_on_from(row)
    assert tick(other, SURE, PRESSED)["mode"] == Mode.POLICY
    made = bench()
    row = tick(made, DOUBTFUL, PRESSED)
    other = Bench(RobotGated("safe", LIMITS), auto_arm=False)
    other.now_ns = made.now_ns
    other.gate.go_on_from(row)
    assert tick(other, SURE, PRESSED)["mode"] == Mode.POLICY
    # Who answers a request that was made before is one who was asked.
    other = Bench(RobotGated("safe", LIMITS), auto_arm=False)
    other.now_ns = int(rows[-1]["monotonic_ns"]) + PERIOD_NS
    other.gate.go_on_from(rows[-1])
    assert tick(other, SURE, PRESSED)["mode"] == Mode.EXPERT
    assert tick(other, SURE, PRESSED)["mode"] == Mode.POLICY


def test_gate_that_goes_on_counts_corrections_on() -> None:
    made = bench(HumanGated())
    row = tick(made, SURE, PRESSED)
    row["intervention"] = 3
    other = Bench(HumanGated(), auto_arm=False)
    other.now_ns = made.now_ns
    other.gate.go_on_from(row)
    assert tick(other, SURE, PRESSED)["intervention"] == 3


@pytest.mark.parametrize("allowed", [True, False])
def test_expert_and_policy_drive_a_robot_in_turn_only_where_the_contract_allows_it(allowed: bool) -> None:
    contract = changed(handover={"limit_scale": 1.0, "longest_s": 0.3, "beta_mixing": allowed})
    if allowed:
        Gate(contract, Dagger(0.5), auto_arm=False)
    else:
        with pytest.raises(
            DaggerError,
            match=r"^rule dagger: expected action.handover.beta_mixing true in contract peg, since with this beta the "
            r"expert and the policy drive the robot in turn, tick by tick; found false$",
        ):
            Gate(contract, Dagger(0.5), auto_arm=False)
    Gate(contract, Dagger(0.5), auto_arm=True)
    Gate(contract, Dagger(0.0), auto_arm=False)


def test_letting_go_holds_and_does_not_give_control_back() -> None:
    made = bench()
    tick(made, DOUBTFUL, PRESSED)
    row = tick(made, DOUBTFUL)
    assert row["mode"] == Mode.HOLD
    made = bench(RobotGated("safe", Limits(Scores(doubt=0.5), Scores(discrepancy=-1.0))))
    tick(made, DOUBTFUL, PRESSED)
    assert tick(made, SURE)["mode"] == Mode.HOLD
    assert tick(made, SURE)["help"] == 0


@pytest.mark.parametrize("unattended", [True, False])
def test_only_where_nobody_is_there_a_held_simulation_goes_on_by_itself(unattended: bool) -> None:
    made = Bench(RobotGated("safe", LIMITS))
    intent = ExpertIntent(label=True, unattended=unattended)
    assert tick(made, SURE, intent)["mode"] == Mode.POLICY
    row = row_of(made, SURE, policy=np.nan)
    made.tick(row, intent)
    assert row["mode"] == Mode.HOLD
    assert tick(made, SURE, intent)["mode"] == (Mode.POLICY if unattended else Mode.HOLD)


def test_held_robot_with_a_person_is_not_resumed_by_a_script() -> None:
    made = bench()
    tick(made, SURE, ABSENT, Event.HOLD)
    assert tick(made, SURE, ExpertIntent(unattended=True))["mode"] == Mode.HOLD


@pytest.mark.parametrize("name", ROBOT_GATED)
def test_rule_that_asks_needs_a_contract_that_says_how_long(name: str) -> None:
    content = PEG.model_dump(mode="json", by_alias=True)
    content["timing"]["help_answer_s"] = None
    contract = Contract.model_validate(content)
    rule = make_rule(name, round_index=1, limits=LIMITS)
    expected = f"^rule {name}: expected timing.help_answer_s in contract peg, how long .*; found nothing$"
    with pytest.raises(DaggerError, match=expected):
        Gate(contract, rule, auto_arm=False)
    Gate(contract, HumanGated(), auto_arm=False)


def test_row_says_the_limits_that_were_in_force_and_how_far_the_two_are_apart() -> None:
    made = bench()
    row = row_of(made, SURE, policy=[0.1, -9.0, 0.0], expert=[-0.14, -LIMIT, 9.0])
    made.tick(row, ExpertIntent(label=True))
    np.testing.assert_array_equal(row["ask_limits"], LIMITS.ask)
    np.testing.assert_array_equal(row["back_limits"], LIMITS.back)
    # Each within the bounds, in half bound ranges: 1, 0 and 1.
    assert row["discrepancy"] == pytest.approx(np.sqrt(2))
    assert np.isnan(tick(made, SURE)["discrepancy"])
    row = row_of(made, SURE)
    row["policy_receive_ns"] = -1
    made.tick(row, ExpertIntent(label=True))
    assert np.isnan(row["discrepancy"])


def test_gate_takes_the_limits_of_a_recorded_tick_if_there_were_any() -> None:
    recorded = tick(bench(), SURE)
    made = bench(RobotGated("lazy", Limits(Scores(risk=0.9), back_ticks=3)))
    made.gate.take_limits(recorded)
    limits = made.gate.rule.limits
    assert (limits.ask.given(), limits.back.given(), limits.back_ticks) == ({"doubt": 0.5}, {"doubt": 0.2}, 3)
    made.gate.take_limits(tick(bench(HumanGated()), SURE))
    assert made.gate.rule.limits == limits
    for one in (Limits(Scores(doubt=0.4)), Limits(back=Scores(doubt=0.3))):
        made.gate.take_limits(tick(bench(RobotGated("safe", one)), SURE))
        limits = made.gate.rule.limits
        assert (limits.ask.given(), limits.back.given()) == (one.ask.given(), one.back.given())


def test_noise_is_on_what_is_executed_and_not_on_the_label() -> None:
    made = bench(Lazy(LIMITS, 0.3))
    made.gate.start_episode(0)
    rows = [row.copy() for _ in range(30) for row in [tick(made, DOUBTFUL, PRESSED)]]
    assert all((row["expert_action"] == 0.1).all() for row in rows)
    asked = np.array([row["requested_action"] for row in rows])
    assert np.std(asked) == pytest.approx(0.3 * LIMIT, rel=0.3)
    assert all((np.abs(row["executed_action"]) <= LIMIT).all() for row in rows)
    assert rows[-1]["label_source"] == Label.EXPERT
    policy = bench(Lazy(LIMITS, 0.3))
    assert (tick(policy, SURE)["requested_action"] == 0.1).all()


def test_words_name_the_scores_above_their_limits() -> None:
    assert help_words(Scores(doubt=0.61, risk=0.2), Scores(doubt=0.5, risk=0.3)) == "doubt 0.61 above 0.5"
    both = help_words(Scores(doubt=0.61, novelty=3.0), Scores(doubt=0.5, novelty=2.0))
    assert both == "doubt 0.61 above 0.5, novelty 3 above 2"
    assert help_words(Scores(), Scores(doubt=0.5)) == "doubt is not known"
    assert help_words(Scores(doubt=0.5, risk=0.4), Scores(doubt=0.5, risk=0.3)) == "risk 0.4 above 0.3"
    assert help_words(Scores(doubt=0.4), Scores(doubt=0.5)) == "a score was above its limit"


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("dismissed", [True, False])
def test_watch_over_the_product_of_what_can_be(mode: Mode, asks: bool, dismissed: bool) -> None:
    waits = mode in (Mode.POLICY, Mode.HOLD)
    for pending in (True, False):
        watch = HelpWatch(0.1)
        if pending:
            assert not watch.watch(Mode.POLICY, asks=True, dismissed=False, now_ns=0)
        stands = (pending and waits and not dismissed) or (asks and waits)
        late = watch.watch(mode, asks=asks, dismissed=dismissed, now_ns=PERIOD_NS * 3)
        assert watch.asked == (asks or stands)
        assert late == (mode is Mode.POLICY and pending and not dismissed)


@pytest.mark.parametrize(("after_ns", "late"), [(100_000_000, False), (100_000_001, True)])
def test_answer_may_take_as_long_as_the_contract_says(after_ns: int, late: bool) -> None:
    watch = HelpWatch(0.1)
    watch.watch(Mode.POLICY, asks=True, dismissed=False, now_ns=5)
    assert watch.watch(Mode.POLICY, asks=False, dismissed=False, now_ns=5 + after_ns) == late
    assert HelpWatch(None).watch(Mode.POLICY, asks=False, dismissed=False, now_ns=10**18) is False
