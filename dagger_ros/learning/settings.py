"""How a policy is trained, as data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.policy import ChunkSettings

__all__ = ["TrainingSettings"]


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
        start: From new weights (scratch), or from those of the policy of the round before (previous).
        validation_patience: Training stops after so many evaluations on the validation split without a better one, and
            the best weights are kept; 0: it takes all its steps, and the last weights are kept.
        evaluate_every: Steps from one evaluation on the validation split to the next.
        horizon: Actions that the network gives at once, for this tick and the next ones, 1 to 16.
        chunk_use: With a horizon above 1: the mean over all chunks that reach to a tick (ensembled), or one chunk after
            the other, each to its end (plain).
        chunk_decay: Of ensembled: the i-th oldest of the chunks weighs exp(-chunk_decay i).
        correction_weight: Weight of the squared error of a correction; of every other frame it is 1.
        batches: Drawn from all frames alike (uniform), or half from corrections and half from the rest (iwr).
        leave_out_before_takeover_s: What the policy drove so shortly before a takeover is not learned from, whoever
            labelled it, s.
        device: On which it is trained: cpu, or cuda where there is one.
        products: Of matrices, by torch's library for them (blas), or by oneDNN, which rounds differently and is twice
            as fast on AMD with batches of 256, but no faster with 64 (onednn); on the cpu.

    Raises:
        DaggerError: If one of them cannot be.
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
    start: Literal["scratch", "previous"] = "scratch"
    validation_patience: int = 0
    evaluate_every: int = 100
    horizon: int = 1
    chunk_use: Literal["ensembled", "plain"] = "ensembled"
    chunk_decay: float = 0.01
    correction_weight: float = 1.0
    batches: Literal["uniform", "iwr"] = "uniform"
    leave_out_before_takeover_s: float = 0.0
    device: Literal["cpu", "cuda"] = "cpu"
    products: Literal["blas", "onednn"] = "blas"

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, choices = getattr(self, name), get_args(kind)
            if get_origin(kind) is Literal and value not in choices:
                raise DaggerError(f"{name}: expected {' or '.join(choices)}, got {value!r}")
            if kind is float and not (math.isfinite(value) and value >= 0):
                raise DaggerError(f"{name}: expected a number >= 0, got {value}")
            least = 0 if name == "validation_patience" else 1
            if kind is int and (type(value) is not int or value < least):
                raise DaggerError(f"{name}: expected a whole number >= {least}, got {value}")
        if any(type(units) is not int or units < 1 for units in self.hidden):
            raise DaggerError(f"hidden: expected whole numbers >= 1, got {self.hidden}")
        for name in ("learning_rate", "correction_weight"):
            if getattr(self, name) == 0:
                raise DaggerError(f"{name}: expected a number > 0, got 0")
        if self.batches == "iwr" and self.batch < 2:
            raise DaggerError(f"batch: expected at least 2 with batches iwr, half of each, got {self.batch}")
        if self.products == "onednn" and self.device != "cpu":
            raise DaggerError(f"products: expected blas on device {self.device}; onednn is for the cpu")
        ChunkSettings(self.horizon, self.chunk_use, self.chunk_decay)

    @property
    def chunks(self) -> dict[str, Any]:
        """For `policy.Checkpoint`: how its chunks are used; empty with a horizon of 1."""
        settings = ChunkSettings(self.horizon, self.chunk_use, self.chunk_decay)
        return asdict(settings) if self.horizon > 1 else {}

    def check(self, contract: Contract) -> None:
        """Tells whether a contract has what these settings need.

        Raises:
            DaggerError: If it has not.
        """
        if self.validation_patience and not contract.splits.validation:
            raise DaggerError(
                f"validation_patience: expected a contract with a validation split, since training is to stop by it; "
                f"splits.validation of {contract.name} is 0. Give it a share there, or leave validation_patience at 0"
            )
