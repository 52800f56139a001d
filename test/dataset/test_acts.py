"""What the operator did at the pad, as data, and corrections that were taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import contract_path
from dagger_ros.contract import Act, Label, RowLayout, load_contract
from dagger_ros.dataset import act_of
from dagger_ros.dataset.acts import corrections, undo

LAYOUT = RowLayout(load_contract(contract_path("peg")))


def message(act: int, **fields: Any) -> Any:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=2, nanosec=5))
    return SimpleNamespace(header=header, act=act, **({"reason": 0, "failure": ""} | fields))


@pytest.mark.parametrize(
    ("act", "data"),
    [
        (message(Act.TAKEOVER), {"act": "takeover"}),
        (message(Act.FAILURE, failure="jammed"), {"act": "failure", "failure": "jammed"}),
        (message(Act.REASON, reason=4), {"act": "reason", "reason": "control"}),
        (message(99, reason=200), {"act": "99"}),  # of a later version
    ],
)
def test_act_is_said_in_words_with_its_stamp(act: Any, data: dict[str, Any]) -> None:
    assert act_of(act) == {"stamp_ns": 2_000_000_005} | data


def rows() -> Any:
    """Two corrections, at ticks 2 to 3 and 6 to 7, of ten labelled ticks."""
    result = LAYOUT.new(10)
    result["intervention"] = [0, 0, 1, 1, 0, 0, 2, 2, 0, 0]
    result["label_source"] = np.where(result["intervention"] > 0, Label.EXPERT, Label.POLICY)
    return result


@pytest.mark.parametrize(
    ("ticks", "undone"),
    [
        ([], []),
        ([2], []),  # before any
        ([3], [2, 3]),  # while it goes on
        ([5], [2, 3]),
        ([9], [6, 7]),
        ([9, 9], [2, 3, 6, 7]),
        ([9, 5], [2, 3, 6, 7]),
        ([9, 9, 9], [2, 3, 6, 7]),
    ],
)
def test_undo_takes_back_the_last_correction_that_was_not_taken_back(ticks: list[int], undone: list[int]) -> None:
    result = rows()
    undo(result, ticks)
    assert np.flatnonzero(result["label_source"] == Label.NONE).tolist() == undone
    assert (result["label_source"] == Label.POLICY).sum() == 6


def test_corrections_are_told_apart_by_where_they_lie_and_not_by_their_numbers() -> None:
    result = rows()
    result["intervention"] = [3, 3, 1, 1, 0, 1, 1, 2, 0, 1]  # begun before the bag; and a supervisor started anew
    assert corrections(result) == [slice(0, 2), slice(2, 4), slice(5, 7), slice(7, 8), slice(9, 10)]
    undo(result, [7])
    assert np.flatnonzero(result["label_source"] == Label.NONE).tolist() == [5, 6]
