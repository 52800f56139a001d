"""Reads a checkpoint and gives an action and its scores for each observation, in numpy."""

from dagger_ros.policy.base import Policy, SeeingPolicy
from dagger_ros.policy.checkpoint import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from dagger_ros.policy.chunks import ChunkSettings
from dagger_ros.policy.ensemble import MlpEnsemble
from dagger_ros.policy.outside import load_policy

__all__ = [
    "Checkpoint",
    "ChunkSettings",
    "MlpEnsemble",
    "Policy",
    "SeeingPolicy",
    "load_checkpoint",
    "load_policy",
    "read_checkpoint",
    "save_checkpoint",
]
