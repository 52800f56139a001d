"""A simulated person's wishes come out of the pad as they went in, as well as hands can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import contract_path
from dagger_ros.contract import DaggerError, ExpertIntent, InterventionReason, RowLayout, load_contract
from dagger_ros.expert import JoystickLabeller, OperatorAtPad, PadHands, SimulatedOperator, plain_pad
from dagger_ros.sim.experts import make_labeller


class Wisher:
    """Wants what it is told to want."""

    operator_id = "wisher"

    def __init__(self) -> None:
        self.wish = ExpertIntent()
        self.action: Any = 0.0

    def start_episode(self, seed: int) -> None:
        pass

    def label(self, row: Any, previous: Any, out: Any) -> ExpertIntent:
        out[:] = self.action
        return self.wish


class Scene:
    """A wisher at a plain pad under a shipped contract."""

    def __init__(self, task: str) -> None:
        contract = load_contract(contract_path(task))
        assert contract.expert is not None
        mapping = contract.expert.joystick
        pad = plain_pad(mapping)
        self.wisher = Wisher()
        joystick = JoystickLabeller(contract, mapping, pad, operator_id="wisher", shadow=False)
        self.operator = OperatorAtPad(self.wisher, joystick, PadHands(mapping, pad, contract))
        self.operator.start_episode(3)
        self.row = RowLayout(contract).new(1)[0]
        self.period_ns = contract.timing.period_ns
        self.row["monotonic_ns"] = 0
        self.out = np.empty(len(contract.action.dimensions))
        for _ in range(3):
            self.tick()

    def tick(self, action: Any = 0.0, **wish: Any) -> ExpertIntent:
        self.wisher.action, self.wisher.wish = action, ExpertIntent(**wish)
        self.row["monotonic_ns"] += self.period_ns
        return self.operator.label(self.row, None, self.out)


@pytest.mark.parametrize(
    ("task", "actions"),
    [("peg", [[0.2, -0.1, 0.05], [-0.02, 0.0, 0.24], [0.5, 0, 0]]), ("lane", [[1.6, 0.5], [0.3, -2.0], [0.1, -0.2]])],
)
def test_action_comes_back_as_well_as_hands_can(task: str, actions: list[list[float]]) -> None:
    scene = Scene(task)
    dimensions = load_contract(contract_path(task)).action.dimensions_
    lower, upper = np.array([d.lower for d in dimensions]), np.array([d.upper for d in dimensions])
    for wanted in actions:
        got = []
        for _ in range(50):
            intent = scene.tick(wanted, takeover=True, label=True, reason=InterventionReason.TOLERANCE)
            assert intent.takeover
            assert intent.label
            assert intent.reason is InterventionReason.TOLERANCE
            got.append(scene.out.copy())
        error = (np.array(got) - np.clip(wanted, lower, upper)) / (upper - lower)
        assert np.abs(error).max() < 0.12
        assert np.abs(error.mean(axis=0)).max() < 0.03


def test_nobody_at_the_sticks_asks_for_rest() -> None:
    scene = Scene("peg")
    assert not scene.tick([0.2, 0, 0]).takeover
    assert scene.out.tolist() == [0.0, 0.0, 0.0]


def test_resume_is_a_tap_on_its_button() -> None:
    scene = Scene("peg")
    # Who goes on wanting it lets go, and presses again after a while.
    taps = [scene.tick(resume=True).resume for _ in range(15)]
    assert np.flatnonzero(taps).tolist() == [0, 7, 14]


def test_same_seed_gives_the_same_hands() -> None:
    outs = []
    for _ in range(2):
        scene = Scene("peg")
        for _ in range(5):
            scene.tick([0.1, 0.1, 0.1], takeover=True)
        outs.append(scene.out.tolist())
    assert outs[0] == outs[1]


def test_mapping_that_simulated_hands_do_not_know_is_refused() -> None:
    contract = load_contract(contract_path("arm_forward_command"))
    assert contract.expert is not None
    mapping = contract.expert.joystick
    with pytest.raises(DaggerError, match=r"that needs no modifier, .*; found none for joint_1, .*, joint_6"):
        PadHands(mapping, plain_pad(mapping), contract)


def test_operator_of_an_arm_with_more_joints_than_sticks_acts_without_hands() -> None:
    contract = load_contract(contract_path("arm_forward_command"))
    assert isinstance(make_labeller("operator", contract), SimulatedOperator)
