"""What may go out: every limit on values and motion, measured from what went out before.

Limits are per unit of time. The time that counts is bounded at both ends: a tick that comes too early repeats the
last command and its time is added to the next one, so that a burst cannot walk through a limit; a late one earns no
more than one and a half periods, and starts from rest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, Contract, Interface
from dagger_ros.supervisor.reasons import Reason

__all__ = ["Limiter", "Vector", "beyond", "finite", "outside"]

Vector = np.ndarray[Any, np.dtype[np.float64]]
_Span = tuple[Vector, Vector]

# Of a period: below, there is too little time to tell a speed by; above, ticks were missed.
_SHORTEST_STEP = 0.1
_LONGEST_STEP = 1.5
# Rounding of differences and quotients, as a share of the limit.
_ROUNDING = 1e-9
# As a share of a limit: what stays so far below every one is not limited, however it is rounded.
_MARGIN = 1e-6

_BOUND, _RATE = int(Reason.CLAMPED_BOUND), int(Reason.CLAMPED_RATE)
_ACCELERATION, _JERK = int(Reason.CLAMPED_ACCELERATION), int(Reason.CLAMPED_JERK)
_JERK_EXCEEDED, _HANDOVER = int(Reason.JERK_EXCEEDED), int(Reason.HANDOVER)
# Signs of the way to the lower and to the upper end of a reach.
_SIDES = np.array([[-1.0], [1.0]])


class Limiter:
    """Brings actions within the limits of a contract, one after the other.

    Bounds and motion limits always hold. A position is only ever sent so fast that it can still come to rest within
    its bounds, so the two never contradict each other. Jerk gives way to them, and to a stop.

    Args:
        contract: Gives bounds and limits.

    Attributes:
        bounds: Lowest and highest action, (A,) each.
        half_range: (A,) half the way between them.
        last: (A,) the action that was emitted last, in its units; NaN: none, and none known to start from.
        last_ns: When, on the monotonic clock; `NEVER_NS`: no action was emitted since the last `seed`.
        in_bounds: Whether what the next action starts from lies within the bounds; not where it is NaN.
    """

    def __init__(self, contract: Contract) -> None:
        action = contract.action
        dimensions = action.dimensions_
        self._second_order = action.interface is Interface.POSITION
        self._period_ns = contract.timing.period_ns
        self.bounds = np.array([d.lower for d in dimensions]), np.array([d.upper for d in dimensions])
        # NaN: a limit that this interface does not have.
        self._speed = np.array([d.velocity_limit or np.nan for d in dimensions])
        self._up = np.array([d.acceleration_limit or d.rate_limit or np.nan for d in dimensions])
        self._down = np.array([d.deceleration_limit or d.rate_limit or np.nan for d in dimensions])
        self._has_jerk = any(d.jerk_limit is not None for d in dimensions)
        self._jerk = np.array([d.jerk_limit or np.inf for d in dimensions])
        self._twice_up = 2.0 * self._up
        self._slack = self._speed * (self._period_ns * 1e-9 * _ROUNDING)
        self._both_bounds = np.stack(self.bounds)
        self.half_range = (self.bounds[1] - self.bounds[0]) / 2
        # Smallest difference that can be told between two actions.
        self._grain = 8 * np.finfo(np.float64).eps * np.abs(self._both_bounds).max(axis=0)
        size = len(dimensions)
        self.last, self._slope, self._curve = np.empty(size), np.empty(size), np.empty(size)
        self._middle, self._step = (self.bounds[0] + self.bounds[1]) / 2, np.empty(size)
        self._calm_limits = self._limits_of_calm()
        self._motion, self._within = np.zeros_like(self._calm_limits), np.zeros(self._calm_limits.shape, bool)
        self._place, self._new_slope, *rest = self._motion
        self._bends = list(zip((self._slope, self._curve), rest, strict=False))
        self.last_ns: int
        self.in_bounds: bool
        self.seed(np.nan)

    @property
    def at_rest(self) -> bool:
        """Whether the last action left nothing to brake."""
        return not (self._slope if self._second_order else self.last).any()

    def seed(self, start: Vector | float) -> None:
        """The next action starts from here, at rest.

        Args:
            start: (A,) or one number for all, in the action's units; NaN: unknown, and nothing can go out.
        """
        self.last[:] = start
        self.last_ns = NEVER_NS
        self.in_bounds = bool(((self.last >= self.bounds[0]) & (self.last <= self.bounds[1])).all())
        self._slope[:] = self._curve[:] = 0.0

    def limit(self, action: Vector, now_ns: int, *, stop: bool, scale: float) -> int:
        """Brings an action within the limits and takes it as emitted.

        Args:
            action: (A,) float64, finite, changed in place; only where `in_bounds`.
            now_ns: Monotonic time.
            stop: It is a stop: as fast as the limits allow, whatever the jerk.
            scale: Factor on the motion limits for a new driver; 1 for one that has control.

        Returns:
            `CLAMPED_*`, `JERK_EXCEEDED` and `HANDOVER` bits.
        """
        elapsed_ns = self._period_ns if self.last_ns == NEVER_NS else now_ns - self.last_ns
        if elapsed_ns < _SHORTEST_STEP * self._period_ns:
            self.last_ns = min(self.last_ns, now_ns)  # a clock that went back does not stand still for ever
            changed = (action != self.last).any()
            action[:] = self.last
            return _RATE if changed else 0
        if elapsed_ns > _LONGEST_STEP * self._period_ns:
            elapsed_ns = int(_LONGEST_STEP * self._period_ns)
            self._slope[:] = self._curve[:] = 0.0
        step_s = elapsed_ns * 1e-9
        if (stop or scale == 1.0) and self._is_calm(action, step_s):
            self._slope[:] = self._new_slope
            if self._second_order:
                self._curve[:] = self._motion[2]
            self.last[:] = action
            self.last_ns = now_ns
            return 0
        reach = self._reach(step_s, 1.0)
        wanted = action.copy()
        self._bring_within(action, reach)
        bits = self._broken(wanted, reach, step_s) if np.count_nonzero(action != wanted) else 0
        if scale < 1.0 and not stop:
            gentle = self._reach(step_s, scale)
            if outside(action, *gentle):
                bits |= _HANDOVER
                _clip(action, *gentle)
                self._bring_within(action, reach)
        if self._has_jerk:
            bits |= self._bend(action, reach, step_s, stop)
        slope = (action - self.last) / step_s
        if self._second_order:
            self._curve[:] = (slope - self._slope) / step_s
        self._slope[:] = slope
        self.last[:] = action
        self.last_ns = now_ns
        return bits

    def _is_calm(self, action: Vector, step_s: float) -> bool:
        """Whether an action is so far within every limit that none of them can change it: most are.

        `_motion` then holds its derivatives, by the same operations as in `limit`.
        """
        self._step.fill(step_s)
        np.subtract(self.last if self._second_order else action, self._middle, out=self._place)
        newest = self._new_slope
        np.subtract(action, self.last, out=newest)
        np.divide(newest, self._step, out=newest)
        for before, bend in self._bends:
            np.subtract(newest, before, out=bend)
            np.divide(bend, self._step, out=bend)
            newest = bend
        np.less_equal(np.abs(self._motion), self._calm_limits, out=self._within)
        return 0 not in self._within.tobytes()

    def _limits_of_calm(self) -> Vector:
        """(K, A) on the distance from the middle of the bounds, and on each derivative that has a limit.

        Of a position it is the last one that must be so far from its bounds that there is room to brake from full
        speed; see `_second_order_reach`.
        """
        shortest_s, longest_s = (share * self._period_ns * 1e-9 for share in (_SHORTEST_STEP, _LONGEST_STEP))
        if self._second_order:
            room = self._speed * self._speed / self._twice_up + self._speed * longest_s
            derivatives = [self._speed, self._up]
        else:
            room = np.zeros_like(self._up)
            derivatives = [np.minimum(self._up, self._down)]
        if self._has_jerk:
            derivatives.append(self._jerk)
        limits = [self.half_range - room - self._grain]
        for order, limit in enumerate(derivatives, 1):
            limits.append(limit * (1 - _MARGIN) - self._grain / shortest_s**order)
        return np.stack(limits)

    def _bring_within(self, action: Vector, reach: _Span) -> None:
        """The limits that always hold: those of motion, and last the bounds."""
        _clip(action, *reach)
        _clip(action, *self.bounds)

    def _broken(self, action: Vector, reach: _Span, step_s: float) -> int:
        """Bits of the bounds and motion limits that an action breaks."""
        bits = _BOUND if outside(action, *self.bounds) else 0
        if not self._second_order:
            return bits | (_RATE if outside(action, *reach) else 0)
        if beyond(action - self.last, self._speed * (step_s * (1 + _ROUNDING))):
            return bits | _RATE
        # Of a position that is wanted beyond its bound only what lies within it is a matter of motion.
        inside = action.copy()
        _clip(inside, *self.bounds)
        return bits | (_ACCELERATION if outside(inside, reach[0] - self._slack, reach[1] + self._slack) else 0)

    def _reach(self, step_s: float, scale: float) -> _Span:
        """Lowest and highest action that the motion limits allow, these multiplied by a factor."""
        if self._second_order:
            reach = self._second_order_reach(step_s, scale)
        else:
            reach = self._first_order_reach(step_s * scale)
        return reach[0], reach[1]

    def _first_order_reach(self, step_s: float) -> Vector:
        """(2, A) of a velocity or an effort: towards zero by the deceleration, away from it by the acceleration."""
        braking_s = self.last / self._down * -_SIDES
        _clip(braking_s, 0.0, step_s)
        way = self._down * braking_s + self._up * (step_s - braking_s)
        reach: Vector = self.last + way * _SIDES
        return reach

    def _second_order_reach(self, step_s: float, scale: float) -> Vector:
        """(2, A) of a position: by the speed limit, the acceleration limit, and the room that braking needs.

        After a step at speed v the way to rest is at most v^2 / (2 a), however the time is cut into ticks: it is a
        Riemann sum from below of the integral of v - a t. So v may solve v * step + v^2 / (2 a) = room. Braking as
        hard as possible stays within that room, so the reach is never empty.
        """
        change = self._up * step_s
        room: Vector = np.abs(self._both_bounds - self.last)
        speed = room * self._twice_up
        speed += change * change
        np.sqrt(speed, out=speed)
        speed -= change
        np.minimum(speed, self._speed if scale == 1.0 else self._speed * scale, out=speed)
        speed *= _SIDES
        if scale != 1.0:
            change *= scale
        _clip(speed, self._slope - change, self._slope + change)
        speed *= step_s
        speed += self.last
        return speed

    def _bend(self, action: Vector, reach: _Span, step_s: float, stop: bool) -> int:
        """Limits jerk, which gives way to every other limit, and to a stop."""
        middle = self.last + self._slope * step_s
        time_to_bend = step_s * step_s
        if self._second_order:
            middle += self._curve * time_to_bend
            time_to_bend *= step_s
        slack = self._jerk * (time_to_bend * (1 + _ROUNDING)) + self._grain
        if not beyond(action - middle, slack):
            return 0
        if stop:
            return _JERK_EXCEEDED
        wanted = action.copy()
        bend = self._jerk * time_to_bend
        _clip(action, middle - bend, middle + bend)
        self._bring_within(action, reach)
        bits = _JERK if np.count_nonzero(action != wanted) else 0
        return bits | (_JERK_EXCEEDED if beyond(action - middle, slack) else 0)


def finite(values: Vector) -> bool:
    """Whether no value is NaN or infinite."""
    # Most are: a sum of squares is finite unless one of them is not, or they are very large.
    return math.isfinite(values.dot(values)) or bool(np.count_nonzero(np.isfinite(values)) == values.size)


def beyond(difference: Vector, limit: Vector) -> bool:
    """Whether a magnitude is above its limit; NaN is not."""
    return bool(np.count_nonzero(np.abs(difference) > limit))


def outside(values: Vector, low: Vector, high: Vector) -> bool:
    """Whether a value lies below the lowest or above the highest; NaN does not."""
    return bool(np.count_nonzero((values < low) | (values > high)))


def _clip(values: Vector, low: Vector | float, high: Vector | float) -> None:
    """In place; four times as fast as `np.clip` on a few numbers."""
    np.maximum(values, low, out=values)
    np.minimum(values, high, out=values)
