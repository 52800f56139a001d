"""Where labelled frames come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dagger_ros.contract import Contract, InterventionReason, Label, Mode, RowLayout
from dagger_ros.dataset import TrainingEpisode, labelled_frames

pytest.importorskip("torch")
from dagger_ros.learning import Kind, origins_of

pytestmark = pytest.mark.torch
P, E, H = Mode.POLICY, Mode.EXPERT, Mode.HOLD
PERIOD_NS = 50_000_000


def rows_of(
    contract: Contract, modes: list[Mode], *, shadow: bool = False, reason: int = InterventionReason.TOLERANCE
) -> Any:
    """An episode; the expert labels what it drives, in the shadow also what the policy does."""
    rows = RowLayout(contract).new(len(modes))
    rows["mode"], rows["tick"] = modes, np.arange(len(modes))
    rows["time_ns"] = 1_700_000_000_000_000_000 + PERIOD_NS * np.arange(len(modes))
    expert = rows["mode"] == E
    begins = expert & ~np.concatenate([[False], expert[:-1]])
    rows["intervention"] = np.where(expert, np.cumsum(begins), 0)
    rows["intervention_reason"] = np.where(expert, reason, 0)
    labelled = expert | (shadow & (rows["mode"] == P))
    rows["label_source"] = np.where(labelled, Label.EXPERT, Label.NONE)
    return rows


def episode(rows: Any, *, demonstration: bool = False) -> TrainingEpisode:
    return TrainingEpisode(rows, success=True, demonstration=demonstration)


def test_demonstrations_corrections_and_shadow_labels_are_told_apart(peg: Contract) -> None:
    episodes = [
        episode(rows_of(peg, [E] * 3, reason=InterventionReason.NONE), demonstration=True),
        episode(rows_of(peg, [P, E, E, P], shadow=True)),
        episode(rows_of(peg, [P, E], reason=InterventionReason.NONE)),
    ]
    found = origins_of(episodes)
    assert len(found.kind) == len(labelled_frames(episodes)[1])
    assert found.kind.tolist() == [*[Kind.DEMONSTRATION] * 3, *[Kind.SHADOW, *[Kind.CORRECTION] * 2, Kind.SHADOW], 1]
    assert found[:3].kind.tolist() == [Kind.DEMONSTRATION] * 3


def test_script_that_a_coin_gave_control_corrected_nothing(peg: Contract) -> None:
    rows = rows_of(peg, [P, E, P], shadow=True, reason=InterventionReason.DEMONSTRATION)
    found = origins_of([episode(rows)])
    assert found.kind.tolist() == [Kind.SHADOW, Kind.DEMONSTRATION, Kind.SHADOW]
    assert np.isinf(found.before_takeover_s).all()


def test_reason_that_was_given_in_the_middle_of_a_correction_is_that_of_all_of_it(peg: Contract) -> None:
    rows = rows_of(peg, [P, E, E, E])
    rows["intervention_reason"][1] = InterventionReason.DEMONSTRATION
    assert origins_of([episode(rows)]).kind.tolist() == [Kind.CORRECTION] * 3


def test_time_to_the_next_takeover_is_told_of_what_the_policy_drove(peg: Contract) -> None:
    found = origins_of([episode(rows_of(peg, [P, P, E, P, H, P, E, P], shadow=True))])
    expected = [0.1, 0.05, np.inf, 0.15, 0.05, np.inf, np.inf]
    np.testing.assert_allclose(found.before_takeover_s, expected)


def test_frame_follows_only_the_label_of_the_tick_before_in_its_episode(peg: Contract) -> None:
    rows = rows_of(peg, [E, E, E, P, E, E, E])
    rows["missed_ticks"][2] = 1
    rows["tick"][6:] += 1
    found = origins_of([episode(rows), episode(rows_of(peg, [E, E]))])
    assert found.follows.tolist() == [False, True, False, False, True, False, False, True]


def test_episode_without_a_label_has_no_frames(peg: Contract) -> None:
    assert len(origins_of([episode(rows_of(peg, [P, P]))]).kind) == 0
