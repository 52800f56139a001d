from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dagger_ros.contract import DaggerError, Label, Mode, Scores
from dagger_ros.supervisor import (
    BETAS,
    FEWEST_TICKS,
    ROBOT_GATED,
    RULES,
    BehaviourCloning,
    Dagger,
    Event,
    HumanGated,
    Lazy,
    Limits,
    RobotGated,
    Rule,
    RuleOptions,
    Situation,
    Thrifty,
    fit_thrifty,
    make_rule,
)

HANDED_BACK = (Event.RELEASE, Event.RESUME)
LIMITS = Limits(Scores(deviation=0.5), Scores(deviation=0.3))


def events(rule: Rule, mode: Mode, *, resume: bool = False, **scores: float) -> list[Event]:
    return list(rule.events(Situation(mode, resume, Scores(**scores))))


def every_rule() -> list[Rule]:
    return [make_rule(name, round_index=1, limits=LIMITS) for name in RULES]


@pytest.mark.parametrize("rule", RULES)
def test_round_0_is_demonstrations_whatever_the_rule(rule: str) -> None:
    assert isinstance(make_rule(rule, round_index=0), BehaviourCloning)
    assert make_rule(rule, round_index=1, limits=LIMITS).name == rule


@pytest.mark.parametrize("name", BETAS)
def test_beta_is_a_probability_that_never_rises(name: str) -> None:
    betas = [BETAS[name](i) for i in range(1, 20)]
    assert all(0 <= b <= 1 for b in betas)
    assert betas == sorted(betas, reverse=True)


def test_unknown_names_and_impossible_numbers_are_refused_with_the_valid_ones() -> None:
    valid = "bc, dagger, hg, safe, lazy, ensemble, thrifty"
    with pytest.raises(DaggerError, match=f"^rule: expected one of {valid}, got 'none'$"):
        make_rule("none", round_index=0)
    with pytest.raises(DaggerError, match=r"^beta: expected one of indicator, exponential, linear, got 'cubic'$"):
        RuleOptions(beta="cubic")
    for budget in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(DaggerError, match=r"^budget: expected a share of the policy's ticks between 0 and 1, got"):
            RuleOptions(budget=budget)
    for noise in (-1e-9, 1.0, math.nan):
        with pytest.raises(DaggerError, match=r"^expert_noise: expected half bound ranges, from 0 and below 1, got"):
            RuleOptions(expert_noise=noise)
    assert RuleOptions(expert_noise=0.0, budget=0.999).beta == "indicator"
    assert RuleOptions().budget == 0.01


@pytest.mark.parametrize("rule", ROBOT_GATED)
def test_rule_that_asks_needs_limits_that_were_fitted_for_it(rule: str) -> None:
    expected = f"^rule {rule}: expected a policy with limits that were fitted for this rule, got none$"
    with pytest.raises(DaggerError, match=expected):
        make_rule(rule, round_index=1)
    with pytest.raises(DaggerError, match=f"fitted for this rule .*--rule {rule}\\); found none$"):
        Limits.fitted(rule, {})
    with pytest.raises(DaggerError, match=r"found magic$"):
        Limits.fitted(rule, {"rule": "magic"})
    good = {"rule": rule, "ask": {"doubt": 0.1}, "back": {"risk": 1}, "back_ticks": 1}
    for side in ("ask", "back"):
        for bad in ({}, {"doubt": math.nan}, {"doubt": math.inf}, {"doubt": "0.1"}, {"fear": 0.1}, [0.1], None):
            with pytest.raises(
                DaggerError, match=rf"expected in the policy's limits.{side} finite numbers for at least"
            ):
                Limits.fitted(rule, good | {side: bad})
        with pytest.raises(DaggerError, match=rf"limits.{side} .*; found None$"):
            Limits.fitted(rule, {k: v for k, v in good.items() if k != side})
    for ticks in (0, 1.5, None):
        with pytest.raises(DaggerError, match=r"limits.back_ticks a number >= 1; found"):
            Limits.fitted(rule, good | {"back_ticks": ticks})
    assert Limits.fitted(rule, good).back.risk == 1
    content: dict[str, Any] = {"rule": rule, "ask": {"doubt": 0.1}, "back": {"risk": 0.2}, "back_ticks": 3}
    limits = Limits.fitted(rule, content)
    assert (limits.ask.given(), limits.back.given(), limits.back_ticks) == ({"doubt": 0.1}, {"risk": 0.2}, 3)


