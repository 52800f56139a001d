"""Reads labelled frames and recorded episodes, and gives the weights of a policy and the limits on its scores."""

from dagger_ros.learning.bc import Trained, TrainingSettings, train
from dagger_ros.learning.limits import Experience, LimitSettings, fit_limits, human_doubt_limit

__all__ = ["Experience", "LimitSettings", "Trained", "TrainingSettings", "fit_limits", "human_doubt_limit", "train"]
