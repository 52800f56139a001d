"""The gate as one would write it plainly: lists, loops and `if`, one number after the other.

It decides what `dagger_ros.supervisor.Gate` decides for joints that are commanded by position, under rule `hg`, armed
by itself, without requests of people. `benchmarks/tick.py` measures against it; a test holds the two equal bit for bit.
"""

from __future__ import annotations

import math
from typing import Any

from dagger_ros.contract import NEVER_NS, Contract, Intent, Label, Mode
from dagger_ros.supervisor import Reason, Response, response_bits

__all__ = ["PlainGate"]

_HOLD_EXPERT = response_bits(Response.HOLD, Response.HOLD_EXPERT)
_HOLD_POLICY = response_bits(Response.HOLD, Response.HOLD_POLICY, Response.HOLD_EXPERT) & ~int(
    Reason.EXPERT_SIZE | Reason.EXPERT_JUMP
)
_LOCK, _ESTOP = response_bits(Response.LOCK), response_bits(Response.ESTOP)
_EXPERT_UNUSABLE = response_bits(Response.HOLD_EXPERT)
_WANTS_LABEL, _WANTS_TAKEOVER, _WANTS_RESUME = int(Intent.LABEL), int(Intent.TAKEOVER), int(Intent.RESUME)
_UNATTENDED = int(Intent.UNATTENDED)
_CONSENTS = _WANTS_LABEL | _WANTS_TAKEOVER | _UNATTENDED
_STOPPED = {Mode.LOCKED: "NOT_ARMED", Mode.HOLD: "HELD", Mode.ESTOP: "ESTOP"}
_NAN = float("nan")
R = {reason.name: int(reason) for reason in Reason}


