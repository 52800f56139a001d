"""An ensemble of multilayer perceptrons, evaluated for one observation at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["MlpEnsemble"]

Array = np.ndarray[Any, np.dtype[Any]]


class MlpEnsemble:
    """M networks of equal shape with ReLU between layers; the action is their mean.

    Inputs are normalised with `input_mean` and `input_scale` and outputs scaled back with `output_mean` and
    `output_scale`; both steps are folded into the first and the last layer at load.

    Args:
        tensors: `layer<i>.weight` (M, in, out), `layer<i>.bias` (M, 1, out), and `input_mean`, `input_scale` (O,),
            `output_mean`, `output_scale` (A,): float32 or float64.
    """

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        weights: list[Array] = []
        biases: list[Array] = []
        while f"layer{len(weights)}.weight" in tensors:
            weights.append(tensors[f"layer{len(weights)}.weight"].astype(np.float64))
            biases.append(tensors[f"layer{len(biases)}.bias"].astype(np.float64))
        scale, mean = tensors["input_scale"].astype(np.float64), tensors["input_mean"].astype(np.float64)
        weights[0] = weights[0] / scale[None, :, None]
        biases[0] = biases[0] - (mean[None, None, :] @ weights[0])
        self._output_scale = tensors["output_scale"].astype(np.float64)
        weights[-1] = weights[-1] * self._output_scale
        biases[-1] = biases[-1] * self._output_scale + tensors["output_mean"].astype(np.float64)
        self.members, self.observation_size = weights[0].shape[:2]
        self.action_size = weights[-1].shape[2]
        self._weights = [np.ascontiguousarray(w, np.float32) for w in weights]
        self._biases = [np.ascontiguousarray(b, np.float32) for b in biases]
        self._input = np.zeros((1, 1, self.observation_size), np.float32)
        self._buffers = [np.zeros(b.shape, np.float32) for b in self._biases]

    def act(self, observation: Array, out: Array) -> float:
        """The action for one observation.

        Args:
            observation: (O,) in the contract's order and units. A value that is not finite gives NaN actions.
            out: (A,) float64, the caller keeps it; in the action's units, not limited to its bounds.

        Returns:
            Doubt: the largest standard deviation over members, as a share of half the bound range; 0 with one
            member.
        """
        self._input[0, 0] = observation
        values = self._input
        for i, (weight, bias, buffer) in enumerate(zip(self._weights, self._biases, self._buffers, strict=True)):
            np.matmul(values, weight, out=buffer)
            buffer += bias
            if i < len(self._weights) - 1:
                np.maximum(buffer, 0, out=buffer)
            values = buffer
        actions = values[:, 0]
        out[:] = actions.mean(axis=0)
        if self.members == 1:
            return 0.0
        return float((actions.std(axis=0) / self._output_scale).max())
