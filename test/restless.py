"""A policy that keeps the arm of the peg moving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, RowLayout
from dagger_ros.policy import Checkpoint, save_checkpoint

__all__ = ["restless_policy"]


def restless_policy(folder: Path, contract: Contract) -> Path:
    """A policy of the peg that never rests: the tool goes round above the hole, at the largest speed.

    Each velocity is the clipped sum of a turn around the middle and a pull towards it, so that one or two of the
    three are nearly always at their bound; which ones depends on the observed tool position only. With the lag of
    the arm and of the graph the loop is 0.2 to 0.4 m wide, well within the workspace: tuned with `MujocoPlant` on
    commands that come 0 to 3 ticks late.

    Returns:
        The folder.
    """
    layout = RowLayout(contract)
    columns, actions = layout.columns(), contract.action.dimensions
    middle = {"x": 0.46, "y": 0.0, "z": 0.22}  # m
    turn, pull, lift = 40.0, 12.0, 3.0  # 1/m, share of the largest speed
    slopes = {"vx": {"y": -turn, "x": -pull}, "vy": {"x": turn, "y": -pull}, "vz": {"z": -lift}}
    weight, bias = np.zeros((1, len(columns), 2 * len(actions))), np.zeros((1, 1, 2 * len(actions)))
    out = np.zeros((1, 2 * len(actions), len(actions)))
    for i, action in enumerate(actions):
        for axis, slope in slopes[action].items():
            column = columns.index(f"tool_position.pose.position.{axis}")
            weight[0, column, 2 * i : 2 * i + 2] = slope
            bias[0, 0, 2 * i : 2 * i + 2] -= slope * middle[axis]
        bias[0, 0, 2 * i : 2 * i + 2] += 1.0, -1.0  # relu(u + 1) - relu(u - 1) - 1 is u, clipped to -1 and 1
        out[0, 2 * i : 2 * i + 2, i] = 1.0, -1.0
    tensors: dict[str, Any] = {
        "layer0.weight": weight,
        "layer0.bias": bias,
        "layer1.weight": out,
        "layer1.bias": np.full((1, 1, len(actions)), -1.0),
        "input_mean": np.zeros(len(columns)),
        "input_scale": np.ones(len(columns)),
        "output_mean": np.zeros(len(actions)),
        "output_scale": np.array([d.upper for d in contract.action.dimensions_]),
    }
    about = Checkpoint("pi_restless", 0, contract.sha256, 0, columns, actions, (), {})
    save_checkpoint(folder, about, {k: v.astype(np.float32) for k, v in tensors.items()})
    return folder
