"""An ensemble of perceptrons as a policy: an action and its scores for one observation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dagger_ros.contract import Scores
from dagger_ros.policy.chunks import ChunkMemory
from dagger_ros.policy.mlp import Array, Mlp, aligned

__all__ = ["MlpEnsemble"]


class MlpEnsemble:
    """M networks whose mean is the action, with what is known of how sure they are.

    Args:
        tensors: `layer<i>.weight` and `layer<i>.bias` of the ensemble; `input_mean`, `input_scale` (O,),
            `output_mean`, `output_scale` (A,). The ensemble has H A outputs, the actions of a chunk one after the
            other; H is 1 where it gives only that of its tick. Where they were fitted also `novelty.reference` (K, O),
            normalised observations, and `novelty.unit` (1,); `deviation.layer<i>.*`, a network from observations to
            the logit of deviating; and `risk.layer<i>.*`, networks from observations and actions to logits of success.
            float32 or float64.
        memory: Of chunks; None: the action is always the first one of the newest chunk.

    Attributes:
        horizon: H.

    Raises:
        KeyError: If a tensor is missing.
        ValueError: If their shapes do not fit.
    """

    def __init__(self, tensors: Mapping[str, Array], memory: ChunkMemory | None = None) -> None:
        mean, scale = tensors["input_mean"].astype(np.float64), tensors["input_scale"].astype(np.float64)
        middle, half = tensors["output_mean"].astype(np.float64), tensors["output_scale"].astype(np.float64)
        self._middle, self._half = middle, half
        self._lower, self._upper = middle - half, middle + half
        self._actor = Mlp(tensors, "", mean=mean, scale=scale)
        members, size = self._actor.members, len(middle)
        self.observation_size, self.action_size = self._actor.inputs, size
        self.horizon, self._memory = self._actor.outputs // size, memory
        self._shares = np.full(members, 1.0 / members, np.float32)
        self._mean = np.zeros(self._actor.outputs, np.float32)
        self._first_mean = self._mean[:size]
        self._chunk = np.zeros((self.horizon, size))
        self._apart = np.zeros((members, size), np.float32)
        self._apart_flat = self._apart.reshape(-1)
        self._bounded = np.zeros(size)
        self._deviation = self._risk = self._novelty = None
        if "deviation.layer0.weight" in tensors:
            self._deviation = Mlp(tensors, "deviation.", mean=mean, scale=scale)
        if "risk.layer0.weight" in tensors:
            both = np.concatenate([mean, middle]), np.concatenate([scale, half])
            self._risk = Mlp(tensors, "risk.", mean=both[0], scale=both[1])
        if "novelty.reference" in tensors:
            self._novelty = _Novelty(tensors, mean, scale)

    def start_episode(self) -> None:
        """Forgets the chunks of the last one."""
        if self._memory is not None:
            self._memory.clear()

    def act(self, observation: Array, out: Array, stamp_ns: int) -> Scores:
        """The action for one observation, and how sure it is.

        Args:
            observation: (O,) in the contract's order and units. A value that is not finite gives NaN actions.
            out: (A,) float64, the caller keeps it; in the action's units, not limited to its bounds.
            stamp_ns: Of the newest value in the observation, ns; -1: nothing was received yet.

        Returns:
            Doubt about the first action of the newest chunk, and what of novelty, deviation and risk was fitted.
        """
        chunks = self._actor(observation)
        self._shares.dot(chunks, self._mean)
        if self._memory is None:
            np.multiply(self._first_mean, self._half, out=out)
            np.add(out, self._middle, out=out)
        else:
            np.multiply(self._mean.reshape(self._chunk.shape), self._half, out=self._chunk)
            np.add(self._chunk, self._middle, out=self._chunk)
            self._memory.propose(self._chunk, stamp_ns, out)
        doubt = 0.0
        if len(chunks) > 1:
            np.subtract(chunks[:, : self.action_size], self._first_mean, out=self._apart)
            doubt = math.sqrt(float(self._apart_flat.dot(self._apart_flat)) / self._apart_flat.size)
        novelty = deviation = risk = math.nan
        if self._novelty is not None:
            novelty = self._novelty(observation)
        if self._deviation is not None:
            deviation = _sigmoid(self._deviation(observation)[0, 0].item())
        if self._risk is not None:
            np.maximum(out, self._lower, out=self._bounded)
            np.minimum(self._bounded, self._upper, out=self._bounded)
            risk = 1.0 - _sigmoid(self._risk(observation, self._bounded).min().item())
        return Scores(doubt, novelty, deviation, risk)


class _Novelty:
    """How far an observation is from the nearest one that was trained on.

    Args:
        tensors: `novelty.reference` (K, O), normalised, and `novelty.unit` (1,).
        mean: (O,) is subtracted from an observation.
        scale: (O,) which is divided by it then.
    """

    def __init__(self, tensors: Mapping[str, Array], mean: Array, scale: Array) -> None:
        reference = tensors["novelty.reference"].astype(np.float32)
        self._mean, self._scale, self._unit = mean, scale, tensors["novelty.unit"].item()
        self._norms = (reference**2).sum(axis=1)
        self._twice = aligned(-2.0 * reference)
        self._distance = np.zeros_like(self._norms)
        self._moved, self._place = np.zeros(len(mean)), np.zeros(len(mean), np.float32)

    def __call__(self, observation: Array) -> float:
        """In units of the data, for (O,) float64; NaN if a value is not finite."""
        np.subtract(observation, self._mean, out=self._moved)
        np.divide(self._moved, self._scale, out=self._moved)
        self._place[:] = self._moved
        # |a - b|^2 = |a|^2 - 2 a b + |b|^2, for all of the reference in one product.
        self._twice.dot(self._place, self._distance)
        np.add(self._distance, self._norms, out=self._distance)
        nearest = self._distance[self._distance.argmin()].item()  # the first that is not a number, if there is one
        squared = nearest + self._place.dot(self._place).item()
        return math.sqrt(squared) / self._unit if squared > 0 else 0.0 if squared <= 0 else math.nan


def _sigmoid(logit: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * logit))
