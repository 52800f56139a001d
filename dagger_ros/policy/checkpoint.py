"""A policy on disk: `weights.safetensors` with the numbers and `policy.json` with where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from dagger_ros.contract import Contract, DaggerError, RowLayout
from dagger_ros.contract.files import write_files
from dagger_ros.policy.chunks import ChunkMemory, ChunkSettings
from dagger_ros.policy.ensemble import MlpEnsemble
from dagger_ros.policy.mlp import Array

__all__ = ["Checkpoint", "load_checkpoint", "read_checkpoint", "save_checkpoint"]

_SCHEMA = "dagger_ros.policy/1"
_WEIGHTS = "weights.safetensors"
_ABOUT = "policy.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a policy is and where it comes from.

    Args:
        name: As in `pi_003`.
        round: Last round whose data it was trained on.
        contract_sha256: Contract of that data.
        seed: Seed of its training.
        columns: Name of each input, as `stream.field`.
        actions: Name of each output.
        trained_on: For each round: its manifest's hash, episodes and labels.
        training: Settings and final loss of its training.
        limits: On its scores, for the rule that they were fitted for: `rule`, `ask` and `back`, limits by name of the
            score, `back_ticks`, and `fit`, what they were fitted on; of rule `hg` only `doubt_limit`; empty: none.
        chunks: Of a policy that gives chunks of actions, its `ChunkSettings`; empty: it gives the action of its tick.
        weights_sha256: Hash of the weights file; filled in when saved.
    """

    name: str
    round: int
    contract_sha256: str
    seed: int
    columns: tuple[str, ...]
    actions: tuple[str, ...]
    trained_on: tuple[Mapping[str, Any], ...]
    training: Mapping[str, Any]
    limits: Mapping[str, Any] = field(default_factory=dict)
    chunks: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    schema: str = field(default=_SCHEMA)


def save_checkpoint(folder: Path, about: Checkpoint, tensors: Mapping[str, Array]) -> Checkpoint:
    """Writes a checkpoint; the folder appears whole or not at all.

    Args:
        folder: Does not exist yet, or holds an older checkpoint that is replaced.
        about: What it is, without the hash of the weights.
        tensors: As `MlpEnsemble` takes them.

    Returns:
        `about` with the hash.
    """
    weights = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in sorted(tensors.items())})
    content = asdict(about) | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    write_files(folder, {_WEIGHTS: weights, _ABOUT: (json.dumps(content, indent=1) + "\n").encode()})
    return Checkpoint(**content)


def load_checkpoint(folder: str | Path, contract: Contract) -> tuple[Checkpoint, MlpEnsemble]:
    """Reads a checkpoint and checks that it belongs to a contract and was not changed.

    Args:
        folder: Holds `policy.json` and `weights.safetensors`.
        contract: What it is to be used under.

    Raises:
        DaggerError: If it is missing, damaged, or was trained under another contract.
    """
    about, tensors = read_checkpoint(folder, contract)
    folder = Path(folder)
    memory = _memory_of(folder, about, contract)
    try:
        network = MlpEnsemble(tensors, memory)
    except (KeyError, IndexError, ValueError) as error:
        raise _no_layers(folder, error) from error
    layout = RowLayout(contract)
    if (network.observation_size, network.action_size) != (layout.observation_size, layout.action_size):
        raise DaggerError(
            f"{folder}: expected {layout.observation_size} inputs and {layout.action_size} outputs, "
            f"got {network.observation_size} and {network.action_size}"
        )
    horizon = about.chunks.get("horizon", 1)
    if network.horizon != horizon:
        raise DaggerError(
            f"{folder}: expected chunks of {horizon} actions, as {_ABOUT} says; the weights give {network.horizon}"
        )
    return about, network


def read_checkpoint(folder: str | Path, contract: Contract) -> tuple[Checkpoint, dict[str, Array]]:
    """Reads a checkpoint as numbers, with the same checks but for the shapes: what a training may start from.

    Args:
        folder: As for `load_checkpoint`.
        contract: Likewise.

    Raises:
        DaggerError: If it is missing, damaged, or was trained under another contract.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        about = Checkpoint(**content)
        weights = (folder / _WEIGHTS).read_bytes()
    except OSError as error:
        raise DaggerError(
            f"{folder}: expected a policy here ({_ABOUT} and {_WEIGHTS}); {error.strerror}: {error.filename}"
        ) from error
    except (ValueError, TypeError) as error:
        raise DaggerError(f"{folder / _ABOUT}: expected a description of a policy ({_SCHEMA}); {error}") from error
    if about.contract_sha256 != contract.sha256:
        raise DaggerError(
            f"{folder}: this policy was trained under another contract; expected {contract.sha256[:12]} "
            f"({contract.name}), got {str(about.contract_sha256)[:12]}. Use that contract, or retrain"
        )
    if hashlib.sha256(weights).hexdigest() != about.weights_sha256:
        raise DaggerError(f"{folder / _WEIGHTS}: expected the hash in {_ABOUT}; the file was changed or cut short")
    try:
        return about, safetensors.numpy.load(weights)
    except SafetensorError as error:
        raise _no_layers(folder, error) from error


def _no_layers(folder: Path, error: Exception) -> DaggerError:
    return DaggerError(f"{folder / _WEIGHTS}: expected the layers of a policy; {error}")


def _memory_of(folder: Path, about: Checkpoint, contract: Contract) -> ChunkMemory | None:
    """What a policy that gives chunks needs to remember."""
    if not about.chunks:
        return None
    try:
        settings = ChunkSettings(**about.chunks)
    except (TypeError, DaggerError) as error:
        raise DaggerError(f"{folder / _ABOUT}: chunks: expected horizon, use and decay; {error}") from error
    return ChunkMemory(settings, contract, len(contract.action.dimensions))
