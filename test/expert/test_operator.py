from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import contract_path
from dagger_ros.contract import ExpertIntent, InterventionReason, Mode, RowLayout, load_contract
from dagger_ros.expert import OperatorSettings, SimulatedOperator

PEG = load_contract(contract_path("peg"))
LAYOUT = RowLayout(PEG)
SETTINGS = OperatorSettings(
    tolerance=0.5,
    reaction_s=0.15,
    reaction_spread_s=0.0,
    patience_s=0.5,
    least_progress=0.01,
    shortest_takeover_s=0.2,
    agreement_s=0.1,
    agreement=0.5,
    lapse_share=0.0,
    lapse_s=0.5,
)


class StillExpert:
    """Wants to stand still; the first privileged value is the progress."""

    name = "still"

    def act(self, privileged: Any, out: Any) -> None:
        out[:] = 0.0

    def progress(self, privileged: Any) -> float:
        return float(privileged[0])


class Watch:
    """An operator and the rows that it sees."""

    def __init__(self, settings: OperatorSettings = SETTINGS) -> None:
        self.operator = SimulatedOperator(StillExpert(), settings, PEG)
        self.operator.start_episode(0)
        self.previous: Any = None

    def tick(self, policy: float, progress: float) -> ExpertIntent:
        """One tick in which the policy wanted `policy` bound ranges along x; the gate follows the operator."""
        row = LAYOUT.new(1)[0]
        row["privileged"] = progress
        intent = self.operator.label(row, self.previous, row["expert_action"])
        row["policy_action"] = [policy * 0.24, 0, 0]
        row["mode"] = Mode.EXPERT if intent.takeover else Mode.POLICY
        self.previous = row
        return intent

    def run(self, ticks: int, policy: float, *, moving: bool) -> list[bool]:
        return [self.tick(policy, self.time(moving)).takeover for _ in range(ticks)]

    progress = 0.0

    def time(self, moving: bool) -> float:
        self.progress += 0.01 * moving
        return self.progress


def test_operator_leaves_a_good_policy_alone() -> None:
    assert not any(Watch().run(100, 0.4, moving=True))


def test_takes_over_a_reaction_time_after_the_policy_left_the_tolerance() -> None:
    watch = Watch()
    watch.run(10, 0.1, moving=True)
    # The tick that is bad, seen one later, and 0.15 s = 3 ticks of reaction.
    assert watch.run(5, 0.9, moving=True) == [False, False, False, True, True]
    assert watch.operator.label(watch.previous, watch.previous, np.zeros(3)).reason is InterventionReason.TOLERANCE


def test_takes_over_when_nothing_moves_though_the_policy_agrees() -> None:
    watch = Watch()
    taken = watch.run(30, 0.0, moving=False)
    assert True in taken
    assert 10 <= taken.index(True) <= 16


def test_hands_back_only_after_agreement_and_says_so_once() -> None:
    watch = Watch()
    watch.run(10, 0.9, moving=True)
    assert watch.previous["mode"] == Mode.EXPERT
    intents = []
    for _ in range(6):
        intent = watch.tick(0.1, watch.time(moving=True))
        intents.append((intent.takeover, intent.resume, intent.label))
    assert (False, True, False) in intents
    assert sum(resume for _, resume, _ in intents) == 1


def test_hysteresis_keeps_control_while_the_policy_only_just_agrees() -> None:
    watch = Watch()
    watch.run(10, 0.9, moving=True)
    assert all(watch.run(50, 0.4, moving=True))


def test_label_is_given_only_while_in_control() -> None:
    watch = Watch()
    assert not watch.tick(0.9, 0.0).label
    watch.run(10, 0.9, moving=True)
    assert watch.tick(0.9, 1.0).label


@pytest.mark.parametrize("seed", [0, 1])
def test_reaction_times_come_from_the_seed(seed: int) -> None:
    slow = OperatorSettings(**{**SETTINGS.__dict__, "reaction_s": 0.5, "reaction_spread_s": 0.2})

    def first_takeover(seed: int) -> int:
        watch = Watch(slow)
        watch.operator.start_episode(seed)
        return watch.run(60, 0.9, moving=True).index(True)

    assert first_takeover(seed) == first_takeover(seed)
    assert len({first_takeover(s) for s in range(10)}) > 3


def test_deadman_that_has_no_effect_is_let_go_to_be_pressed_anew() -> None:
    watch = Watch()
    watch.run(10, 1.0, moving=True)
    pressed = []
    for _ in range(30):  # something holds the robot, whoever presses
        watch.previous["mode"] = Mode.HOLD
        row = LAYOUT.new(1)[0]
        row["privileged"] = 0.0
        pressed.append(watch.operator.label(row, watch.previous, row["expert_action"]).takeover)
    assert pressed[0]
    assert pressed.index(False) == round(0.5 * PEG.timing.control_rate_hz)
    assert not any(pressed[pressed.index(False) :])


class Asked(Watch):
    """A graph whose rule asks for help and takes control back; the operator would leave the policy alone."""

    def see(self, mode: Mode, *, asked: bool) -> ExpertIntent:
        row = LAYOUT.new(1)[0]
        row["privileged"] = self.time(moving=True)
        intent = self.operator.label(row, self.previous, row["expert_action"])
        row["policy_action"] = [0.6 * 0.24, 0, 0]  # beyond what it agrees with, within what it lets pass
        row["mode"], row["help"] = mode, asked
        self.previous = row
        return intent

    def press(self, mode: Mode) -> int:
        """Ticks from the request to the press."""
        operator = OperatorSettings(**{**SETTINGS.__dict__, "tolerance": 0.8})
        self.operator = SimulatedOperator(StillExpert(), operator, PEG)
        self.operator.start_episode(0)
        self.see(Mode.POLICY, asked=False)
        self.see(mode, asked=True)
        for i in range(20):
            if self.see(mode, asked=True).takeover:
                return i
        return -1


@pytest.mark.parametrize("mode", [Mode.POLICY, Mode.HOLD])
def test_operator_answers_a_request_for_help_a_reaction_time_later(mode: Mode) -> None:
    watch = Asked()
    assert watch.press(mode) == 2  # 0.15 s are 3 ticks
    assert watch.see(mode, asked=True).reason is InterventionReason.ASKED
    watch.see(Mode.EXPERT, asked=False)
    assert watch.see(Mode.EXPERT, asked=False).takeover


def test_operator_does_not_send_a_robot_on_its_way_that_waits_for_help() -> None:
    watch = Asked()
    watch.see(Mode.HOLD, asked=True)
    assert not watch.see(Mode.HOLD, asked=False).resume
    assert watch.see(Mode.HOLD, asked=False).resume


def test_operator_lets_go_when_the_rule_has_taken_control_back() -> None:
    watch = Asked()
    watch.press(Mode.POLICY)
    assert watch.see(Mode.POLICY, asked=True).takeover  # it has not reached the gate yet
    watch.see(Mode.EXPERT, asked=False)
    assert watch.see(Mode.EXPERT, asked=False).takeover
    watch.see(Mode.POLICY, asked=False)
    intent = watch.see(Mode.POLICY, asked=False)
    assert (intent.takeover, intent.resume) == (False, False)
