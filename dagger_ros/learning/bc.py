"""Behaviour cloning: least squares from observations to expert actions, with torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from dagger_ros.contract import Contract, DaggerError, RowLayout
from dagger_ros.learning.batches import Batches, chunk_targets, learned_frames
from dagger_ros.learning.descent import LeastSquares
from dagger_ros.learning.network import Array, Perceptrons
from dagger_ros.learning.novelty import novelty_tensors
from dagger_ros.learning.origins import Kind, Origins
from dagger_ros.learning.settings import TrainingSettings
from dagger_ros.policy import Checkpoint
from dagger_ros.policy.outside import need_cuda

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Args:
        tensors: For `policy.MlpEnsemble`.
        loss: Mean squared error at the end, in half bound ranges squared.
        held_out: (N, A) what the members that had not seen a frame make of it, in the action's units; all members
            where each has seen it. What those saw that the weights were started from does not count.
        about: What is to be said of it in `policy.json` beside the settings.
    """

    tensors: dict[str, Array]
    loss: float
    held_out: Array
    about: dict[str, Any]


def train(
    contract: Contract,
    observations: Array,
    labels: Array,
    settings: TrainingSettings,
    *,
    seed: int,
    origins: Origins | None = None,
    validation: tuple[Array, Array] | None = None,
    previous: tuple[Checkpoint, Mapping[str, Array]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Trains an ensemble.

    Args:
        contract: Gives resolutions and bounds, the scales of normalisation.
        observations: (N, O) in the contract's order and units.
        labels: (N, A) in the contract's order and units.
        settings: How.
        seed: Of first weights and of batches; the same seed and data give the same weights on one machine.
        origins: Where the frames come from; needed by some settings.
        validation: Observations and labels that are not learned from, by which a training may be stopped; None, or of
            no frame: there are none, and it takes all its steps.
        previous: The policy before, as `policy.read_checkpoint` gives it: where `settings.start` says so, its weights
            are started from. Where it is None, as for the first policy, new ones are.
        progress: Called with the number of steps that were done since the last call.

    Raises:
        DaggerError: If there is nothing to learn from, or it is not finite; if the settings ask for what is not there.
    """
    settings.check(contract)
    _check("training", observations, labels)
    device = settings.device
    if device == "cuda":
        need_cuda("device", "device cpu")
    learned, first = learned_frames(len(labels), origins, settings)
    torch.set_num_threads(settings.threads)
    generator = torch.Generator().manual_seed(seed)
    scales = _Scales(contract, observations[learned])
    targets, weights = _targets(scales.share(labels), learned, origins, settings)
    sizes = (observations.shape[1], *settings.hidden, targets.shape[1])
    network = Perceptrons(settings.members, sizes, generator, device)
    started_from = ""
    if settings.start == "previous" and previous is not None:
        started_from = previous[0].weights_sha256
        network.take(_renormalised(*previous, scales, settings.members, sizes))
    if device != "cpu":
        generator = torch.Generator(device).manual_seed(seed)

    def moved(values: Array) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    inputs = scales.inputs(observations)
    batches = Batches(
        moved(inputs[learned]),
        moved(targets),
        None if weights is None else moved(weights),
        first=first,
        noise=moved(settings.input_noise * scales.resolution / scales.scale),
        settings=settings,
        generator=generator,
    )
    fit = LeastSquares(
        network,
        settings.batch,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        weighted=weights is not None,
        products=settings.products,
    )
    watch = _Validation(network, scales, validation, settings)
    steps = 0
    while steps < settings.steps and not watch.stops(steps):
        batches.fill(fit)
        fit.step()
        steps += 1
        if progress is not None:
            progress(1)
    best_step = watch.keep_best(steps)
    with torch.no_grad():
        predicted = network(moved(inputs)[None])[..., : labels.shape[1]].cpu().numpy()
    seen = None if batches.drawn is None else learned[batches.drawn.cpu().numpy()]
    held_out = scales.actions(_held_out(predicted, seen))
    tensors = network.tensors() | scales.tensors() | novelty_tensors(inputs[learned].astype(np.float32))
    about = {
        "loss": fit.loss,
        "validation_loss": watch.loss() if watch.frames else None,
        "validation_frames": watch.frames,
        "steps_taken": steps,
        "best_step": best_step,
        "started_from": started_from,
        "frames": _counts(learned, origins, len(labels)),
        "torch": torch.__version__,
    }
    return Trained(tensors, fit.loss, held_out, about)


class _Scales:
    """What is normalised by: inputs by the data, outputs by the bounds of the action."""

    def __init__(self, contract: Contract, observations: Array) -> None:
        self.resolution = RowLayout(contract).resolution()
        self.mean = observations.mean(axis=0)
        self.scale = observations.std(axis=0) + self.resolution
        lower = np.array([d.lower for d in contract.action.dimensions_])
        upper = np.array([d.upper for d in contract.action.dimensions_])
        self.middle, self.half_range = (lower + upper) / 2, (upper - lower) / 2

    def inputs(self, observations: Array) -> Array:
        result: Array = (observations - self.mean) / self.scale
        return result

    def share(self, actions: Array) -> Array:
        result: Array = (actions - self.middle) / self.half_range
        return result

    def actions(self, share: Array) -> Array:
        result: Array = share * self.half_range + self.middle
        return result

    def tensors(self) -> dict[str, Array]:
        values = {
            "input_mean": self.mean,
            "input_scale": self.scale,
            "output_mean": self.middle,
            "output_scale": self.half_range,
        }
        return {name: value.astype(np.float32) for name, value in values.items()}


class _Validation:
    """Looks now and then at frames that are not learned from, and keeps the weights that were best there."""

    def __init__(
        self,
        network: Perceptrons,
        scales: _Scales,
        validation: tuple[Array, Array] | None,
        settings: TrainingSettings,
    ) -> None:
        self._network, self._settings = network, settings
        self.frames = 0 if validation is None else len(validation[1])
        self._best_loss, self._best_step = np.inf, 0
        self._best = network.flat.clone()
        if validation is not None and self.frames:
            _check("validation", *validation)
            device = network.flat.device
            self._inputs = torch.tensor(scales.inputs(validation[0]), dtype=torch.float32, device=device)
            self._targets = torch.tensor(scales.share(validation[1]), dtype=torch.float32, device=device)

    @torch.no_grad()
    def loss(self) -> float:
        """Mean squared error of the mean of the members, for the action of the tick, in half bound ranges squared."""
        actions = self._network(self._inputs[None]).mean(dim=0)[:, : self._targets.shape[1]]
        return float(((actions - self._targets) ** 2).mean())

    def stops(self, step: int) -> bool:
        """Whether training is to stop after a step."""
        settings = self._settings
        if not (settings.validation_patience and self.frames and step and step % settings.evaluate_every == 0):
            return False
        self._look(step)
        return step - self._best_step >= settings.validation_patience * settings.evaluate_every

    @torch.no_grad()
    def keep_best(self, step: int) -> int:
        """Goes back to the best weights where training may be stopped, and tells the step that they are of."""
        if not (self._settings.validation_patience and self.frames):
            return step
        self._look(step)
        self._network.flat.copy_(self._best)
        return self._best_step

    def _look(self, step: int) -> None:
        loss = self.loss()
        if loss < self._best_loss or not self._best_step:
            self._best_loss, self._best_step = loss, step
            self._best.copy_(self._network.flat)


def _check(what: str, observations: Array, labels: Array) -> None:
    if len(observations) == 0 or len(observations) != len(labels):
        raise DaggerError(f"{what}: expected as many labels as frames, and at least one; got {len(labels)}")
    if not (np.isfinite(observations).all() and np.isfinite(labels).all()):
        raise DaggerError(f"{what}: expected finite observations and labels, got NaN or infinity")


def _targets(
    labels: Array, learned: Array, origins: Origins | None, settings: TrainingSettings
) -> tuple[Array, Array | None]:
    """(K, J) what the network is to give, and (K, J) how much each of it weighs; None: all the same."""
    if origins is None:
        return labels[learned], None
    targets, there = chunk_targets(labels, origins.follows, settings.horizon)
    weights = there * np.where(origins.kind == Kind.CORRECTION, settings.correction_weight, 1.0)[:, None]
    targets, weights = targets[learned].reshape(len(learned), -1), weights[learned]
    if (weights == weights[0, 0]).all():
        return targets, None
    # Their mean is 1, so that the size of the loss is what it would be without them.
    return targets, np.repeat(weights / weights.mean(), labels.shape[1], axis=1)


def _held_out(predicted: Array, seen: Array | None) -> Array:
    """(N, A): the mean of the members (M, N, A) that have not seen a frame, of which (M, K) says where it lies."""
    unseen = np.ones(predicted.shape[:2], bool)
    if seen is not None:
        unseen[np.arange(len(seen))[:, None], seen] = False
        unseen[:, ~unseen.any(axis=0)] = True
    result: Array = np.average(predicted, axis=0, weights=np.broadcast_to(unseen[..., None], predicted.shape))
    return result


def _renormalised(
    about: Checkpoint, tensors: Mapping[str, Array], scales: _Scales, members: int, sizes: tuple[int, ...]
) -> dict[str, Array]:
    """The layers of a policy that give the same for inputs normalised by other data."""
    layers = {name: values.astype(np.float64) for name, values in tensors.items() if name.startswith("layer")}
    found = [layers[name].shape for name in sorted(layers) if name.endswith("weight")]
    expected = [(members, inputs, outputs) for inputs, outputs in pairwise(sizes)]
    if found != expected:
        raise DaggerError(
            f"start: expected {about.name}, whose weights are to be started from, to have weights {expected} "
            f"(members, inputs, outputs of each layer), as these settings say; it has {found}. Give the settings that "
            "it was trained with, or start from scratch"
        )
    mean, scale = tensors["input_mean"].astype(np.float64), tensors["input_scale"].astype(np.float64)
    first = layers["layer0.weight"]
    layers["layer0.bias"] = layers["layer0.bias"] + ((scales.mean - mean) / scale)[None, None] @ first
    layers["layer0.weight"] = first * (scales.scale / scale)[None, :, None]
    return layers


def _counts(learned: Array, origins: Origins | None, count: int) -> dict[str, int]:
    """How many frames of each kind were learned from, and how many were left out."""
    counts = {"learned": len(learned), "left_out": count - len(learned)}
    if origins is not None:
        kinds = origins.kind[learned]
        counts |= {kind.name.lower(): int((kinds == kind).sum()) for kind in Kind}
    return counts