@pytest.mark.parametrize(("beta", "mixes"), [(0.0, False), (0.1, True), (1.0, True)])
def test_dagger_mixes_where_the_expert_may_drive(beta: float, mixes: bool) -> None:
    assert Dagger(beta).mixes is mixes
    assert not any(rule.mixes for rule in every_rule())


def test_coins_of_an_episode_come_from_its_seed() -> None:
    def coins(seed: int) -> list[int]:
        rule = Dagger(0.5)
        rule.start_episode(seed)
        return [len(events(rule, Mode.EXPERT)) for _ in range(50)]

    assert coins(1) == coins(1)
    assert coins(1) != coins(2)


def test_letting_go_holds_and_only_a_hand_back_resumes() -> None:
    rule = HumanGated()
    assert events(rule, Mode.EXPERT) == [Event.RELEASE]
    assert events(rule, Mode.EXPERT, resume=True) == [Event.RELEASE, Event.RESUME]


@pytest.mark.parametrize("mode", [Mode.LOCKED, Mode.HOLD, Mode.ESTOP])
def test_nothing_is_a_label_while_nobody_drives(mode: Mode) -> None:
    for rule in every_rule():
        assert rule.label(mode, expert_labels=True) is Label.NONE


def test_expert_without_a_usable_label_is_no_label() -> None:
    for rule in every_rule():
        assert rule.label(Mode.EXPERT, expert_labels=False) is Label.NONE
        assert rule.label(Mode.EXPERT, expert_labels=True) is Label.EXPERT


@pytest.mark.parametrize("rule", RULES)
def test_label_of_what_the_policy_drives(rule: str) -> None:
    """Of an expert's label beside it only where the rule has every visited state labelled."""
    made = make_rule(rule, round_index=1, limits=LIMITS)
    own = Label.NONE if rule == "bc" else Label.POLICY
    assert made.label(Mode.POLICY, expert_labels=False) is own
    assert made.label(Mode.POLICY, expert_labels=True) is (Label.EXPERT if rule in ("dagger", "ensemble") else own)


def test_dagger_hands_back_only_where_the_expert_drives() -> None:
    rule = Dagger(0.0)
    for mode in Mode:
        assert tuple(events(rule, mode)) == (HANDED_BACK if mode is Mode.EXPERT else ())


def test_dagger_asks_for_the_expert_with_the_probability_of_the_round() -> None:
    for beta, share in (("indicator", 0.0), ("exponential", 0.5), ("linear", 0.8)):
        rule = make_rule("dagger", round_index=1, options=RuleOptions(beta=beta))
        rule.start_episode(1)
        taken = [Event.TAKEOVER in events(rule, Mode.POLICY) for _ in range(2000)]
        assert abs(sum(taken) / 2000 - share) < 0.05


def test_coins_of_a_rule_that_was_told_no_seed_are_the_same_each_time() -> None:
    drawn = []
    for _ in range(2):
        rule = Dagger(0.5)
        drawn.append([len(events(rule, Mode.EXPERT)) for _ in range(50)])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("score", [name for name in Scores._fields if name != "discrepancy"])
def test_score_above_its_limit_asks_and_one_at_it_or_without_one_does_not(score: str) -> None:
    rule = RobotGated("safe", Limits(Scores(**{score: 0.4})))
    for value, asks in ((0.4, False), (math.nextafter(0.4, 1), True), (math.nan, True), (math.inf, True), (0.0, False)):
        for mode in Mode:
            wanted = asks and mode in (Mode.POLICY, Mode.HOLD)
            happens = events(rule, mode, **{score: value})
            assert rule.asks == wanted
            assert (Event.TAKEOVER in happens) == wanted
    assert events(RobotGated("safe", Limits()), Mode.POLICY, **{score: math.inf}) == []


def test_discrepancy_asks_above_its_limit_and_not_while_nobody_labels() -> None:
    rule = RobotGated("ensemble", Limits(Scores(discrepancy=0.4, doubt=0.1)))
    known = {"doubt": 0.1}
    assert events(rule, Mode.POLICY, discrepancy=math.nan, **known) == []
    assert events(rule, Mode.POLICY, discrepancy=0.4, **known) == []
    assert events(rule, Mode.POLICY, discrepancy=0.41, **known) == [Event.TAKEOVER]
    assert events(rule, Mode.POLICY, discrepancy=math.nan, doubt=0.11) == [Event.TAKEOVER]


