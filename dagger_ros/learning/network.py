"""Perceptrons in torch that are trained side by side, and the loop that trains them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

__all__ = ["Array", "Perceptrons", "minimise"]

Array = np.ndarray[Any, np.dtype[Any]]


class Perceptrons:
    """M perceptrons in one pass: (M, B, I) or (1, B, I) -> (M, B, J).

    Args:
        members: M.
        sizes: I, hidden layers, J.
        generator: Draws the first weights.
    """

    def __init__(self, members: int, sizes: tuple[int, ...], generator: torch.Generator) -> None:
        self.members = members
        self.weights, self.biases = [], []
        for inputs, outputs in pairwise(sizes):
            # The initialisation of torch.nn.Linear: uniform within 1 / sqrt(inputs).
            bound = 1 / math.sqrt(inputs)
            weight = torch.empty(members, inputs, outputs).uniform_(-bound, bound, generator=generator)
            bias = torch.empty(members, 1, outputs).uniform_(-bound, bound, generator=generator)
            self.weights.append(weight.requires_grad_())
            self.biases.append(bias.requires_grad_())

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All that is trained."""
        return [*self.weights, *self.biases]

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """What each says of its inputs."""
        values = values.expand(self.members, -1, -1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, values, weight)
            if i < len(self.weights) - 1:
                values = torch.relu(values)
        return values

    def follow(self, other: Perceptrons, share: float) -> None:
        """Moves a share of the way to others of the same sizes."""
        with torch.no_grad():
            for mine, theirs in zip(self.parameters, other.parameters, strict=True):
                mine.lerp_(theirs, share)

    def tensors(self, prefix: str = "") -> dict[str, Array]:
        """As `policy.Mlp` takes them."""
        result = {}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            result[f"{prefix}layer{i}.weight"] = weight.detach().numpy()
            result[f"{prefix}layer{i}.bias"] = bias.detach().numpy()
        return result


def minimise(
    network: Perceptrons,
    loss: Callable[[], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    progress: Callable[[int], None] | None = None,
) -> float:
    """Takes gradient steps with Adam; its learning rate falls to 0 along a cosine.

    Args:
        network: Whose parameters move.
        loss: Of a new batch.
        steps: How many.
        learning_rate: At the start.
        weight_decay: Adam's.
        progress: Called with 1 after each step.

    Returns:
        The loss of the last batch.
    """
    optimizer = torch.optim.Adam(network.parameters, lr=learning_rate, weight_decay=weight_decay, foreach=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    value = torch.zeros(())
    for _ in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(1)
    return float(value.detach())
