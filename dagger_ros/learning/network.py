"""Perceptrons in torch that are trained side by side, and the loop that trains them on any loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch

from dagger_ros.policy.mlp import Array

__all__ = ["Array", "Perceptrons", "minimise"]

# Numbers of 4 bytes in a cache line: products of matrices are quickest, and round the same, where each begins with one.
_LINE = 16


class Perceptrons:
    """M perceptrons in one pass: (M, B, I) or (1, B, I) -> (M, B, J).

    Args:
        members: M.
        sizes: I, hidden layers, J.
        generator: Draws the first weights, on the cpu whatever the device.
        device: Where the weights are.

    Attributes:
        flat: Every parameter one after the other, with some zeros between; `weights` and `biases` are views of it.
    """

    def __init__(
        self, members: int, sizes: tuple[int, ...], generator: torch.Generator, device: str | torch.device = "cpu"
    ) -> None:
        self.members, self.sizes = members, sizes
        counts = [members * rows * outputs for inputs, outputs in pairwise(sizes) for rows in (inputs, 1)]
        flat = torch.zeros(sum(_rounded(count) for count in counts))
        for inputs, (weight, bias) in zip(sizes, self.split(flat), strict=False):
            # The initialisation of torch.nn.Linear: uniform within 1 / sqrt(inputs).
            bound = 1 / math.sqrt(inputs)
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
        self.flat = flat.to(device)
        layers = self.split(self.flat)
        self.weights = [weight.requires_grad_() for weight, _ in layers]
        self.biases = [bias.requires_grad_() for _, bias in layers]

    def split(self, flat: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Views of numbers that lie as in `flat`: (M, in, out) and (M, 1, out) for each layer."""
        layers, start = [], 0
        for inputs, outputs in pairwise(self.sizes):
            parts = []
            for rows in (inputs, 1):
                count = self.members * rows * outputs
                parts.append(flat[start : start + count].view(self.members, rows, outputs))
                start += _rounded(count)
            layers.append((parts[0], parts[1]))
        return layers

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
        """As `policy.Mlp` takes them: copies."""
        result = {}
        for i, parts in enumerate(zip(self.weights, self.biases, strict=True)):
            for name, values in zip(("weight", "bias"), parts, strict=True):
                result[f"{prefix}layer{i}.{name}"] = values.detach().cpu().numpy().copy()
        return result

    def take(self, tensors: Mapping[str, Array]) -> None:
        """Goes on from what `tensors` gave, of perceptrons of the same sizes."""
        with torch.no_grad():
            for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                weight.copy_(torch.from_numpy(tensors[f"layer{i}.weight"]))
                bias.copy_(torch.from_numpy(tensors[f"layer{i}.bias"]))


def _rounded(count: int) -> int:
    return -(-count // _LINE) * _LINE


def minimise(
    network: Perceptrons,
    loss: Callable[[], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """Takes gradient steps with Adam; its learning rate falls to 0 along a cosine.

    Args:
        network: Whose parameters move.
        loss: Of a new batch.
        steps: How many.
        learning_rate: At the start.
        weight_decay: Adam's.
    """
    optimizer = torch.optim.Adam(network.parameters, lr=learning_rate, weight_decay=weight_decay, foreach=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
