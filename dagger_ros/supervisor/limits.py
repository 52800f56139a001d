"""What may go out: every limit on values and motion, measured from what went out before.

Limits are per unit of time. The time that counts is bounded at both ends: a tick that comes too early repeats the
last command and its time is added to the next one, so that a burst cannot walk through a limit; a late one earns no
more than one and a half periods, and starts from rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, Contract, Interface
from dagger_ros.supervisor.reasons import Reason

__all__ = ["Limiter", "Vector"]

Vector = np.ndarray[Any, np.dtype[np.float64]]

# Of a period: below, there is too little time to tell a speed by; above, ticks were missed.
_SHORTEST_STEP = 0.1
_LONGEST_STEP = 1.5
# Rounding of differences and quotients, as a share of the limit.
_ROUNDING = 1e-9

_BOUND, _RATE = int(Reason.CLAMPED_BOUND), int(Reason.CLAMPED_RATE)
_ACCELERATION, _JERK = int(Reason.CLAMPED_ACCELERATION), int(Reason.CLAMPED_JERK)
_JERK_EXCEEDED, _HANDOVER = int(Reason.JERK_EXCEEDED), int(Reason.HANDOVER)


class Limiter:
    """Brings actions within the limits of a contract, one after the other.

    Bounds and motion limits always hold. A position is only ever sent so fast that it can still come to rest within
    its bounds, so the two never contradict each other. Jerk gives way to them, and to a stop.

    Args:
        contract: Gives bounds and limits.

    Attributes:
        last: (A,) the action that was emitted last, in its units; NaN: none, and none known to start from.
        last_ns: When, on the monotonic clock; `NEVER_NS`: no action was emitted since the last `seed`.
    """

    def __init__(self, contract: Contract) -> None:
        action = contract.action
        dimensions = action.dimensions_
        self._second_order = action.interface is Interface.POSITION
        self._period_ns = contract.timing.period_ns
        self.lower = np.array([d.lower for d in dimensions])
        self.upper = np.array([d.upper for d in dimensions])
        nan = float("nan")
        if self._second_order:
            self._speed = np.array([d.velocity_limit or nan for d in dimensions])
            self._up = self._down = np.array([d.acceleration_limit or nan for d in dimensions])
        else:
            self._up = np.array([d.acceleration_limit or d.rate_limit or nan for d in dimensions])
            self._down = np.array([d.deceleration_limit or d.rate_limit or nan for d in dimensions])
        self._has_jerk = any(d.jerk_limit is not None for d in dimensions)
        self._jerk = np.array([d.jerk_limit or np.inf for d in dimensions])
        size = len(dimensions)
        self.last, self._slope, self._curve = np.empty(size), np.empty(size), np.empty(size)
        self.last_ns: int
        self.seed(np.nan)

    @property
    def in_bounds(self) -> bool:
        """Whether what the next action starts from lies within the bounds; not where it is NaN."""
        return bool(((self.last >= self.lower) & (self.last <= self.upper)).all())

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
        self._slope[:] = self._curve[:] = 0.0

    def limit(self, action: Vector, now_ns: int, *, stop: bool, scale: float) -> int:
        """Brings an action within the limits and takes it as emitted.

        Args:
            action: (A,) float64, finite, changed in place. `last` must be finite and within the bounds.
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
        bits = _BOUND if ((action < self.lower) | (action > self.upper)).any() else 0
        low, high, motion_bits = self._reach(action, step_s)
        bits |= motion_bits
        if not stop:
            bits |= self._ease(action, low, high, step_s, scale)
        _clip(action, low, high)
        _clip(action, self.lower, self.upper)
        slope = (action - self.last) / step_s
        if self._has_jerk:
            bend = slope - self._slope
            if self._second_order:
                bend = bend / step_s - self._curve
            if (np.abs(bend) > self._jerk * step_s * (1 + _ROUNDING)).any():
                bits |= _JERK_EXCEEDED
        if self._second_order:
            self._curve[:] = (slope - self._slope) / step_s
        self._slope[:] = slope
        self.last[:] = action
        self.last_ns = now_ns
        return bits

    def _reach(self, action: Vector, step_s: float) -> tuple[Vector, Vector, int]:
        """Lowest and highest action that motion limits allow, and the bits of those that the action broke."""
        if not self._second_order:
            low, high = self._first_order(step_s, 1.0)
            return low, high, _RATE if ((action < low) | (action > high)).any() else 0
        low, high = self._second_order_reach(step_s, 1.0)
        wanted = (action - self.last) / step_s
        bits = _RATE if (np.abs(wanted) > self._speed * (1 + _ROUNDING)).any() else 0
        # Of a position that is wanted beyond its bound only what lies within it is a matter of motion.
        inside = action.copy()
        _clip(inside, self.lower, self.upper)
        slack = _ROUNDING * self._speed * step_s
        if not bits and ((inside < low - slack) | (inside > high + slack)).any():
            bits = _ACCELERATION
        return low, high, bits

    def _first_order(self, step_s: float, scale: float) -> tuple[Vector, Vector]:
        """Reach of a velocity or an effort: towards zero by the deceleration, away from it by the acceleration."""
        up, down = self._up * scale, self._down * scale
        to_zero_s = self.last / down
        falling_s = np.minimum(np.maximum(to_zero_s, 0.0), step_s)
        rising_s = np.minimum(np.maximum(-to_zero_s, 0.0), step_s)
        low = self.last - down * falling_s - up * (step_s - falling_s)
        high = self.last + down * rising_s + up * (step_s - rising_s)
        return low, high

    def _second_order_reach(self, step_s: float, scale: float) -> tuple[Vector, Vector]:
        """Reach of a position: by the speed limit, the acceleration limit, and the room that braking needs.

        After a step at speed v the way to rest is at most v^2 / (2 a), however the time is cut into ticks: it is a
        Riemann sum from below of the integral of v - a t. So v may solve v * step + v^2 / (2 a) = room. Braking as
        hard as possible stays within that room, so the reach is never empty.
        """
        slowest = self._slope - scale * self._up * step_s
        fastest = self._slope + scale * self._up * step_s
        speed = scale * self._speed
        low = np.maximum(-speed, -self._brakeable(self.last - self.lower, step_s))
        high = np.minimum(speed, self._brakeable(self.upper - self.last, step_s))
        _clip(low, slowest, fastest)
        _clip(high, slowest, fastest)
        return self.last + low * step_s, self.last + high * step_s

    def _brakeable(self, room: Vector, step_s: float) -> Vector:
        """Highest speed towards a bound that is this far away."""
        speed: Vector = self._up * (np.sqrt(step_s * step_s + 2.0 * room / self._up) - step_s)
        return speed

    def _ease(self, action: Vector, low: Vector, high: Vector, step_s: float, scale: float) -> int:
        """Limits that give way to the others: those of a hand-over, and jerk."""
        bits = 0
        if scale < 1.0:
            reach = self._second_order_reach if self._second_order else self._first_order
            gentle_low, gentle_high = reach(step_s, scale)
            if ((action < gentle_low) | (action > gentle_high)).any():
                bits = _HANDOVER
                _clip(action, gentle_low, gentle_high)
        if self._has_jerk:
            _clip(action, low, high)  # what the others clamp is not the jerk's doing
            middle = self.last + self._slope * step_s
            bend = self._jerk * (step_s * step_s)
            if self._second_order:
                middle += self._curve * (step_s * step_s)
                bend *= step_s
            if (np.abs(action - middle) > bend * (1 + _ROUNDING)).any():
                bits |= _JERK
                _clip(action, middle - bend, middle + bend)
        return bits


def _clip(values: Vector, low: Vector, high: Vector) -> None:
    """In place; four times as fast as `np.clip` on a few numbers."""
    np.maximum(values, low, out=values)
    np.minimum(values, high, out=values)
