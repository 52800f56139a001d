"""Reads labelled frames and gives the weights of a policy."""

from dagger_ros.learning.bc import TrainingSettings, train

__all__ = ["TrainingSettings", "train"]
