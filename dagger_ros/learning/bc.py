"""Behaviour cloning: least squares from observations to expert actions, with torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from dagger_ros.contract import Contract, DaggerError, RowLayout
from dagger_ros.learning.network import Array, Perceptrons, minimise
from dagger_ros.learning.novelty import novelty_tensors

__all__ = ["Trained", "TrainingSettings", "train"]


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
        bootstrap: Each member learns from frames drawn with replacement, so that the others can be asked how well
            the policy does on what it has not seen.
    """

    members: int = 5
    hidden: tuple[int, ...] = (256, 256)
    steps: int = 4000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    input_noise: float = 0.5
    threads: int = 1
    bootstrap: bool = True


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Args:
        tensors: For `policy.MlpEnsemble`.
        loss: Mean squared error at the end, in half bound ranges squared.
        held_out: (N, A) what the members that had not seen a frame make of it, in the action's units; all members
            where each has seen it.
    """

    tensors: dict[str, Array]
    loss: float
    held_out: Array


def train(
    contract: Contract,
    observations: Array,
    labels: Array,
    settings: TrainingSettings,
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Trains an ensemble from nothing.

    Args:
        contract: Gives resolutions and bounds, the scales of normalisation.
        observations: (N, O) in the contract's order and units.
        labels: (N, A) in the contract's order and units.
        settings: How.
        seed: Of first weights and of batches; the same seed and data give the same weights on one machine.
        progress: Called with the number of steps that were done since the last call.

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
    members, count = settings.members, len(inputs)
    network = Perceptrons(members, (inputs.shape[1], *settings.hidden, targets.shape[1]), generator)
    drawn = torch.randint(0, count, (members, count), generator=generator) if settings.bootstrap else None

    def loss() -> torch.Tensor:
        index = torch.randint(0, count, (members, settings.batch), generator=generator)
        if drawn is not None:
            index = drawn.gather(1, index)
        batch = inputs[index]
        if settings.input_noise:
            batch = batch + noise * torch.randn(batch.shape, generator=generator)
        # The sum over members, so that each one learns as it would alone.
        return ((network(batch) - targets[index]) ** 2).mean(dim=(1, 2)).sum()

    last = minimise(
        network,
        loss,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        progress=progress,
    )
    with torch.no_grad():
        predicted = network(inputs[None]).numpy()
    unseen = np.ones((members, count), bool)
    if drawn is not None:
        unseen[np.arange(members)[:, None], drawn.numpy()] = False
        unseen[:, ~unseen.any(axis=0)] = True
    held_out = np.average(predicted, axis=0, weights=np.broadcast_to(unseen[..., None], predicted.shape))
    tensors = network.tensors() | {
        "input_mean": mean.astype(np.float32),
        "input_scale": scale.astype(np.float32),
        "output_mean": middle.astype(np.float32),
        "output_scale": half_range.astype(np.float32),
    }
    tensors |= novelty_tensors(inputs.numpy())
    return Trained(tensors, last / members, held_out * half_range + middle)
