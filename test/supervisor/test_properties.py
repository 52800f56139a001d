"""Whatever comes in: properties over long random runs, judged by a referee that does not know the gate's code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import LIMIT, PERIOD_NS, STEP, Bench
from dagger_ros.contract import ExpertIntent, Mode
from dagger_ros.supervisor import CHECKS, Event, Gate, HumanGated
from referee import Mix, World, contract_of, rules, violations

SHARE = st.floats(0.0, 0.3)
MIXES = st.builds(Mix, time=SHARE, observation=SHARE, proposal=SHARE, wild=SHARE, request=SHARE, deadman=SHARE)
KINDS = [("velocity", False), ("velocity", True), ("position", False), ("position", True), ("effort", False)]
CONTRACTS = {kind: contract_of(kind[0], jerk=kind[1]) for kind in KINDS}


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), rule=st.integers(0, len(rules()) - 1), mix=MIXES)
@pytest.mark.slow
def test_no_command_breaks_a_limit_and_one_within_limits_passes_unchanged(
    seed: int, kind: tuple[str, bool], rule: int, mix: Mix
) -> None:
    """50,000 ticks."""
    found, _ = violations(CONTRACTS[kind], seed, 500, mix, rules()[rule])
    assert not found


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_world_of_the_property_lets_everybody_drive(kind: tuple[str, bool]) -> None:
    """A gate that never lets anybody drive would keep every property."""
    found, modes = violations(CONTRACTS[kind], 1, 4000, Mix(), HumanGated())
    assert not found
    assert all(modes[mode] > 50 for mode in Mode), modes


@settings(max_examples=30)
@given(order=st.permutations(CHECKS), seed=st.integers(0, 2**32 - 1))
def test_order_of_the_checks_does_not_matter(order: list[Any], seed: int) -> None:
    contract = CONTRACTS["position", False]
    rows = []
    for checks in (CHECKS, tuple(order)):
        world, gate = World(contract, seed, Mix()), Gate(contract, HumanGated(), auto_arm=False)
        gate.checks = checks
        decided = b""
        for _ in range(60):
            row = world.next_row()
            gate.decide(row)
            world.follow(row)
            decided += row.tobytes()
        rows.append(decided)
    assert rows[0] == rows[1]


ANY = st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf, LIMIT, -LIMIT, 0.0, 1e308])
TICK = st.tuples(
    st.tuples(ANY, ANY, ANY),
    st.tuples(ANY, ANY, ANY),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from([0, 1, 1, 1, 1, 2, 40]),
    st.sampled_from([None, None, None, *Event]),
)


@settings(max_examples=200)
@given(st.lists(TICK, min_size=1, max_size=30))
def test_whatever_comes_in_what_goes_out_is_finite_bounded_and_within_the_rate(ticks: list[Any]) -> None:
    bench = Bench()
    last = np.zeros(3)
    for policy, expert, takeover, resume, missing, periods, request in ticks:
        bench.now_ns += (periods - 1) * PERIOD_NS
        row = bench.row(policy, expert)
        if missing == 0:
            row["receive_ns"][0] = -1
        bench.tick(row, ExpertIntent(True, takeover, resume), () if request is None else (request,))
        out = row["executed_action"]
        assert np.isfinite(out).all()
        assert (np.abs(out) <= LIMIT).all()
        # The driver has stopped by itself meanwhile, or the robot is somewhere else.
        start = np.zeros(3) if periods == 40 or request is Event.LOCK else last
        assert (np.abs(out - start) <= 1.5 * STEP + 1e-12).all()
        assert missing != 0 or row["mode"] in (Mode.LOCKED, Mode.ESTOP)
        last = out.copy()
