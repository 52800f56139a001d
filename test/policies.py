"""Policies of random weights, and what they say written out."""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract import Contract, RowLayout

__all__ = ["plain", "random_tensors"]


def random_tensors(contract: Contract, members: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    layout = RowLayout(contract)
    sizes = (layout.observation_size, 16, 16, layout.action_size)
    tensors: dict[str, Any] = {}
    for i in range(3):
        tensors[f"layer{i}.weight"] = rng.normal(size=(members, sizes[i], sizes[i + 1])).astype(np.float32) / 4
        tensors[f"layer{i}.bias"] = rng.normal(size=(members, 1, sizes[i + 1])).astype(np.float32)
    tensors["input_mean"] = rng.normal(size=sizes[0]).astype(np.float32)
    tensors["input_scale"] = rng.uniform(0.5, 2, sizes[0]).astype(np.float32)
    tensors["output_mean"] = rng.normal(size=sizes[-1]).astype(np.float32)
    tensors["output_scale"] = rng.uniform(0.5, 2, sizes[-1]).astype(np.float32)
    return tensors


def plain(tensors: dict[str, Any], observation: Any) -> Any:
    """(M, A): every member written out, in float64."""
    values = ((observation - tensors["input_mean"]) / tensors["input_scale"])[None, None, :]
    for i in range(3):
        values = values @ tensors[f"layer{i}.weight"].astype(np.float64) + tensors[f"layer{i}.bias"]
        values = np.maximum(values, 0) if i < 2 else values
    return values[:, 0] * tensors["output_scale"] + tensors["output_mean"]
