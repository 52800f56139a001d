"""Reads labelled frames and recorded episodes, and gives the weights of a policy and the limits on its scores."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagger_ros.learning.bc import Trained, train
    from dagger_ros.learning.limits import Experience, LimitSettings, fit_limits, human_doubt_limit
    from dagger_ros.learning.origins import Kind, Origins, origins_of
    from dagger_ros.learning.settings import TrainingSettings

__all__ = [
    "Experience",
    "Kind",
    "LimitSettings",
    "Origins",
    "Trained",
    "TrainingSettings",
    "fit_limits",
    "human_doubt_limit",
    "origins_of",
    "train",
]


def __getattr__(name: str) -> Any:
    """Loads a part when it is asked for: the command line needs the settings, and torch takes seconds to load."""
    if name in __all__:
        for part in ("settings", "origins", "bc", "limits"):
            module = import_module(f"{__name__}.{part}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
