"""Multilayer perceptrons of equal shape, evaluated together for one input at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Array", "Mlp", "aligned"]

Array = np.ndarray[Any, np.dtype[Any]]

# A row of weights that begins with a cache line is read in a fifth less time (AVX-512, weights that fill no cache).
_ALIGNMENT = 64


def aligned(values: Array) -> Array:
    """A copy in float32 that begins with a cache line."""
    size = 4 * values.size
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy: Array = memory[start : start + size].view(np.float32).reshape(values.shape)
    copy[...] = values
    return copy


class Mlp:
    """M networks with ReLU between layers, for one input that all of them see.

    The normalisation of the input is folded into the first layer, and the first layers of all networks are one matrix,
    whose last row is their bias.

    Args:
        tensors: Among others `<prefix>layer<i>.weight` (M, in, out) and `<prefix>layer<i>.bias` (M, 1, out).
        prefix: Of their names.
        mean: (I,) is subtracted from the input.
        scale: (I,) which is divided by it then.

    Attributes:
        members: M.
        inputs: I.
        outputs: J.

    Raises:
        KeyError: If a tensor is missing.
        ValueError: If their shapes do not fit.
    """

    def __init__(self, tensors: Mapping[str, Array], prefix: str, *, mean: Array, scale: Array) -> None:
        weights: list[Array] = []
        biases: list[Array] = []
        while f"{prefix}layer{len(weights)}.weight" in tensors:
            weights.append(tensors[f"{prefix}layer{len(weights)}.weight"].astype(np.float64))
            biases.append(tensors[f"{prefix}layer{len(biases)}.bias"].astype(np.float64))
        weights[0] = weights[0] / scale[None, :, None]
        biases[0] = biases[0] - (mean[None, None, :] @ weights[0])
        self.members, self.inputs = weights[0].shape[:2]
        self.outputs = weights[-1].shape[2]
        first = np.concatenate([weights[0], biases[0]], axis=1)  # (M, I + 1, out)
        self._first = aligned(first.transpose(1, 0, 2).reshape(self.inputs + 1, -1))
        self._input = aligned(np.ones(self.inputs + 1))
        buffers = [aligned(np.zeros(bias.shape)) for bias in biases]
        self._flat = buffers[0].reshape(-1)
        # Of each further layer: input, weight, output, bias.
        self._layers = [
            (buffers[i - 1], aligned(weights[i]), buffers[i], aligned(biases[i])) for i in range(1, len(weights))
        ]
        # Of the shape of what it is compared with: a single number would be slower.
        self._zeros = [np.zeros_like(buffer) for buffer in buffers]
        self._output = buffers[-1].reshape(self.members, self.outputs)

    def __call__(self, *parts: Array) -> Array:
        """What every network says.

        Args:
            parts: Together (I,); a value that is not finite gives none that is.

        Returns:
            (M, J) float32, valid until the next call.
        """
        start = 0
        for part in parts:
            end = start + len(part)
            self._input[start:end] = part
            start = end
        self._input.dot(self._first, self._flat)
        for (values, weight, out, bias), zeros in zip(self._layers, self._zeros, strict=False):
            np.maximum(values, zeros, out=values)
            np.matmul(values, weight, out=out)
            np.add(out, bias, out=out)
        return self._output