class PlainGate:
    """Decides one tick after the other.

    Args:
        contract: Joints commanded by position, with jerk limits, measured, and a workspace.
    """

    def __init__(self, contract: Contract) -> None:
        dimensions = contract.action.dimensions_
        self.lower, self.upper = [d.lower for d in dimensions], [d.upper for d in dimensions]
        self.jump = [d.jump_limit for d in dimensions]
        self.tracking = [d.tracking_limit for d in dimensions]
        self.speed = [d.velocity_limit for d in dimensions]
        self.acceleration = [d.acceleration_limit for d in dimensions]
        self.jerk = [d.jerk_limit for d in dimensions]
        self.max_age_ns = [round(s.max_age_s * 1e9) for s in contract.streams.values()]
        self.period_ns = contract.timing.period_ns
        timing, handover = contract.timing, contract.action.handover
        self.future_ns = round(timing.future_tolerance_s * 1e9)
        self.proposal_ns = {
            "POLICY": round(timing.policy_max_age_s * 1e9),
            "EXPERT": round(timing.expert_max_age_s * 1e9),
        }
        self.budget_ns = round(timing.latency_budget_s * 1e9)
        self.timeout_ns = round(timing.driver_timeout_s * 1e9)
        self.handover_ns, self.handover_scale = round(handover.longest_s * 1e9), handover.limit_scale
        self.mode = Mode.LOCKED
        self.last = [_NAN] * len(dimensions)
        self.slope = [0.0] * len(dimensions)
        self.curve = [0.0] * len(dimensions)
        self.last_ns = self.eased_until_ns = NEVER_NS
        self.time_ns = self.monotonic_ns = NEVER_NS
        self.open_stamp_ns = self.open_receive_ns = self.answered_ns = NEVER_NS
        self.late = self.flapping = 0.0
        self.pressed = self.was_outside = self.in_bounds = False
        self.driver: Mode | None = None
        self.driving_sha256 = ""
        self.interventions = 0

    def decide(self, tick: dict[str, Any]) -> dict[str, Any]:
        """Decides one tick.

        Args:
            tick: `time_ns`, `monotonic_ns`; of the streams `stamp_ns`, `receive_ns`, `observation`, `measured`, `boxes`
                (values, lower, upper); of each source `action`, `stamp_ns`, `receive_ns`; `sha256`, `doubt`, `intent`;
                `bits` of how messages came.

        Returns:
            What was decided.
        """
        now_ns = tick["monotonic_ns"]
        start = self._start(tick)
        bits = tick["bits"] | self._check_observations(tick) | self._check_motion(tick, start)
        bits |= self._check_policy(tick)
        takeover, label = bool(tick["intent"] & _WANTS_TAKEOVER), bool(tick["intent"] & _WANTS_LABEL)
        pressed_anew = takeover and not self.pressed
        self.pressed = takeover
        if self.monotonic_ns != NEVER_NS:
            self.flapping = max(self.flapping - (now_ns - self.monotonic_ns) * 1e-9 * 2.0, 0.0)
        if pressed_anew:
            self.flapping = min(self.flapping + 1.0, 5.0)
        if self.flapping >= 5.0:
            bits |= R["EXPERT_FLAPPING"]
        for name in ("POLICY", "EXPERT"):
            bits |= self._check_proposal(name, tick[name.lower()], tick, start)
        discrepancy = _NAN
        if label and tick["policy"]["receive_ns"] != NEVER_NS:
            discrepancy = self._discrepancy(tick)
        self.time_ns, self.monotonic_ns = tick["time_ns"], now_ns
        before = self.mode
        self._change_mode(bits, tick["intent"])
        self.driving_sha256 = tick["sha256"] if self.mode is Mode.POLICY else ""
        if self.mode is Mode.EXPERT and before is not Mode.EXPERT:
            self.interventions += 1
        if self.mode in (Mode.POLICY, Mode.EXPERT):
            if self.driver not in (None, self.mode):
                self.eased_until_ns = now_ns + self.handover_ns
            self.driver = self.mode
        requested, executed, limited = self._execute(tick, bits)
        bits |= limited
        given = Label.NONE
        if self.mode is Mode.EXPERT and label and not bits & _EXPERT_UNUSABLE:
            given = Label.EXPERT
        elif self.mode is Mode.POLICY:
            given = Label.POLICY
        if bits & R["HANDOVER"]:
            given = Label.NONE
        return {
            "mode": self.mode,
            "reasons": bits,
            "requested_action": requested,
            "executed_action": executed,
            "discrepancy": discrepancy,
            "label_source": given,
            "intervention": self.interventions if self.mode is Mode.EXPERT else 0,
        }

    def _is_idle(self, now_ns: int) -> bool:
        return self.last_ns == NEVER_NS or now_ns - self.last_ns > self.timeout_ns

    def _start(self, tick: dict[str, Any]) -> list[float]:
        return list(tick["measured"]) if self._is_idle(tick["monotonic_ns"]) else self.last

    def _check_observations(self, tick: dict[str, Any]) -> int:
        if NEVER_NS in tick["receive_ns"]:
            return R["OBSERVATION_NEVER"]
        bits = 0
        for stamp_ns, receive_ns, max_age_ns in zip(tick["stamp_ns"], tick["receive_ns"], self.max_age_ns, strict=True):
            if tick["time_ns"] - stamp_ns > max_age_ns or tick["monotonic_ns"] - receive_ns > max_age_ns:
                bits |= R["OBSERVATION_STALE"]
        if max(tick["stamp_ns"]) - tick["time_ns"] > self.future_ns:
            bits |= R["OBSERVATION_FUTURE"]
        if not all(math.isfinite(value) for value in tick["observation"]):
            bits |= R["OBSERVATION_NOT_FINITE"]
        return bits

    def _check_motion(self, tick: dict[str, Any], start: list[float]) -> int:
        bits = 0
        if self.time_ns != NEVER_NS:
            moved_ns, passed_ns = tick["time_ns"] - self.time_ns, tick["monotonic_ns"] - self.monotonic_ns
            if moved_ns < 0 or passed_ns < 0 or moved_ns - passed_ns > self.future_ns + 2 * self.period_ns:
                bits |= R["CLOCK_JUMP"]
        if any(abs(s - m) > limit for s, m, limit in zip(start, tick["measured"], self.tracking, strict=True)):
            bits |= R["TRACKING"]
        for values, lower, upper in tick["boxes"]:
            if any(v < low or v > high for v, low, high in zip(values, lower, upper, strict=True)):
                bits |= R["WORKSPACE"]
        return bits

    def _check_policy(self, tick: dict[str, Any]) -> int:
        """How long it took, how sure it is, and whether it is the one that may drive."""
        policy, bits = tick["policy"], 0
        received, newest_ns = policy["receive_ns"] != NEVER_NS, max(tick["stamp_ns"])
        if self.open_stamp_ns == NEVER_NS and newest_ns > self.answered_ns:
            self.open_stamp_ns = newest_ns
            self.open_receive_ns = tick["receive_ns"][tick["stamp_ns"].index(newest_ns)]
        if received and self.open_stamp_ns != NEVER_NS:
            if policy["stamp_ns"] < self.open_stamp_ns:
                if tick["monotonic_ns"] - self.open_receive_ns > self.budget_ns:
                    self.late = min(self.late + 1.0, 5.0)
            else:
                took_ns = policy["receive_ns"] - self.open_receive_ns
                if policy["stamp_ns"] == self.open_stamp_ns and took_ns > self.budget_ns:
                    self.late = min(self.late + 1.0, 5.0)
                else:
                    self.late = max(self.late - 0.25, 0.0)
                self.answered_ns, self.open_stamp_ns = policy["stamp_ns"], NEVER_NS
        if self.late >= 5.0:
            bits |= R["POLICY_LATE"]
        if received and not math.isfinite(tick["doubt"]):
            bits |= R["POLICY_DOUBT"]
        if received and self.driving_sha256 and self.driving_sha256 != tick["sha256"]:
            bits |= R["POLICY_HASH"]
        return bits

    def _check_proposal(self, name: str, proposal: dict[str, Any], tick: dict[str, Any], start: list[float]) -> int:
        bits = 0
        if proposal["receive_ns"] == NEVER_NS:
            bits |= R[f"{name}_NEVER"]
        else:
            max_age_ns = self.proposal_ns[name]
            age_ns = tick["monotonic_ns"] - proposal["receive_ns"]
            stamp_age_ns = tick["time_ns"] - proposal["stamp_ns"]
            if age_ns > max_age_ns or stamp_age_ns > max_age_ns + max(self.max_age_ns):
                bits |= R[f"{name}_STALE"]
            if stamp_age_ns < -self.future_ns:
                bits |= R[f"{name}_FUTURE"]
            if not all(math.isfinite(value) for value in proposal["action"]):
                bits |= R[f"{name}_NOT_FINITE"]
        if any(abs(p - s) > limit for p, s, limit in zip(proposal["action"], start, self.jump, strict=True)):
            bits |= R[f"{name}_JUMP"]
        return bits

    def _discrepancy(self, tick: dict[str, Any]) -> float:
        total = 0.0
        for policy, expert, low, high in zip(
            tick["policy"]["action"], tick["expert"]["action"], self.lower, self.upper, strict=True
        ):
            total += ((_clip(policy, low, high) - _clip(expert, low, high)) / (high - low)) ** 2
        return 2.0 * math.sqrt(total)

    def _change_mode(self, bits: int, intent: int) -> None:
        fresh = not bits & _LOCK
        if self.mode is Mode.EXPERT and not intent & _CONSENTS:
            self.mode = Mode.HOLD
        if self.mode is Mode.LOCKED and fresh:
            self.mode = Mode.POLICY
            self.last_ns = NEVER_NS
        if self.mode is Mode.HOLD and intent & _UNATTENDED:
            self.mode = Mode.POLICY
        if self.mode is Mode.EXPERT:
            self.mode = Mode.HOLD
        if self.mode is Mode.HOLD and intent & _WANTS_RESUME:
            self.mode = Mode.POLICY
        if self.mode in (Mode.HOLD, Mode.POLICY) and self.pressed:
            self.mode = Mode.EXPERT
        outside = bool(bits & R["WORKSPACE"])
        crossed, self.was_outside = outside and not self.was_outside, outside
        if (self.mode is Mode.POLICY and bits & _HOLD_POLICY) or (
            self.mode is Mode.EXPERT and (bits & _HOLD_EXPERT or crossed)
        ):
            self.mode = Mode.HOLD
        if not fresh and self.mode is not Mode.ESTOP:
            self.mode = Mode.LOCKED
        if bits & _ESTOP:
            self.mode = Mode.ESTOP

    def _execute(self, tick: dict[str, Any], bits: int) -> tuple[list[float], list[float], int]:
        reasons, now_ns = 0, tick["monotonic_ns"]
        if self._is_idle(now_ns):
            start = [_NAN] * len(self.last) if bits & _LOCK else self._start(tick)
            self.last, self.last_ns = list(start), NEVER_NS
            self.slope, self.curve = [0.0] * len(start), [0.0] * len(start)
            self.in_bounds = all(low <= v <= up for v, low, up in zip(start, self.lower, self.upper, strict=True))
        if self.mode is Mode.POLICY:
            requested = list(tick["policy"]["action"])
        elif self.mode is Mode.EXPERT:
            requested = list(tick["expert"]["action"])
        else:
            reasons = R[_STOPPED[self.mode]]
            requested = list(tick["measured"] if bits & R["TRACKING"] and not bits & _LOCK else self.last)
        if not all(math.isfinite(value) for value in requested):
            return requested, list(requested), reasons
        if not self.in_bounds:
            return requested, [_NAN] * len(requested), reasons | R["START_OUT_OF_BOUNDS"]
        stop = reasons != 0
        eased = not stop and now_ns <= self.eased_until_ns
        scale = self.handover_scale if eased else 1.0
        executed, limited = self._limit(requested, now_ns, stop, scale)
        if not limited & R["HANDOVER"]:
            self.eased_until_ns = NEVER_NS
        return requested, executed, reasons | limited

    def _limit(self, action: list[float], now_ns: int, stop: bool, scale: float) -> tuple[list[float], int]:
        elapsed_ns = self.period_ns if self.last_ns == NEVER_NS else now_ns - self.last_ns
        if elapsed_ns < 0.1 * self.period_ns:
            self.last_ns = min(self.last_ns, now_ns)
            return list(self.last), R["CLAMPED_RATE"] if action != self.last else 0
        if elapsed_ns > 1.5 * self.period_ns:
            elapsed_ns = int(1.5 * self.period_ns)
            self.slope, self.curve = [0.0] * len(action), [0.0] * len(action)
        step_s = elapsed_ns * 1e-9
        bits, executed, reaches, slopes, curves = 0, [], [], [], []
        changed = bent = False
        for i, wanted in enumerate(action):
            low, high = self._reach(i, step_s, 1.0)
            value = _clip(_clip(wanted, low, high), self.lower[i], self.upper[i])
            changed = changed or value != wanted
            reaches.append((low, high))
            if scale < 1.0 and not stop:
                gentle = self._reach(i, step_s, scale)
                if value < gentle[0] or value > gentle[1]:
                    bits |= R["HANDOVER"]
                    value = _clip(value, *gentle)
                    value = _clip(_clip(value, low, high), self.lower[i], self.upper[i])
            executed.append(value)
        if changed:
            bits |= self._broken(action, reaches, step_s)
        for i in range(len(action)):
            middle, slack, _ = self._bend(i, step_s)
            bent = bent or abs(executed[i] - middle) > slack
        if bent and stop:
            bits |= R["JERK_EXCEEDED"]
        elif bent:
            for i, wanted in enumerate(executed):
                middle, slack, bend = self._bend(i, step_s)
                value = _clip(wanted, middle - bend, middle + bend)
                value = _clip(_clip(value, *reaches[i]), self.lower[i], self.upper[i])
                if value != wanted:
                    bits |= R["CLAMPED_JERK"]
                if abs(value - middle) > slack:
                    bits |= R["JERK_EXCEEDED"]
                executed[i] = value
        for i, value in enumerate(executed):
            slopes.append((value - self.last[i]) / step_s)
            curves.append((slopes[i] - self.slope[i]) / step_s)
        self.last, self.slope, self.curve, self.last_ns = list(executed), slopes, curves, now_ns
        return executed, bits

    def _reach(self, i: int, step_s: float, scale: float) -> tuple[float, float]:
        change = self.acceleration[i] * step_s
        ends = []
        for bound, side in ((self.lower[i], -1.0), (self.upper[i], 1.0)):
            room = abs(bound - self.last[i])
            speed = math.sqrt(room * (2.0 * self.acceleration[i]) + change * change) - change
            speed = min(speed, self.speed[i] * scale) * side
            speed = _clip(speed, self.slope[i] - change * scale, self.slope[i] + change * scale)
            ends.append(self.last[i] + speed * step_s)
        return ends[0], ends[1]

    def _broken(self, action: list[float], reaches: list[tuple[float, float]], step_s: float) -> int:
        bits = 0
        if any(a < low or a > high for a, low, high in zip(action, self.lower, self.upper, strict=True)):
            bits |= R["CLAMPED_BOUND"]
        way_s = step_s * (1 + 1e-9)
        if any(abs(a - last) > v * way_s for a, last, v in zip(action, self.last, self.speed, strict=True)):
            return bits | R["CLAMPED_RATE"]
        for i, (low, high) in enumerate(reaches):
            inside = _clip(action[i], self.lower[i], self.upper[i])
            slack = self.speed[i] * (self.period_ns * 1e-9 * 1e-9)
            if inside < low - slack or inside > high + slack:
                return bits | R["CLAMPED_ACCELERATION"]
        return bits

    def _bend(self, i: int, step_s: float) -> tuple[float, float, float]:
        middle = self.last[i] + self.slope[i] * step_s + self.curve[i] * (step_s * step_s)
        time_to_bend = step_s * step_s * step_s
        grain = 8 * 2.0**-52 * max(abs(self.lower[i]), abs(self.upper[i]))
        bend = self.jerk[i] * time_to_bend
        return middle, self.jerk[i] * (time_to_bend * (1 + 1e-9)) + grain, bend


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
