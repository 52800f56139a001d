"""A policy that wants pictures is loaded where somebody shows them, and refused everywhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import seeing
from conftest import contract_path, with_cameras
from dagger_ros.contract import NEVER_NS, Contract, DaggerError, load_contract
from dagger_ros.policy import SeeingPolicy, load_policy


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    return load_contract(with_cameras(contract_path("peg"), tmp_path / "contract.yaml", wrist=(8, 6)))


def test_policy_is_tried_with_blank_pictures_of_the_size_in_the_contract(
    contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def see(self: seeing.Seeing, camera: str, picture: np.ndarray, stamp_ns: int) -> None:
        shown.append((camera, picture.shape, picture.dtype, picture.flags.writeable, stamp_ns))

    monkeypatch.setattr(seeing.Seeing, "see", see)
    about, policy = load_policy("seeing:make", contract, pictures=True)
    assert about.name == "make"
    assert isinstance(policy, SeeingPolicy)
    assert policy.cameras == ("wrist",)
    assert shown == [("wrist", (6, 8, 3), np.uint8, False, NEVER_NS)]


@pytest.mark.parametrize(
    ("source", "pictures", "words"),
    [
        ("seeing:make", False, r"expected a policy that acts on numbers.* it wants those of wrist"),
        ("seeing:wants_another", True, r"expected cameras of contract peg \(wrist\), the policy wants front"),
        ("seeing:blind", True, r"expected see\(camera, picture, stamp_ns\) of a policy that has cameras"),
    ],
)
def test_policy_to_which_nobody_can_show_what_it_wants_is_refused(
    contract: Contract, source: str, pictures: bool, words: str
) -> None:
    with pytest.raises(DaggerError, match=words):
        load_policy(source, contract, pictures=pictures)


def test_what_a_policy_raises_at_a_picture_is_a_message_with_its_source(contract: Contract) -> None:
    _, policy = load_policy("seeing:make", contract, pictures=True)
    assert isinstance(policy, SeeingPolicy)
    seeing.MADE[-1].pictures = None  # type: ignore[assignment]
    with pytest.raises(DaggerError, match=r"seeing:make: .* raised TypeError"):
        policy.see("wrist", np.zeros((6, 8, 3), np.uint8), 1)
