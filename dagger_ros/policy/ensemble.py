"""An ensemble of perceptrons as a policy: an action and its scores for one observation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dagger_ros.contract import Scores
from dagger_ros.policy.chunks import ChunkMemory
from dagger_ros.policy.mlp import Array, Mlp

__all__ = ["MlpEnsemble", "nearest_distance"]


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
        scale, mean = tensors["input_scale"].astype(np.float64), tensors["input_mean"].astype(np.float64)
        half_range, middle = tensors["output_scale"].astype(np.float64), tensors["output_mean"].astype(np.float64)
        self._half_range, self._mean, self._scale = half_range, mean, scale
        self._lower, self._upper = middle - half_range, middle + half_range
        self._actor = Mlp(tensors, "", mean=mean, scale=scale, output_mean=middle, output_scale=half_range)
        self.observation_size, self.action_size = self._actor.inputs, len(middle)
        self.horizon, self._memory = self._actor.outputs // self.action_size, memory
        self._deviation = self._risk = None
        if "deviation.layer0.weight" in tensors:
            self._deviation = Mlp(tensors, "deviation.", mean=mean, scale=scale)
        if "risk.layer0.weight" in tensors:
            both = np.concatenate([mean, middle]), np.concatenate([scale, half_range])
            self._risk = Mlp(tensors, "risk.", mean=both[0], scale=both[1])
        self._reference = tensors.get("novelty.reference")
        if self._reference is not None:
            self._reference = np.ascontiguousarray(self._reference, np.float32)
            self._norms = (self._reference**2).sum(axis=1)
            self._unit = tensors["novelty.unit"].item()

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
        actions = chunks[:, : self.action_size]
        if self._memory is None:
            out[:] = actions.mean(axis=0)
        else:
            self._memory.propose(chunks.mean(axis=0).reshape(self.horizon, self.action_size), stamp_ns, out)
        doubt = 0.0
        if len(actions) > 1:
            spread = actions.std(axis=0) / self._half_range
            doubt = math.sqrt(float(spread @ spread) / len(spread))
        novelty = deviation = risk = np.nan
        if self._reference is not None:
            place = ((observation - self._mean) / self._scale).astype(np.float32)
            novelty = nearest_distance(self._reference, self._norms, place) / self._unit
        if self._deviation is not None:
            deviation = _sigmoid(float(self._deviation(observation)[0, 0]))
        if self._risk is not None:
            action = np.minimum(np.maximum(out, self._lower), self._upper)
            risk = 1.0 - _sigmoid(float(self._risk(observation, action).min()))
        return Scores(doubt, novelty, deviation, risk)


def nearest_distance(reference: Array, norms: Array, place: Array) -> float:
    """Distance of a place to the nearest of a reference.

    Args:
        reference: (K, O) float32.
        norms: (K,) squared length of each.
        place: (O,) float32.
    """
    squared = (norms - 2.0 * (reference @ place)).min() + place @ place
    return math.sqrt(squared) if squared > 0 else 0.0 if squared <= 0 else math.nan


def _sigmoid(logit: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * logit))