@pytest.mark.parametrize("score", Scores._fields)
def test_control_goes_back_when_all_scores_are_below_and_known(score: str) -> None:
    rule = RobotGated("safe", Limits(back=Scores(**{score: 0.4})))
    for value, back in ((0.4, True), (math.nextafter(0.4, 1), False), (math.nan, False), (-math.inf, True)):
        assert tuple(events(rule, Mode.EXPERT, **{score: value})) == (HANDED_BACK if back else ())
    both = RobotGated("thrifty", Limits(back=Scores(risk=0.4, discrepancy=0.2)))
    assert events(both, Mode.EXPERT, risk=0.4, discrepancy=0.21) == []
    assert tuple(events(both, Mode.EXPERT, risk=0.4, discrepancy=0.2)) == HANDED_BACK


def test_control_goes_back_only_after_so_many_ticks_in_a_row() -> None:
    rule = RobotGated("lazy", Limits(back=Scores(discrepancy=0.4), back_ticks=3))
    far, near = {"discrepancy": 0.5}, {"discrepancy": 0.3}
    happens = [events(rule, Mode.EXPERT, **scores) for scores in (near, near, far, near, near, near)]
    assert [bool(e) for e in happens] == [False, False, False, False, False, True]
    assert events(rule, Mode.POLICY, **near) == []
    assert events(rule, Mode.EXPERT, **near) == []  # counts anew


def test_rule_does_not_take_back_what_a_person_took_unasked_nor_without_a_limit() -> None:
    rule = RobotGated("safe", LIMITS)
    sure = Scores(deviation=0.0)
    assert list(rule.events(Situation(Mode.EXPERT, False, sure, answered=False))) == []
    assert tuple(rule.events(Situation(Mode.EXPERT, True, sure, answered=False))) == HANDED_BACK
    assert tuple(rule.events(Situation(Mode.EXPERT, False, sure, answered=True))) == HANDED_BACK
    assert events(RobotGated("safe", Limits(ask=Scores(deviation=0.5))), Mode.EXPERT, deviation=0.0) == []


def test_new_episode_begins_without_agreement() -> None:
    rule = RobotGated("lazy", Limits(back=Scores(discrepancy=0.4), back_ticks=2))
    assert events(rule, Mode.EXPERT, discrepancy=0.1) == []
    rule.start_episode(3)
    assert events(rule, Mode.EXPERT, discrepancy=0.1) == []
    assert tuple(events(rule, Mode.EXPERT, discrepancy=0.1)) == HANDED_BACK
    asking = RobotGated("safe", LIMITS)
    events(asking, Mode.POLICY, deviation=0.6)
    asking.start_episode(4)
    assert not asking.asks


def test_person_hands_back_or_lets_a_held_policy_go_on_whatever_the_scores() -> None:
    rule = RobotGated("safe", LIMITS)
    assert tuple(events(rule, Mode.EXPERT, resume=True, deviation=1.0)) == HANDED_BACK
    assert events(rule, Mode.HOLD, resume=True, deviation=0.0) == [Event.RESUME]
    assert events(rule, Mode.HOLD, deviation=0.0) == []
    # A robot that waits for help is not sent on its way by who also wants it to go on.
    assert events(rule, Mode.HOLD, resume=True, deviation=1.0) == [Event.TAKEOVER]


def test_only_rules_in_which_the_robot_decides_take_control_from_a_pressed_deadman() -> None:
    assert [rule.name for rule in every_rule() if rule.robot_gated] == list(ROBOT_GATED)
    assert not any(events(rule, Mode.EXPERT) and rule.asks for rule in every_rule())


