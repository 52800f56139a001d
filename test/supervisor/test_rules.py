from __future__ import annotations

import pytest

from dagger_ros.contract import DaggerError, Label, Mode
from dagger_ros.supervisor import BETAS, RULES, BehaviourCloning, Dagger, Event, HumanGated, make_rule


@pytest.mark.parametrize("rule", RULES)
def test_round_0_is_demonstrations_whatever_the_rule(rule: str) -> None:
    assert isinstance(make_rule(rule, round_index=0), BehaviourCloning)


@pytest.mark.parametrize("name", BETAS)
def test_beta_is_a_probability_that_never_rises(name: str) -> None:
    betas = [BETAS[name](i) for i in range(1, 20)]
    assert all(0 <= b <= 1 for b in betas)
    assert betas == sorted(betas, reverse=True)


def test_unknown_names_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(DaggerError, match="rule: expected one of bc, dagger, hg, got 'thrifty'"):
        make_rule("thrifty", round_index=1)
    with pytest.raises(DaggerError, match="beta: expected one of indicator, exponential, linear, got 'cubic'"):
        make_rule("dagger", round_index=1, beta="cubic")


def test_coins_of_an_episode_come_from_its_seed() -> None:
    def coins(seed: int) -> list[int]:
        rule = Dagger(0.5)
        rule.start_episode(seed)
        return [len(rule.events(Mode.EXPERT, takeover=False, resume=False)) for _ in range(50)]

    assert coins(1) == coins(1)
    assert coins(1) != coins(2)


def test_letting_go_holds_and_only_a_hand_back_resumes() -> None:
    rule = HumanGated()
    assert list(rule.events(Mode.EXPERT, takeover=False, resume=False)) == [Event.RELEASE]
    assert list(rule.events(Mode.EXPERT, takeover=False, resume=True)) == [Event.RELEASE, Event.RESUME]


@pytest.mark.parametrize("rule", [BehaviourCloning(), Dagger(0.5), HumanGated()])
@pytest.mark.parametrize("mode", [Mode.LOCKED, Mode.HOLD, Mode.ESTOP])
def test_nothing_is_a_label_while_nobody_drives(rule: BehaviourCloning | Dagger | HumanGated, mode: Mode) -> None:
    assert rule.label(mode, expert_labels=True) is Label.NONE


def test_expert_without_a_usable_label_is_no_label() -> None:
    for rule in (BehaviourCloning(), Dagger(0.5), HumanGated()):
        assert rule.label(Mode.EXPERT, expert_labels=False) is Label.NONE


def test_dagger_hands_back_only_where_the_expert_drives() -> None:
    rule = Dagger(0.0)
    for mode in Mode:
        events = rule.events(mode, takeover=False, resume=False)
        assert tuple(events) == ((Event.RELEASE, Event.RESUME) if mode is Mode.EXPERT else ())


def test_dagger_asks_for_the_expert_with_the_probability_of_the_round() -> None:
    for beta, share in (("indicator", 0.0), ("exponential", 0.5), ("linear", 0.8)):
        rule = make_rule("dagger", round_index=1, beta=beta)
        rule.start_episode(1)
        taken = [Event.TAKEOVER in rule.events(Mode.POLICY, takeover=False, resume=False) for _ in range(2000)]
        assert abs(sum(taken) / 2000 - share) < 0.05
    assert isinstance(make_rule("hg", round_index=1), HumanGated)
    assert isinstance(make_rule("bc", round_index=1), BehaviourCloning)
    with pytest.raises(DaggerError, match="rule: expected one of bc, dagger, hg, got 'none'"):
        make_rule("none", round_index=0)


def test_coins_of_a_rule_that_was_told_no_seed_are_the_same_each_time() -> None:
    drawn = []
    for _ in range(2):
        rule = Dagger(0.5)
        drawn.append([len(rule.events(Mode.EXPERT, takeover=False, resume=False)) for _ in range(50)])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("mode", "expert_labels", "label"),
    [
        (Mode.POLICY, False, Label.POLICY),
        (Mode.POLICY, True, Label.EXPERT),
        (Mode.EXPERT, True, Label.EXPERT),
        (Mode.EXPERT, False, Label.NONE),
    ],
)
def test_dagger_labels(mode: Mode, expert_labels: bool, label: Label) -> None:
    assert Dagger(0.5).label(mode, expert_labels=expert_labels) is label
