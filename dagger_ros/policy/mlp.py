"""Multilayer perceptrons of equal shape, evaluated together for one input at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Array", "Mlp"]

Array = np.ndarray[Any, np.dtype[Any]]

_NOTHING, _ONE = np.zeros(1), np.ones(1)


class Mlp:
    """M networks with ReLU between layers. The normalisation of their input is folded into the first layer.

    Args:
        tensors: Among others `<prefix>layer<i>.weight` (M, in, out) and `<prefix>layer<i>.bias` (M, 1, out).
        prefix: Of their names.
        mean: (I,) is subtracted from the input.
        scale: (I,) which is divided by it then.
        output_mean: (K,) is added to the output, J / K times one after the other.
        output_scale: (K,) which is multiplied by it before.

    Raises:
        KeyError: If a tensor is missing.
        ValueError: If their shapes do not fit.
    """

    def __init__(
        self,
        tensors: Mapping[str, Array],
        prefix: str,
        *,
        mean: Array,
        scale: Array,
        output_mean: Array = _NOTHING,
        output_scale: Array = _ONE,
    ) -> None:
        weights: list[Array] = []
        biases: list[Array] = []
        while f"{prefix}layer{len(weights)}.weight" in tensors:
            weights.append(tensors[f"{prefix}layer{len(weights)}.weight"].astype(np.float64))
            biases.append(tensors[f"{prefix}layer{len(biases)}.bias"].astype(np.float64))
        weights[0] = weights[0] / scale[None, :, None]
        biases[0] = biases[0] - (mean[None, None, :] @ weights[0])
        repeats = weights[-1].shape[2] // len(output_scale)
        output_mean, output_scale = np.tile(output_mean, repeats), np.tile(output_scale, repeats)
        weights[-1] = weights[-1] * output_scale
        biases[-1] = biases[-1] * output_scale + output_mean
        self.members, self.inputs = weights[0].shape[:2]
        self.outputs = weights[-1].shape[2]
        self._weights = [np.ascontiguousarray(w, np.float32) for w in weights]
        self._biases = [np.ascontiguousarray(b, np.float32) for b in biases]
        self._input = np.zeros((1, 1, self.inputs), np.float32)
        self._buffers = [np.zeros(b.shape, np.float32) for b in self._biases]

    def __call__(self, *parts: Array) -> Array:
        """What every network says.

        Args:
            parts: Together (I,); a value that is not finite gives none that is.

        Returns:
            (M, J) float32, valid until the next call.
        """
        start = 0
        for part in parts:
            self._input[0, 0, start : start + len(part)] = part
            start += len(part)
        values = self._input
        for i, (weight, bias, buffer) in enumerate(zip(self._weights, self._biases, self._buffers, strict=True)):
            np.matmul(values, weight, out=buffer)
            buffer += bias
            if i < len(self._weights) - 1:
                np.maximum(buffer, 0, out=buffer)
            values = buffer
        return values[:, 0]