def test_noise_of_lazy_comes_from_the_seed_and_has_the_spread_that_was_asked_for() -> None:
    def drawn(seed: int | None, noise: float = 0.1) -> Any:
        rule = Lazy(LIMITS, noise)
        if seed is not None:
            rule.start_episode(seed)
        actions = np.ones((4000, 2))
        for action in actions:
            rule.disturb(action, np.array([1.0, 3.0]))
        return actions - 1.0

    assert (drawn(1) == drawn(1)).all()
    assert (drawn(1) != drawn(2)).any()
    assert (drawn(None) == drawn(None)).all()
    np.testing.assert_allclose(drawn(1).std(axis=0), [0.1, 0.3], rtol=0.05)
    assert abs(np.corrcoef(drawn(1).T)[0, 1]) < 0.1  # each joint has its own
    assert (drawn(1, noise=0.0) == 0).all()
    made = make_rule("lazy", round_index=1, limits=LIMITS, options=RuleOptions(expert_noise=0.1))
    made.start_episode(1)
    action = np.zeros(2)
    made.disturb(action, np.array([1.0, 3.0]))
    np.testing.assert_allclose(action, drawn(1)[0])


def test_no_other_rule_disturbs_the_expert() -> None:
    for rule in every_rule():
        action = np.ones(3)
        rule.disturb(action, np.ones(3))
        assert (action == 1).all()


def thrifty_run(rule: Thrifty, ticks: int, seed: int = 0) -> list[bool]:
    """Whether it asks, while a policy meets doubt and risk at random and the expert hands back at once."""
    rng = np.random.default_rng(seed)
    asked = []
    for _ in range(ticks):
        events(rule, Mode.POLICY, doubt=float(rng.random()), risk=float(rng.random()))
        asked.append(rule.asks)
        if rule.asks:
            events(rule, Mode.EXPERT, doubt=0.5, risk=0.5)
    return asked


