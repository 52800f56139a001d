"""Behaviour cloning: least squares from observations to expert actions, with torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from dagger_ros.contract import Contract, DaggerError, RowLayout

__all__ = ["TrainingSettings", "train"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TrainingSettings:
    """How a policy is trained.

    Args:
        members: Networks in the ensemble; each sees its own order of batches from its own first weights.
        hidden: Units of each hidden layer.
        steps: Gradient steps.
        batch: Frames in a batch of one member.
        learning_rate: Adam's, at the start; it falls to 0 along a cosine.
        weight_decay: Adam's.
        input_noise: Standard deviation of noise on the inputs, in resolutions of the contract: a policy should
            not react to what its sensors cannot tell apart.
        threads: Of torch. One is fastest for networks of this size (research: 3 to 20 times).
    """

    members: int = 2
    hidden: tuple[int, ...] = (256, 256)
    steps: int = 4000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    input_noise: float = 0.5
    threads: int = 1


def train(
    contract: Contract,
    observations: Array,
    labels: Array,
    settings: TrainingSettings,
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Array], float]:
    """Trains an ensemble from nothing.

    Args:
        contract: Gives resolutions and bounds, the scales of normalisation.
        observations: (N, O) in the contract's order and units.
        labels: (N, A) in the contract's order and units.
        settings: How.
        seed: Of first weights and of batches; the same seed and data give the same weights on one machine.
        progress: Called with the number of steps that were done since the last call.

    Returns:
        Tensors for `MlpEnsemble`, and the mean squared error at the end, in half bound ranges squared.

    Raises:
        DaggerError: If there is nothing to learn from, or it is not finite.
    """
    if len(observations) == 0 or len(observations) != len(labels):
        raise DaggerError(f"training: expected as many labels as frames, and at least one; got {len(labels)}")
    if not (np.isfinite(observations).all() and np.isfinite(labels).all()):
        raise DaggerError("training: expected finite observations and labels, got NaN or infinity")
    torch.set_num_threads(settings.threads)
    generator = torch.Generator().manual_seed(seed)
    resolution = RowLayout(contract).resolution()
    mean = observations.mean(axis=0)
    scale = observations.std(axis=0) + resolution
    lower = np.array([d.lower for d in contract.action.dimensions_])
    upper = np.array([d.upper for d in contract.action.dimensions_])
    middle, half_range = (lower + upper) / 2, (upper - lower) / 2
    inputs = torch.tensor((observations - mean) / scale, dtype=torch.float32)
    targets = torch.tensor((labels - middle) / half_range, dtype=torch.float32)
    noise = torch.tensor(settings.input_noise * resolution / scale, dtype=torch.float32)
    network = _Network(settings.members, (inputs.shape[1], *settings.hidden, targets.shape[1]), generator)
    optimizer = torch.optim.Adam(
        network.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    loss = torch.zeros(())
    for _ in range(settings.steps):
        index = torch.randint(0, len(inputs), (settings.members, settings.batch), generator=generator)
        batch = inputs[index]
        if settings.input_noise:
            batch = batch + noise * torch.randn(batch.shape, generator=generator)
        # The sum over members, so that each one learns as it would alone.
        loss = ((network(batch) - targets[index]) ** 2).mean(dim=(1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(1)
    tensors = network.tensors() | {
        "input_mean": mean.astype(np.float32),
        "input_scale": scale.astype(np.float32),
        "output_mean": middle.astype(np.float32),
        "output_scale": half_range.astype(np.float32),
    }
    return tensors, float(loss.detach()) / settings.members


class _Network:
    """M perceptrons in one pass: (M, B, O) -> (M, B, A)."""

    def __init__(self, members: int, sizes: tuple[int, ...], generator: torch.Generator) -> None:
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
        return [*self.weights, *self.biases]

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, values, weight)
            if i < len(self.weights) - 1:
                values = torch.relu(values)
        return values

    def tensors(self) -> dict[str, Array]:
        result = {}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            result[f"layer{i}.weight"] = weight.detach().numpy()
            result[f"layer{i}.bias"] = bias.detach().numpy()
        return result
