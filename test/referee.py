"""A world full of faults for the gate, and a referee that knows the rules and not the gate's code.

Shared by the property tests and by `benchmarks/soak_supervisor.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from conftest import by_joint_position, contract_path
from dagger_ros.contract import Contract, Interface, Mode, RowLayout, Scores, load_contract
from dagger_ros.supervisor import (
    Dagger,
    Event,
    Gate,
    HumanGated,
    Lazy,
    Limits,
    Reason,
    Response,
    Rule,
    Thrifty,
    response_bits,
)

NEVER = -1
# Rounding of differences and quotients; everything below is compared with this slack relative to the limit.
SLACK = 1e-6
DRIVEN = (Mode.POLICY, Mode.EXPERT)
LIMITED, BLIND = response_bits(Response.LIMIT), response_bits(Response.LOCK)


def contract_of(interface: str, *, jerk: bool = False) -> Contract:
    """The peg's arm commanded by tool velocity, by joint position or by joint effort."""
    content = load_contract(contract_path("peg")).model_dump(mode="json", by_alias=True)
    if interface == "position":
        by_joint_position(content)
        for d in content["action"]["dimensions"]:
            d |= {"lower": -0.4, "upper": 0.4}  # near enough to be reached again and again
    elif interface == "effort":
        by_joint_position(content)
        content["action"] |= {"interface": "effort", "stop": "delegate", "measured": None}
        for d in content["action"]["dimensions"]:
            d |= {"unit": "N*m", "rate_limit": 20.0, "velocity_limit": None, "acceleration_limit": None}
            d |= {"tracking_limit": None, "jump_limit": 3.0}
    content["action"]["handover"]["beta_mixing"] = True
    if interface == "velocity":
        for i, d in enumerate(content["action"]["dimensions"]):
            d["deceleration_limit"] = (2.0, 4.0, 8.0)[i]
    if jerk:
        for d in content["action"]["dimensions"]:
            d["jerk_limit"] = 300.0
    return Contract.model_validate(content)


@dataclass(frozen=True)
class Mix:
    """How much goes wrong: probabilities of each tick."""

    time: float = 0.05
    observation: float = 0.02
    proposal: float = 0.05
    wild: float = 0.1
    request: float = 0.3
    deadman: float = 0.1