@pytest.mark.parametrize("budget", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("first_limit", [0.0, 1.0])
def test_thrifty_asks_as_often_as_its_budget_allows_whatever_it_begins_with(budget: float, first_limit: float) -> None:
    rule = Thrifty(Limits(Scores(doubt=first_limit, risk=first_limit)), budget)
    asked = thrifty_run(rule, 2000)
    assert sum(asked) / 2000 == pytest.approx(budget, rel=0.1)
    # Never more than half a request ahead of what is paid for.
    assert (np.cumsum(asked) <= budget * np.arange(2000) + 0.5).all()


def test_thrifty_asks_where_doubt_or_risk_is_largest() -> None:
    rule = Thrifty(Limits(Scores(doubt=0.0, risk=0.0)), 0.1)
    thrifty_run(rule, 1000)
    while not rule.limits.ask.given():
        events(rule, Mode.POLICY, doubt=0.0, risk=0.0)
    assert rule.limits.ask.doubt > 0.8
    assert rule.limits.ask.risk > 0.8


def test_thrifty_takes_no_limit_where_the_budget_does_not_pay() -> None:
    rule = Thrifty(Limits(Scores(doubt=0.2), Scores(discrepancy=0.7)), 0.25)
    assert rule.limits == Limits(Scores(), Scores(discrepancy=0.7)) or not rule.limits.ask.given()
    assert [bool(events(rule, Mode.POLICY, doubt=1.0, risk=0.0)) for _ in range(3)] == [False, False, True]
    assert not rule.limits.ask.given()
    assert rule.limits.back.discrepancy == 0.7


def test_request_that_nobody_answers_counts_once() -> None:
    rule = Thrifty(Limits(Scores(doubt=0.2)), 0.25)
    calm, alarmed = {"doubt": 0.0, "risk": 0.0}, {"doubt": 1.0, "risk": 0.0}
    for _ in range(6):
        events(rule, Mode.POLICY, **calm)
    assert [bool(events(rule, Mode.POLICY, **alarmed)) for _ in range(3)] == [True, True, True]
    events(rule, Mode.POLICY, **calm)
    assert events(rule, Mode.POLICY, **alarmed)  # three of them would have been more than the budget pays for


@pytest.mark.parametrize("doubt", [math.nan, math.inf])
def test_score_that_is_no_number_asks_and_is_not_what_limits_are_fitted_to(doubt: float) -> None:
    rule = Thrifty(Limits(Scores(doubt=0.5)), 0.5)
    for _ in range(4):
        events(rule, Mode.POLICY, doubt=0.1, risk=0.1)
    for _ in range(100):
        asks = events(rule, Mode.POLICY, doubt=doubt, risk=0.1)
        assert asks
        events(rule, Mode.POLICY, doubt=0.1, risk=0.1)
    assert rule.limits.ask == Scores(doubt=0.1, risk=0.1)


def test_thrifty_fits_its_limits_to_what_the_policy_met_and_keeps_the_one_on_discrepancy() -> None:
    rule = Thrifty(Limits(Scores(doubt=9.0), Scores(discrepancy=0.7), back_ticks=3), 0.04)
    for i in range(FEWEST_TICKS + 5):
        before = rule.limits
        events(rule, Mode.POLICY, doubt=float(i), risk=0.0)
        events(rule, Mode.EXPERT, doubt=1e9, risk=1e9)  # what the expert meets does not count
        if i < FEWEST_TICKS + 4:
            assert rule.limits.ask.doubt in (9.0, before.ask.doubt) or not rule.limits.ask.given()
    assert (rule.limits.back, rule.limits.back_ticks) == (Scores(discrepancy=0.7, risk=0.0), 3)
    assert not rule.limits.ask.given() or 20 <= rule.limits.ask.doubt < 30


def test_thrifty_fits_every_ten_ticks_and_makes_up_for_what_it_did_not_ask() -> None:
    first = Limits(Scores(doubt=999.0), Scores(discrepancy=0.7))

    def met(rule: Thrifty, begin: int, end: int) -> Limits:
        for i in range(begin, end):  # ever surer, so that nothing asks
            events(rule, Mode.POLICY, doubt=1.0 / (i + 1), risk=1.0 / (i + 1))
        return rule.limits

    def expected(count: int, share: float) -> Limits:
        doubts = 1.0 / np.arange(1, count + 1)
        return fit_thrifty(doubts, doubts, share, back_discrepancy=0.7)

    rule = Thrifty(first, 0.04)
    assert met(rule, 0, FEWEST_TICKS + 4) == first
    assert met(rule, FEWEST_TICKS + 4, 30) == expected(30, 0.04 + 0.12)  # 1.2 requests are left for ten ticks
    assert met(rule, 30, 100) == expected(100, 5 * 0.04)  # no more than so many times the budget
    generous = Thrifty(first, 0.5)
    assert met(generous, 0, 100) == expected(100, 1.0)


@pytest.mark.parametrize(
    ("doubts", "budget", "ask", "back"),
    [
        ([1.0, 2.0, 3.0, 4.0], 1.0, 1.0, 2.0),  # nearly everything asks
        ([4.0, 2.0, 3.0, 1.0], 0.5, 2.0, 2.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.2, 4.0, 3.0),
        ([1.0, 1.0, 1.0, 2.0], 0.5, 1.0, 1.0),  # equal ones are exceeded by none of them
    ],
)
def test_fitted_limits_are_values_that_were_met(doubts: list[float], budget: float, ask: float, back: float) -> None:
    limits = fit_thrifty(np.array(doubts), np.array(doubts), budget, back_discrepancy=0.3)
    assert (limits.ask.doubt, limits.ask.risk, limits.back.risk) == (ask, ask, back)
    # A score that is always the same leaves it to the other.
    limits = fit_thrifty(np.array(doubts), np.full(len(doubts), 0.5), budget, back_discrepancy=0.3)
    assert (limits.ask.doubt, limits.ask.risk) == (ask, 0.5)


def test_fitted_limits_are_exceeded_together_in_the_share_asked_for() -> None:
    rng = np.random.default_rng(0)
    doubt, risk = rng.random(1000), rng.random(1000) ** 4
    for share in (0.01, 0.1, 0.5):
        limits = fit_thrifty(doubt, risk, share, back_discrepancy=0.3)
        exceeded = (doubt > limits.ask.doubt) | (risk > limits.ask.risk)
        assert exceeded.mean() == pytest.approx(share, abs=0.005)
        # The same quantile of both.
        assert (doubt > limits.ask.doubt).mean() == pytest.approx((risk > limits.ask.risk).mean(), abs=0.005)
    assert limits.back == Scores(discrepancy=0.3, risk=float(np.sort(risk)[499]))
    # Two that say the same are exceeded by the same ticks.
    limits = fit_thrifty(doubt, doubt, 0.1, back_discrepancy=0.3)
    assert (doubt > limits.ask.doubt).mean() == pytest.approx(0.1, abs=0.002)
