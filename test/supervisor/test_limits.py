"""Each limit by its number: at the edge nothing happens, beyond it the edge comes out and a bit says so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench import PERIOD_NS, changed, position_contract
from dagger_ros.contract import NEVER_NS, Contract
from dagger_ros.supervisor import Reason
from dagger_ros.supervisor.limits import Limiter
from referee import contract_of

T = PERIOD_NS * 1e-9
SPEED, ACCELERATION = 0.8, 4.0


def velocity(**limits: float) -> Contract:
    """Three velocities, -1 to 1, that rise by 2 and fall by 8 a second."""
    dimensions = [
        {"name": f"v{i}", "select": f"twist.linear.{'xyz'[i]}", "unit": "m/s", "lower": -1.0, "upper": 1.0}
        | {"jump_limit": 5.0, "acceleration_limit": 2.0, "deceleration_limit": 8.0}
        | limits
        for i in range(3)
    ]
    return changed(dimensions=dimensions)


def position(**limits: float) -> Contract:
    return position_contract(velocity_limit=SPEED, acceleration_limit=ACCELERATION, **limits)


class Motion:
    """A limiter and the time of its last tick; all dimensions move alike."""

    def __init__(self, contract: Contract, start: float = 0.0) -> None:
        self.limiter = Limiter(contract)
        self.limiter.seed(start)
        self.now_ns = 10**9

    def go(self, to: float, *, after: float = 1.0, stop: bool = False, scale: float = 1.0) -> tuple[float, Reason]:
        self.now_ns += round(after * PERIOD_NS)
        action = np.full(len(self.limiter.last), to)
        bits = self.limiter.limit(action, self.now_ns, stop=stop, scale=scale)
        assert (action == action[0]).all()
        return float(action[0]), Reason(bits)

    def at(self, *path: float) -> Motion:
        """Sent along a path that no limit touches."""
        for to in path:
            sent, bits = self.go(to)
            assert (sent, bits) == (pytest.approx(to), Reason(0))
        return self


def clamped(sent: float, bits: Reason) -> Any:
    return (pytest.approx(sent, abs=1e-12), bits)


def test_velocity_rises_by_the_acceleration_and_falls_by_the_deceleration() -> None:
    up, down = 2.0 * T, 8.0 * T
    assert Motion(velocity()).go(up) == (up, Reason(0))
    assert Motion(velocity()).go(up + 1e-9) == clamped(up, Reason.CLAMPED_RATE)
    assert Motion(velocity()).go(-up) == (-up, Reason(0))
    assert Motion(velocity()).go(-up - 1e-9) == clamped(-up, Reason.CLAMPED_RATE)
    for sign in (1.0, -1.0):
        assert Motion(velocity(), 0.9 * sign).go(sign * (0.9 - down)) == clamped(sign * (0.9 - down), Reason(0))
        assert Motion(velocity(), 0.9 * sign).go(0.0) == clamped(sign * (0.9 - down), Reason.CLAMPED_RATE)
        # Through zero: the time that falling takes is not there for rising.
        across = 2.0 * (T - 0.1 / 8.0)
        assert Motion(velocity(), 0.1 * sign).go(-sign) == clamped(-sign * across, Reason.CLAMPED_RATE)


def test_effort_changes_by_its_rate() -> None:
    content = velocity().model_dump(mode="json", by_alias=True)
    content["action"] |= {"interface": "effort", "stop": "delegate"}
    for d in content["action"]["dimensions"]:
        d |= {"acceleration_limit": None, "deceleration_limit": None, "rate_limit": 4.0}
    motion = Motion(Contract.model_validate(content), 0.5)
    assert motion.go(-1.0) == clamped(0.5 - 4.0 * T, Reason.CLAMPED_RATE)
    assert motion.go(1.0) == clamped(0.5, Reason.CLAMPED_RATE)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_bound_is_sent_and_nothing_beyond_it(sign: float) -> None:
    assert Motion(velocity(), 0.95 * sign).go(sign) == (sign, Reason(0))
    assert Motion(velocity(), 0.95 * sign).go(1.02 * sign) == (sign, Reason.CLAMPED_BOUND)
    assert Motion(velocity(), 0.95 * sign).go(1.2 * sign) == (sign, Reason.CLAMPED_BOUND | Reason.CLAMPED_RATE)


@pytest.mark.parametrize(
    ("after", "time_s"),
    [(0.1, 0.1 * T), (0.5, 0.5 * T), (1.5, 1.5 * T), (1.6, 1.5 * T), (3.0, 1.5 * T)],
)
def test_time_earns_travel_up_to_a_period_and_a_half(after: float, time_s: float) -> None:
    motion = Motion(velocity())
    motion.go(0.0)
    assert motion.go(1.0, after=after) == clamped(2.0 * time_s, Reason.CLAMPED_RATE)


@pytest.mark.parametrize("after", [0.0999, 0.0, -3.0])
def test_tick_that_comes_too_soon_repeats_the_last_command(after: float) -> None:
    motion = Motion(velocity())
    motion.go(0.05)
    before_ns = motion.now_ns
    assert motion.go(0.06, after=after) == (0.05, Reason.CLAMPED_RATE)
    assert motion.go(0.05, after=0.0) == (0.05, Reason(0))
    assert motion.limiter.last_ns == min(before_ns, motion.now_ns)
    assert motion.go(0.051)[0] == 0.051


def test_time_before_the_first_command_counts_as_one_period() -> None:
    motion = Motion(velocity())
    assert motion.limiter.last_ns == NEVER_NS
    assert motion.go(1.0, after=500.0) == clamped(2.0 * T, Reason.CLAMPED_RATE)
    assert motion.limiter.last_ns == motion.now_ns
    motion.limiter.seed(0.5)
    assert motion.go(1.0, after=500.0) == clamped(0.5 + 2.0 * T, Reason.CLAMPED_RATE)


# Positions: 0.8 rad/s and 4 rad/s^2, so 0.2 rad/s more in each tick of 0.05 s.
STEP = ACCELERATION * T * T


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_position_speeds_up_by_the_acceleration(sign: float) -> None:
    assert Motion(position()).go(sign * STEP) == clamped(sign * STEP, Reason(0))
    motion = Motion(position())
    expected = 0.0
    for i in (1, 2, 3):
        expected += i * STEP
        wanted = sign * expected + sign * 0.001
        assert motion.go(wanted) == clamped(sign * expected, Reason.CLAMPED_ACCELERATION)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_position_goes_no_faster_than_its_speed(sign: float) -> None:
    motion = Motion(position()).at(*(sign * x * STEP for x in (1, 3, 6)))
    at_full = sign * (10 * STEP)
    assert motion.go(at_full) == clamped(at_full, Reason(0))  # 4 * 0.2 rad/s
    assert motion.go(at_full + sign * (SPEED * T)) == clamped(at_full + sign * SPEED * T, Reason(0))
    wanted = at_full + sign * (2 * SPEED * T + 0.001)
    assert motion.go(wanted) == clamped(at_full + sign * 2 * SPEED * T, Reason.CLAMPED_RATE)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_position_leaves_room_to_stop_before_its_bound(sign: float) -> None:
    motion = Motion(position(), sign * 2.5)
    sent, speed = [sign * 2.5], 0.0
    for _ in range(60):
        to, bits = motion.go(sign * 9.0)
        assert bits & Reason.CLAMPED_BOUND
        before, speed = speed, abs(to - sent[-1]) / T
        sent.append(to)
        assert abs(speed - before) <= ACCELERATION * T + 1e-9
        assert abs(to) + speed**2 / (2 * ACCELERATION) <= 3.0 + 1e-9
    assert sent[-1] == pytest.approx(sign * 3.0, abs=1e-3)


def test_room_to_stop_is_that_of_the_formula() -> None:
    """Source: v * step + v^2 / (2 a) = room."""
    for beyond in (False, True):
        motion = Motion(position(), 2.5)
        brakeable = math.inf
        while brakeable >= SPEED:
            motion.go(9.0)
            before = float(motion.limiter.last[0])
            brakeable = ACCELERATION * (math.sqrt(T * T + 2 * (3.0 - before) / ACCELERATION) - T)
        edge = before + brakeable * T
        if beyond:
            assert motion.go(9.0) == clamped(edge, Reason.CLAMPED_BOUND | Reason.CLAMPED_RATE)
        else:
            assert motion.go(edge + 0.0005) == clamped(edge, Reason.CLAMPED_ACCELERATION)


def test_stop_of_a_position_brakes_and_does_not_come_back() -> None:
    motion = Motion(position()).at(*(x * STEP for x in (1, 3, 6, 10)))
    sent = []
    for _ in range(6):
        sent.append(motion.go(float(motion.limiter.last[0]), stop=True)[0])
    assert sent == pytest.approx([x * STEP for x in (13, 15, 16, 16, 16, 16)])
    assert motion.limiter.at_rest


def test_late_tick_of_a_position_starts_from_rest() -> None:
    for after, rested in ((1.5, False), (1.51, True)):
        motion = Motion(position()).at(*(x * STEP for x in (1, 3)))
        sent, _ = motion.go(9.0, after=after)
        speed = (sent - 3 * STEP) / (1.5 * T)
        start = 0.0 if rested else 2 * ACCELERATION * T
        assert speed == pytest.approx(start + ACCELERATION * 1.5 * T)


def test_hand_over_scales_every_motion_limit() -> None:
    motion = Motion(velocity(), 0.5)
    assert motion.go(1.0, scale=0.25) == clamped(0.5 + 2.0 * T / 4, Reason.CLAMPED_RATE | Reason.HANDOVER)
    motion = Motion(velocity(), 0.5)
    assert motion.go(0.4, scale=0.25) == clamped(0.4, Reason(0))
    assert motion.go(0.25, scale=0.25) == clamped(0.3, Reason.HANDOVER)
    assert motion.go(0.1, scale=1.0) == clamped(0.1, Reason(0))
    motion = Motion(position())
    assert motion.go(STEP / 4, scale=0.25) == clamped(STEP / 4, Reason(0))
    motion = Motion(position())
    assert motion.go(STEP / 2, scale=0.25) == clamped(STEP / 4, Reason.HANDOVER)
    for _ in range(30):
        before = float(motion.limiter.last[0])
        sent, bits = motion.go(before + 0.04, scale=0.25)
    assert (sent - before) / T == pytest.approx(SPEED / 4)
    assert bits & Reason.HANDOVER


def test_hand_over_at_its_own_edge_is_none() -> None:
    exact = 0.5 + 0.25 * 2.0 * T
    assert Motion(velocity(), 0.5).go(exact, scale=0.25) == (exact, Reason(0))
    assert Motion(velocity(), 0.5).go(0.5 - 0.25 * 8.0 * T, scale=0.25)[1] == Reason(0)


def test_stop_is_not_eased() -> None:
    assert Motion(velocity(), 0.5).go(0.0, stop=True, scale=0.1) == clamped(0.5 - 8 * T, Reason.CLAMPED_RATE)


JERK = 20.0  # of a velocity: 1 m/s^2 more in each tick, so 0.05 m/s more


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_jerk_of_a_velocity(sign: float) -> None:
    bend = JERK * T * T
    assert Motion(velocity(jerk_limit=JERK)).go(sign * bend) == clamped(sign * bend, Reason(0))
    motion = Motion(velocity(jerk_limit=JERK))
    assert motion.go(sign * 0.08) == clamped(sign * bend, Reason.CLAMPED_JERK)
    assert motion.go(sign * 0.149) == clamped(sign * 0.149, Reason(0))
    assert motion.go(sign * 0.149) == clamped(sign * (0.149 + 0.099 - bend), Reason.CLAMPED_JERK)


def test_jerk_of_a_velocity_that_turns_round() -> None:
    bend = JERK * T * T
    assert Motion(velocity(jerk_limit=JERK), 0.05).go(-0.05) == clamped(0.05 - bend, Reason.CLAMPED_JERK)


def test_rounding_is_no_jerk() -> None:
    """At 1 kHz what a jerk limit allows in one tick is as small as the rounding of a position."""
    content = position(jerk_limit=20.0).model_dump(mode="json", by_alias=True)
    content["timing"]["control_rate_hz"] = 1000.0
    limiter = Limiter(Contract.model_validate(content))
    limiter.seed(2.2)
    for i in range(1, 150):  # until the limit of the speed is near
        action = np.full(6, 2.7 + 0.1 * math.sin(i))
        bits = Reason(limiter.limit(action, i * 1_000_000, stop=False, scale=1.0))
        assert bits & (Reason.CLAMPED_JERK | Reason.JERK_EXCEEDED) == Reason.CLAMPED_JERK


def test_jerk_of_a_position() -> None:
    jerk = 20.0  # 1 rad/s^2 more in each tick
    bend = jerk * T**3
    motion = Motion(position(jerk_limit=jerk))
    assert motion.go(bend) == clamped(bend, Reason(0))
    assert motion.go(9.0)[1] == Reason.CLAMPED_BOUND | Reason.CLAMPED_RATE | Reason.CLAMPED_JERK
    assert float(motion.limiter.last[0]) == pytest.approx(4 * bend)  # speeds 1, 3: accelerations 1, 2
    motion = Motion(position(jerk_limit=jerk))
    assert motion.go(STEP) == clamped(bend, Reason.CLAMPED_JERK)


def test_jerk_gives_way_to_a_stop_and_says_so() -> None:
    motion = Motion(velocity(jerk_limit=JERK))
    for to in (0.05, 0.15, 0.25):
        assert motion.go(to)[1] == Reason(0)
    assert motion.go(0.0, stop=True) == clamped(0.0, Reason.JERK_EXCEEDED)
    motion = Motion(position(jerk_limit=40.0))
    for _ in range(5):
        motion.go(2.0)
    _, bits = motion.go(float(motion.limiter.last[0]), stop=True)
    assert bits & Reason.JERK_EXCEEDED
    assert bits & Reason.CLAMPED_ACCELERATION


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_push_against_the_bound_is_no_matter_of_motion(sign: float) -> None:
    assert Motion(position(), sign * 3.0).go(sign * 3.01) == clamped(sign * 3.0, Reason.CLAMPED_BOUND)
    # A little before the bound there is too little room to stop on it at once.
    _, bits = Motion(position(), sign * 2.99).go(sign * 3.01)
    assert bits == Reason.CLAMPED_BOUND | Reason.CLAMPED_ACCELERATION


def test_jerk_gives_way_to_a_bound_and_says_so() -> None:
    motion = Motion(velocity(jerk_limit=JERK), 0.85)
    motion.go(0.9)
    assert motion.go(0.99) == clamped(0.99, Reason(0))
    assert motion.go(1.09) == clamped(1.0, Reason.CLAMPED_BOUND | Reason.JERK_EXCEEDED)


def test_jerk_and_hand_over_are_both_said() -> None:
    motion = Motion(velocity(jerk_limit=1.0), 0.5)
    _, bits = motion.go(1.0, scale=0.25)
    assert bits == Reason.CLAMPED_RATE | Reason.HANDOVER | Reason.CLAMPED_JERK


def test_seed_forgets_every_motion() -> None:
    motion = Motion(position(jerk_limit=40.0))
    for _ in range(5):
        motion.go(2.0)
    assert not motion.limiter.at_rest
    motion.limiter.seed(1.0)
    assert motion.limiter.at_rest
    assert motion.go(9.0)[0] == pytest.approx(1.0 + 40.0 * T**3)
    motion.limiter.seed(np.nan)
    assert not motion.limiter.in_bounds


@pytest.mark.parametrize(("start", "inside"), [(1.0, True), (-1.0, True), (1.0000001, False), (-1.0000001, False)])
def test_start_on_a_bound_is_inside(start: float, inside: bool) -> None:
    assert Motion(velocity(), start).limiter.in_bounds == inside


def test_half_range_is_half_of_what_the_bounds_leave() -> None:
    assert Limiter(velocity(lower=-0.5, upper=1.5)).half_range.tolist() == [1.0, 1.0, 1.0]


class NeverCalm(Limiter):
    """Looks at each limit at every tick."""

    def _is_calm(self, action: Any, step_s: float) -> bool:
        return False


KINDS = [(kind, jerk) for kind in ("velocity", "position", "effort") for jerk in (False, True)]


@pytest.mark.parametrize(("kind", "jerk"), KINDS)
@pytest.mark.parametrize("share", [0.05, 0.9999, 1 - 1e-8, 1.0, 1 + 1e-8, 3.0])
def test_first_look_at_what_is_calm_changes_nothing(kind: str, jerk: bool, share: float) -> None:
    """Steps that take a share of what one of the limits allows, up to the bounds and back."""
    contract = contract_of(kind, jerk=jerk)
    period_ns, d = contract.timing.period_ns, contract.action.dimensions_[0]
    limits = [d.velocity_limit, d.acceleration_limit or d.rate_limit, d.jerk_limit or 1.0]
    largest = [limit * (period_ns * 1e-9) ** n for n, limit in enumerate(limits, kind == "position") if limit]
    rng = np.random.default_rng(0)
    both, calm, now_ns = [Limiter(contract), NeverCalm(contract)], 0, 10**9
    for _ in range(20):
        start = rng.uniform(-0.3, 0.3) * both[0].half_range
        for limiter in both:
            limiter.seed(start)
        for _ in range(40):
            now_ns += int(period_ns * rng.choice([1.0, 1.0, 1.0, 0.05, 0.5, 1.4, 2.0]))
            action = both[0].last + share * rng.choice(largest) * rng.choice([-1.0, 1.0], len(start))
            stop, scale = bool(rng.random() < 0.1), 0.5 if rng.random() < 0.1 else 1.0
            results = []
            for limiter in both:
                sent = action.copy()
                bits = limiter.limit(sent, now_ns, stop=stop, scale=scale)
                state = (sent, limiter.last, limiter._slope, limiter._curve)
                results.append((bits, limiter.last_ns, limiter.at_rest, *(values.tobytes() for values in state)))
            assert results[0] == results[1]
            calm += both[0]._is_calm(both[0].last, period_ns * 1e-9)
    assert calm > 0
