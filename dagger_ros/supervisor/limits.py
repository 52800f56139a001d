"""What may go out: bounds and rates of change, as functions on action vectors that work in place."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Vector", "clamp_bounds", "clamp_rate"]

Vector = np.ndarray[Any, np.dtype[np.float64]]


def clamp_bounds(action: Vector, lower: Vector, upper: Vector) -> bool:
    """Brings an action into its bounds.

    Args:
        action: (A,) float64, finite, changed in place.
        lower: (A,) in the action's units.
        upper: (A,) in the action's units.

    Returns:
        Whether anything changed.
    """
    if ((action >= lower) & (action <= upper)).all():
        return False
    np.clip(action, lower, upper, out=action)
    return True


def clamp_rate(action: Vector, last: Vector, largest_step: Vector) -> bool:
    """Brings an action to within one step of the last one.

    Args:
        action: (A,) float64, finite, changed in place.
        last: (A,) the action that was emitted before, float64, finite.
        largest_step: (A,) largest change allowed since then, in the action's units, >= 0.

    Returns:
        Whether anything changed.
    """
    return clamp_bounds(action, last - largest_step, last + largest_step)