class World:
    """Rows as a robot in trouble would give them: most ticks are good, so that the gate drives at all."""

    def __init__(self, contract: Contract, seed: int, mix: Mix) -> None:
        self.contract, self.layout, self.mix = contract, RowLayout(contract), mix
        self.rng = np.random.default_rng(seed)
        self.period_ns = contract.timing.period_ns
        action = contract.action
        self.measured = self.layout.streams.index(action.measured) if action.measured else None
        self.box = self.layout.streams.index(action.workspace[0].stream) if action.workspace else None
        dimensions = action.dimensions_
        self.lower = np.array([d.lower for d in dimensions])
        self.upper = np.array([d.upper for d in dimensions])
        self.time_ns = self.monotonic_ns = 10**9
        self.takeover = False
        self.body = np.zeros(len(dimensions))
        self.goals = [np.zeros(len(dimensions)), np.zeros(len(dimensions))]
        self._rows = self.layout.new(1)

    def next_row(self) -> Any:
        """The inputs of one tick."""
        rng, mix = self.rng, self.mix
        elapsed_ns = int(self.period_ns * rng.uniform(0.95, 1.05))
        if rng.random() < mix.time:
            elapsed_ns = int(self.period_ns * rng.choice([0.0, 0.02, 0.3, 1.6, 3.0, 9.0]))
        self.monotonic_ns += elapsed_ns
        self.time_ns += elapsed_ns
        if rng.random() < mix.time * 0.2:
            self.time_ns += int(rng.choice([-5, 5]) * self.period_ns)
        self._rows[:] = self.layout.new(1)
        row = self._rows[0]
        row["time_ns"], row["monotonic_ns"] = self.time_ns, self.monotonic_ns
        self._observe(row)
        for i, source in enumerate(("policy", "expert")):
            self._propose(row, source, i)
        row["doubt"], row["risk"] = rng.uniform(0.0, 0.5, 2)
        row["policy_sha256"] = b"a" * 64
        if rng.random() < mix.deadman:
            self.takeover = not self.takeover
        row["expert_intent"] = 1 + 2 * self.takeover + 4 * (rng.random() < mix.request)
        if rng.random() < mix.request:
            row["requests"] = Event.RESET_ESTOP.bit + Event.ARM.bit + Event.RESUME.bit
        elif rng.random() < 0.02:
            row["requests"] = int(rng.integers(256))
        return row

    def _observe(self, row: Any) -> None:
        rng = self.rng
        age_ns = rng.integers(0, self.period_ns // 2, len(row["stamp_ns"]))
        row["stamp_ns"], row["receive_ns"] = self.time_ns - age_ns, self.monotonic_ns - age_ns
        row["observation"] = rng.normal(0.0, 0.1, len(row["observation"]))
        if self.measured is not None:
            self.layout.stream(row, self.measured)[:] = self.body
        if self.box is not None:
            self.layout.stream(row, self.box)[:] = [
                0.45,
                0.0,
                rng.choice([0.2, 0.2, 0.2, 0.9], p=[0.9, 0.05, 0.04, 0.01]),
            ]
        if rng.random() < self.mix.observation:
            i = int(rng.integers(len(age_ns) - 1))
            kind = rng.integers(5)
            if kind == 0:
                row["receive_ns"][i] = row["stamp_ns"][i] = NEVER
            elif kind == 1:
                row["receive_ns"][i] -= 10**9
            elif kind == 2:
                row["stamp_ns"][i] += int(rng.choice([-1, 1])) * 10**9
            elif kind == 3:
                row["observation"][rng.integers(len(row["observation"]))] = rng.choice([np.nan, np.inf, -np.inf])
            else:
                row["reasons"] = int(rng.choice([Reason.OBSERVATION_SIZE, Reason.ESTOP_PRESSED, Reason.RECORDER_STALE]))

    def _propose(self, row: Any, source: str, index: int) -> None:
        rng, goal = self.rng, self.goals[index]
        age_ns = int(rng.integers(0, self.period_ns // 2))
        row[f"{source}_stamp_ns"], row[f"{source}_receive_ns"] = self.time_ns - age_ns, self.monotonic_ns - age_ns
        if rng.random() < self.mix.wild:
            width = self.upper - self.lower
            goal[:] = self.body + rng.uniform(-0.3, 0.3, len(goal)) * rng.choice([0.01, 0.1, 1.0]) * width
        action = goal.copy()
        if rng.random() < self.mix.proposal:
            kind = rng.integers(5)
            if kind == 0:
                row[f"{source}_receive_ns"] = row[f"{source}_stamp_ns"] = NEVER
            elif kind == 1:
                row[f"{source}_receive_ns"] -= 10**9
            elif kind == 2:
                row[f"{source}_stamp_ns"] += int(rng.choice([-1, 1])) * 10**10
            else:
                action[rng.integers(len(action))] = rng.choice([np.nan, np.inf, -np.inf, 1e308, 1e3, -57.3])
        row[f"{source}_action"] = action

    def follow(self, row: Any) -> None:
        """The robot does what it was told, a little late, and now and then is pushed."""
        if np.isfinite(row["executed_action"]).all():
            self.body += 0.8 * (row["executed_action"] - self.body)
        if self.rng.random() < 0.002:
            self.body[:] = np.clip(self.body + self.rng.normal(0.0, 0.5, len(self.body)), self.lower, self.upper)


class Referee:
    """Judges what goes out, tick by tick, from the contract and the rows alone."""

    def __init__(self, contract: Contract, rule: Rule) -> None:
        self.mixes = rule.mixes
        self.rule_switches = rule.mixes or rule.robot_gated  # the rule may give control back by itself
        self.pressed = False
        action, timing = contract.action, contract.timing
        self.contract, self.layout = contract, RowLayout(contract)
        self.interface = action.interface
        self.dimensions = action.dimensions_
        self.period_s = timing.period_ns * 1e-9
        self.timeout_ns = round(timing.driver_timeout_s * 1e9)
        self.measured = self.layout.streams.index(action.measured) if action.measured else None
        self.last: Any = None
        self.last_ns = NEVER
        self.slope = np.zeros(len(self.dimensions))
        self.curve = np.zeros(len(self.dimensions))
        self.before = Mode.LOCKED

    def violations(self, row: Any) -> Iterator[str]:
        """Everything that one decided row breaks, in words."""
        mode, reasons = Mode(row["mode"]), Reason(int(row["reasons"]))
        out, now_ns = row["executed_action"].copy(), int(row["monotonic_ns"])
        yield from self._driver(row, mode, reasons)
        # An episode that begins anew, an arming, and a driver that was left alone begin at rest.
        requests = int(row["requests"])
        fresh = not reasons & BLIND
        armed = self.before is Mode.LOCKED and requests & Event.ARM.bit and fresh
        armed |= self.before is Mode.ESTOP and requests & Event.RESET_ESTOP.bit
        armed &= self.measured is not None
        if self.last_ns == NEVER or now_ns - self.last_ns > self.timeout_ns or requests & Event.LOCK.bit or armed:
            self._restart(row)
        self.before = mode
        if not np.isfinite(out).any():
            return
        if not np.isfinite(out).all():
            yield f"half a command: {out}"
            return
        elapsed_s = self.period_s if self.last_ns == NEVER else (now_ns - self.last_ns) * 1e-9
        if elapsed_s < 0.1 * self.period_s:
            if (out != self.last).any():
                yield f"moved in a burst: {self.last} to {out} in {elapsed_s} s"
            return
        if elapsed_s > 1.5 * self.period_s:
            elapsed_s = 1.5 * self.period_s
            self.slope[:] = self.curve[:] = 0.0
        slope = (out - self.last) / elapsed_s
        for i, d in enumerate(self.dimensions):
            yield from self._limits(i, d, float(out[i]), float(slope[i]), elapsed_s, mode, reasons)
        if mode in DRIVEN and not reasons & Reason.HANDOVER:
            yield from self._unchanged(row, out, elapsed_s, reasons)
        if self.interface is Interface.POSITION:
            self.curve = (slope - self.slope) / elapsed_s
        self.slope, self.last, self.last_ns = slope, out, now_ns

    def _restart(self, row: Any) -> None:
        self.last_ns = NEVER
        self.slope[:] = self.curve[:] = 0.0
        self.last = np.zeros(len(self.dimensions))
        if self.interface is Interface.POSITION and self.measured is not None:
            self.last = self.layout.stream(row, self.measured).copy()

    def _driver(self, row: Any, mode: Mode, reasons: Reason) -> Iterator[str]:
        """Who drives has seen everything, just now, and has something to say."""
        contract = self.contract
        blind = False
        for i, s in enumerate(contract.streams.values()):
            if s.privileged:
                continue
            stamp, received = int(row["stamp_ns"][i]), int(row["receive_ns"][i])
            age_s = (int(row["time_ns"]) - stamp) * 1e-9
            blind |= received == NEVER or (int(row["monotonic_ns"]) - received) * 1e-9 > s.max_age_s + SLACK
            blind |= age_s > s.max_age_s + SLACK or age_s < -contract.timing.future_tolerance_s - SLACK
        blind |= not np.isfinite(row["observation"]).all() or bool(reasons & Reason.OBSERVATION_SIZE)
        if blind and mode not in (Mode.LOCKED, Mode.ESTOP):
            yield f"{mode.name} without seeing"
        if reasons & Reason.ESTOP_PRESSED and mode is not Mode.ESTOP:
            yield f"{mode.name} with the emergency stop pressed"
        if mode in DRIVEN:
            source = mode.name.lower()
            limit_s = getattr(contract.timing, f"{source}_max_age_s")
            received = int(row[f"{source}_receive_ns"])
            if received == NEVER or (int(row["monotonic_ns"]) - received) * 1e-9 > limit_s + SLACK:
                yield f"{source} drives with an old action"
            if not np.isfinite(row[f"{source}_action"]).all():
                yield f"{source} drives with an action that is not finite"
            if reasons & Reason.RECORDER_STALE:
                yield f"{source} drives unrecorded"
        elif row["label_source"] != -1:
            yield f"label in {mode.name}"
        if reasons & Reason.HANDOVER and row["label_source"] != -1:
            yield "label in a hand-over"
        pressed = bool(int(row["expert_intent"]) & 2)
        pressed_anew, self.pressed = pressed and not self.pressed, pressed
        asked = int(row["requests"]) & (Event.RESUME.bit | Event.TAKEOVER.bit)
        said = pressed_anew or int(row["expert_intent"]) & 4 or asked
        if mode in DRIVEN and self.before not in DRIVEN and not said and not self.mixes:
            yield f"{mode.name} after {self.before.name} and nobody said so"
        if mode is Mode.POLICY and self.before is Mode.EXPERT and not (self.rule_switches or said):
            yield "from the expert straight to the policy"

    def _limits(
        self, i: int, d: Any, value: float, slope: float, elapsed_s: float, mode: Mode, reasons: Reason
    ) -> Iterator[str]:
        if not d.lower <= value <= d.upper:
            yield f"{d.name} = {value} is out of bounds"
        last = float(self.last[i])
        if self.interface is Interface.POSITION:
            if abs(slope) > d.velocity_limit * (1 + SLACK):
                yield f"{d.name} moves at {slope}"
            acceleration = (slope - self.slope[i]) / elapsed_s
            if abs(acceleration) > d.acceleration_limit * (1 + SLACK):
                yield f"{d.name} accelerates by {acceleration}"
            bend, limit = (acceleration - self.curve[i]) / elapsed_s, d.jerk_limit
        else:
            up, down = d.acceleration_limit or d.rate_limit, d.deceleration_limit or d.rate_limit
            low, high = reach(last, up, down, elapsed_s), -reach(-last, up, down, elapsed_s)
            if not low - SLACK <= value <= high + SLACK:
                yield f"{d.name} goes from {last} to {value} in {elapsed_s} s"
            bend, limit = (slope - self.slope[i]) / elapsed_s, d.jerk_limit
            if mode not in DRIVEN and abs(value) > abs(last) + SLACK:
                yield f"{d.name} speeds up in {mode.name}"
        if limit is not None and abs(bend) > limit * (1 + SLACK) and not reasons & Reason.JERK_EXCEEDED:
            yield f"{d.name} jerks by {bend} and nobody says so"

    def _unchanged(self, row: Any, out: Any, elapsed_s: float, reasons: Reason) -> Iterator[str]:
        """A request that keeps every limit with room to spare goes out as it is."""
        wanted = row["requested_action"]
        slope = (wanted - self.last) / elapsed_s
        spare = 1 - SLACK
        for i, d in enumerate(self.dimensions):
            value, last = float(wanted[i]), float(self.last[i])
            fits = d.lower <= value <= d.upper
            if self.interface is Interface.POSITION:
                acceleration = (slope[i] - self.slope[i]) / elapsed_s
                fits &= abs(slope[i]) <= d.velocity_limit * spare
                fits &= abs(acceleration) <= d.acceleration_limit * spare
                room = (d.upper - value) if slope[i] > 0 else (value - d.lower)
                fits &= slope[i] ** 2 / (2 * d.acceleration_limit) <= room * spare
                bend = (acceleration - self.curve[i]) / elapsed_s
            else:
                up, down = d.acceleration_limit or d.rate_limit, d.deceleration_limit or d.rate_limit
                fits &= reach(last, up, down, elapsed_s * spare) <= value <= -reach(-last, up, down, elapsed_s * spare)
                bend = (slope[i] - self.slope[i]) / elapsed_s
            fits &= d.jerk_limit is None or abs(bend) <= d.jerk_limit * spare
            if fits and out[i] != value:
                yield f"{d.name}: asked for {value}, which keeps every limit, sent {out[i]}"
            if out[i] != value and not reasons & LIMITED:
                yield f"{d.name}: asked for {value}, sent {out[i]}, and nobody says why"


def reach(value: float, up: float, down: float, time_s: float) -> float:
    """Lowest velocity after some time: down to zero by the deceleration, from there by the acceleration."""
    if value <= 0:
        return value - up * time_s
    to_zero_s = value / down
    return value - down * time_s if to_zero_s >= time_s else -up * (time_s - to_zero_s)


def rules() -> list[Rule]:
    limits = Limits(Scores(doubt=0.45), Scores(discrepancy=0.5))
    return [HumanGated(), Dagger(0.3), Lazy(limits, 0.1), Thrifty(limits, 0.05)]


def violations(contract: Contract, seed: int, ticks: int, mix: Mix, rule: Rule) -> tuple[list[str], dict[int, int]]:
    """Runs the gate through a world.

    Returns:
        What was violated, and how many ticks each mode had.
    """
    world, referee = World(contract, seed, mix), Referee(contract, rule)
    gate = Gate(contract, rule, auto_arm=False)
    gate.start_episode(seed)
    found, modes = [], dict.fromkeys(Mode, 0)
    for i in range(ticks):
        row = world.next_row()
        gate.decide(row)
        found += [f"tick {i}: {text}" for text in referee.violations(row)]
        modes[Mode(row["mode"])] += 1
        world.follow(row)
    return found, modes
