"""The tick against the same written plainly, which `benchmarks/tick.py` measures it against."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from dagger_ros.contract import Contract, Intent, RowLayout
from dagger_ros.supervisor import Gate, HumanGated

COMPARED = ("mode", "reasons", "requested_action", "executed_action", "label_source", "intervention")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def with_limits(**limits: float) -> Contract:
    """12 joints by position with these limits."""
    from decision import arm

    content = arm("position").model_dump(mode="json", by_alias=True)
    for dimension in content["action"]["dimensions"]:
        dimension |= limits
    return Contract.model_validate(content)


def plainly(layout: RowLayout, row: Any) -> dict[str, Any]:
    """A row as lists and plain numbers."""
    action = layout.contract.action

    def stream(name: str | None) -> list[float]:
        values: list[float] = layout.stream(row, layout.streams.index(name or "")).tolist()
        return values

    def proposal(source: str) -> dict[str, Any]:
        times = {name: int(row[f"{source}_{name}"]) for name in ("stamp_ns", "receive_ns")}
        return {"action": row[f"{source}_action"].tolist()} | times

    return {
        "time_ns": int(row["time_ns"]),
        "monotonic_ns": int(row["monotonic_ns"]),
        "stamp_ns": row["stamp_ns"].tolist(),
        "receive_ns": row["receive_ns"].tolist(),
        "observation": row["observation"].tolist(),
        "measured": stream(action.measured),
        "boxes": [(stream(box.stream), box.lower, box.upper) for box in action.workspace],
        "policy": proposal("policy"),
        "expert": proposal("expert"),
        "sha256": row["policy_sha256"].decode(),
        "doubt": float(row["doubt"]),
        "intent": int(row["expert_intent"]),
        "bits": int(row["reasons"]),
    }


class Robot:
    """Rows of a robot that follows its commands, with accidents."""

    def __init__(self, layout: RowLayout, seed: int, restless: float) -> None:
        self.row = layout.new(1)[0]
        self._layout, self._rng, self._restless = layout, np.random.default_rng(seed), restless
        self._now_ns, self._period_ns = 10**9, layout.contract.timing.period_ns
        self._where, self._goal = np.zeros(12), np.zeros(12)

    def next_row(self) -> Any:
        """The inputs of the next tick."""
        rng, row = self._rng, self.row
        odd = rng.choice([0.05, 0.7, 1.01, 2.5]) if rng.random() < 0.1 else 1.0
        self._now_ns += int(self._period_ns * odd)
        row["reasons"] = 0
        row["time_ns"] = self._now_ns + (int(rng.normal() * 3e8) if rng.random() < 0.02 else 0)
        row["monotonic_ns"] = self._now_ns
        for i in range(len(self._layout.streams)):
            if rng.random() < 0.97:
                row["stamp_ns"][i] = self._now_ns - rng.integers(0, 20) * 10**6
                row["receive_ns"][i] = self._now_ns
        row["observation"] = rng.normal(scale=0.4, size=self._layout.observation_size)
        slip = 1.0 if rng.random() < 0.02 else 0.01
        self._layout.stream(row, 0)[:] = self._where + rng.normal(scale=slip, size=12)
        if rng.random() < 0.01:
            row["observation"][rng.integers(self._layout.observation_size)] = np.nan
        self._goal += rng.normal(scale=self._restless * rng.choice([0.01, 0.1, 1.0]), size=12)
        np.clip(self._goal, -3.5, 3.5, out=self._goal)
        for source in ("policy", "expert"):
            if rng.random() < 0.97:
                row[f"{source}_action"] = self._goal + (rng.normal(scale=0.01, size=12) if source == "expert" else 0)
                row[f"{source}_stamp_ns"], row[f"{source}_receive_ns"] = row["stamp_ns"].max(), self._now_ns
            if rng.random() < 0.01:
                row[f"{source}_action"][rng.integers(12)] = rng.choice([np.nan, np.inf])
        row["doubt"] = np.nan if rng.random() < 0.01 else rng.random()
        row["policy_sha256"] = b"b" * 64 if rng.random() < 0.01 else b"a" * 64
        if rng.random() < 0.15:
            intents = [Intent.LABEL, Intent.TAKEOVER | Intent.LABEL, Intent.RESUME, Intent.UNATTENDED | Intent.LABEL, 0]
            row["expert_intent"] = rng.choice(intents)
        return row

    def follow(self) -> None:
        """Moves towards what was sent."""
        sent = self.row["executed_action"]
        if np.isfinite(sent).all():
            self._where = (self._where + sent) / 2


LIMITS = st.fixed_dictionaries(
    {
        "velocity_limit": st.floats(0.1, 20.0),
        "acceleration_limit": st.floats(0.5, 200.0),
        "jerk_limit": st.floats(5.0, 5e4),
        "jump_limit": st.floats(0.1, 10.0),
        "tracking_limit": st.floats(0.1, 10.0),
    }
)


@settings(max_examples=60)
@given(limits=LIMITS, seed=st.integers(0, 2**32 - 1), restless=st.sampled_from([0.003, 0.05, 0.5]))
def test_gate_decides_what_the_plain_one_does_bit_for_bit(limits: dict[str, float], seed: int, restless: float) -> None:
    from reference.plain_gate import PlainGate

    contract = with_limits(**limits)
    layout = RowLayout(contract)
    gate, plain, robot = Gate(contract, HumanGated(), auto_arm=True), PlainGate(contract), Robot(layout, seed, restless)
    gate.start_episode(0)
    for _ in range(60):
        row = robot.next_row()
        expected = plain.decide(plainly(layout, row))
        gate.decide(row)
        for name in COMPARED:
            np.testing.assert_array_equal(row[name], expected[name], err_msg=name)
        # Of sums of 12 squares: numpy adds them in another order.
        np.testing.assert_allclose(row["discrepancy"], expected["discrepancy"], rtol=1e-12)
        robot.follow()


@pytest.mark.ros
@pytest.mark.torch
def test_tick_gives_the_commands_of_the_plain_one() -> None:
    pytest.importorskip("rclpy")
    pytest.importorskip("torch")
    import tick

    assert (tick.measure(tick.task(), 50) > 0).all()  # it ends the benchmark where a command or a mode differs


@pytest.mark.ros
@pytest.mark.torch
def test_tick_leaves_nothing_behind_in_memory() -> None:
    pytest.importorskip("rclpy")
    pytest.importorskip("torch")
    import tick

    ticks = 3000
    # One number may stand where there was none; one object a tick would be 24 bytes each.
    assert abs(tick.growth(tick.task(), ticks, warm=1000)) < ticks
