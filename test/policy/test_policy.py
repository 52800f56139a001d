from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagger_ros.contract import NEVER_NS, Contract, DaggerError, RowLayout
from dagger_ros.policy import Checkpoint, MlpEnsemble, load_checkpoint, save_checkpoint
from policies import plain, random_tensors


def about(contract: Contract) -> Checkpoint:
    layout = RowLayout(contract)
    return Checkpoint("pi_001", 1, contract.sha256, 0, layout.columns(), contract.action.dimensions, (), {})


def test_ensemble_is_the_mean_of_its_members(peg: Contract) -> None:
    tensors = random_tensors(peg)
    network = MlpEnsemble(tensors)
    out = np.zeros(3)
    for seed in range(20):
        observation = np.random.default_rng(seed).normal(size=24)
        network.act(observation, out, NEVER_NS)
        np.testing.assert_allclose(out, plain(tensors, observation).mean(axis=0), atol=1e-5)


@pytest.mark.torch
def test_numpy_equals_torch(peg: Contract) -> None:
    torch = pytest.importorskip("torch")
    tensors = random_tensors(peg, members=1)
    observation = np.random.default_rng(3).normal(size=24)
    values = torch.tensor((observation - tensors["input_mean"]) / tensors["input_scale"], dtype=torch.float32)[None]
    for i in range(3):
        values = values @ torch.tensor(tensors[f"layer{i}.weight"][0]) + torch.tensor(tensors[f"layer{i}.bias"][0])
        values = torch.relu(values) if i < 2 else values
    expected = values[0].numpy() * tensors["output_scale"] + tensors["output_mean"]
    out = np.zeros(3)
    MlpEnsemble(tensors).act(observation, out, NEVER_NS)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_observation_that_is_not_finite_gives_no_finite_action(peg: Contract) -> None:
    out = np.zeros(3)
    observation = np.zeros(24)
    observation[7] = np.nan
    MlpEnsemble(random_tensors(peg)).act(observation, out, NEVER_NS)
    assert np.isnan(out).all()


def test_checkpoint_comes_back_as_it_was_saved(peg: Contract, tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "pi_001", about(peg), random_tensors(peg))
    loaded, network = load_checkpoint(tmp_path / "pi_001", peg)
    assert loaded.weights_sha256 == saved.weights_sha256
    first, second = np.zeros(3), np.zeros(3)
    network.act(np.ones(24), first, NEVER_NS)
    MlpEnsemble(random_tensors(peg)).act(np.ones(24), second, NEVER_NS)
    assert first.tolist() == second.tolist()


def test_checkpoint_of_another_contract_is_refused(peg: Contract, lane: Contract, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "pi", about(peg), random_tensors(peg))
    with pytest.raises(DaggerError, match=r"trained under another contract; expected .* \(lane\)"):
        load_checkpoint(tmp_path / "pi", lane)


def test_missing_or_changed_checkpoint_is_refused(peg: Contract, tmp_path: Path) -> None:
    with pytest.raises(DaggerError, match=r"expected a policy here \(policy.json and weights.safetensors\)"):
        load_checkpoint(tmp_path / "none", peg)
    save_checkpoint(tmp_path / "pi", about(peg), random_tensors(peg))
    weights = tmp_path / "pi" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DaggerError, match="the file was changed or cut short"):
        load_checkpoint(tmp_path / "pi", peg)
    (tmp_path / "pi" / "policy.json").write_text("{}")
    with pytest.raises(DaggerError, match="expected a description of a policy"):
        load_checkpoint(tmp_path / "pi", peg)


def test_checkpoint_of_another_size_is_refused(peg: Contract, lane: Contract, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "pi", about(peg), random_tensors(lane))
    with pytest.raises(DaggerError, match="expected 24 inputs and 3 outputs, got 25 and 2"):
        load_checkpoint(tmp_path / "pi", peg)


def test_checkpoint_says_what_it_was_trained_on(peg: Contract, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "pi", about(peg), random_tensors(peg))
    content = json.loads((tmp_path / "pi" / "policy.json").read_text())
    assert content["columns"][0] == "peg_in_hole.pose.position.x"
    assert content["actions"] == ["vx", "vy", "vz"]
    assert len(content["weights_sha256"]) == 64


@pytest.mark.torch
@settings(max_examples=25)
@given(
    members=st.integers(1, 5),
    inputs=st.integers(1, 30),
    hidden=st.lists(st.integers(1, 40), max_size=3),
    outputs=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_ensemble_of_any_shape_is_torch_within_a_millionth(
    members: int, inputs: int, hidden: list[int], outputs: int, seed: int
) -> None:
    """Of what the largest number in the computation is: float32 has 7 digits."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    sizes = [inputs, *hidden, outputs]
    tensors: dict[str, Any] = {}
    for i, (size, next_size) in enumerate(pairwise(sizes)):
        tensors[f"layer{i}.weight"] = (rng.normal(size=(members, size, next_size)) / np.sqrt(size)).astype(np.float32)
        tensors[f"layer{i}.bias"] = (rng.normal(size=(members, 1, next_size)) / 10).astype(np.float32)
    tensors |= {"input_mean": rng.normal(size=inputs).astype(np.float32)}
    tensors |= {"input_scale": np.ones(inputs, np.float32), "output_mean": np.zeros(outputs, np.float32)}
    tensors |= {"output_scale": np.full(outputs, 0.5, np.float32)}
    observation = tensors["input_mean"] + rng.uniform(-1, 1, inputs)
    values = torch.from_numpy(observation - tensors["input_mean"]).float()[None, None].expand(members, 1, -1)
    with torch.inference_mode():
        for i in range(len(sizes) - 1):
            values = values @ torch.from_numpy(tensors[f"layer{i}.weight"]) + torch.from_numpy(
                tensors[f"layer{i}.bias"]
            )
            values = torch.relu(values) if i < len(sizes) - 2 else values
        doubt = values[:, 0].std(dim=0, unbiased=False).square().mean().sqrt().item()
        expected = (values[:, 0].mean(dim=0) * 0.5).numpy()
    out = np.zeros(outputs)
    scores = MlpEnsemble(tensors).act(observation, out, NEVER_NS)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert scores.doubt == pytest.approx(doubt, abs=1e-6)
