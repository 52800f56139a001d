"""Settings of a gate as data: there and back through their message, and what cannot be."""

from __future__ import annotations

import math
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest

from bench import PEG, Bench
from dagger_ros.contract import DaggerError, Mode, Scores
from dagger_ros.supervisor import Dagger, GateSettings, Limits, Reason, RuleOptions

ALL = GateSettings(
    rule="thrifty",
    round=3,
    auto_arm=True,
    options=RuleOptions("linear", 0.2, 0.3),
    back_ticks=7,
    needs_expert=False,
    doubt_limit=0.5,
    policy_sha256="a" * 64,
)


def test_message_gives_the_settings_back_that_it_was_filled_with() -> None:
    message = SimpleNamespace()
    ALL.write(message)
    assert GateSettings.read(message) == ALL
    assert vars(message) == {
        "rule": "thrifty",
        "round": 3,
        "beta": "linear",
        "budget": 0.2,
        "expert_noise": 0.3,
        "back_ticks": 7,
        "auto_arm": True,
        "needs_expert": False,
        "doubt_limit": 0.5,
        "policy_sha256": "a" * 64,
    }


def test_message_has_every_setting_and_the_contract() -> None:
    msg = pytest.importorskip("dagger_ros.msg")
    names = {f.name for f in fields(GateSettings)} | {f.name for f in fields(RuleOptions)}
    assert set(msg.GateSettings.get_fields_and_field_types()) == names - {"options"} | {"contract_sha256"}
    message = msg.GateSettings()
    ALL.write(message)
    assert GateSettings.read(message) == ALL


def test_gate_is_made_by_them() -> None:
    gate = ALL.make_gate(PEG, Limits(Scores(doubt=0.1), Scores(discrepancy=0.2), 7))
    assert (gate.rule.name, gate.rule.limits.back_ticks, gate.rule.limits.back.discrepancy) == ("thrifty", 7, 0.2)
    lonely = ALL.make_gate(PEG, Limits()).hold_policy
    watched = GateSettings(rule="hg", round=1, auto_arm=False).make_gate(PEG, None).hold_policy
    assert watched & ~lonely
    assert not lonely & ~watched


@pytest.mark.parametrize("auto_arm", [True, False])
def test_gate_arms_and_refuses_as_they_say(auto_arm: bool) -> None:
    bench = Bench()
    settings = GateSettings("hg", 1, auto_arm=auto_arm, doubt_limit=0.5, policy_sha256="a" * 64)
    bench.gate = settings.make_gate(PEG, None)
    for doubt, sha256, reason in ((0.4, "a", 0), (0.6, "a", Reason.POLICY_DOUBT), (0.4, "b", Reason.POLICY_HASH)):
        row = bench.row()
        row["doubt"], row["policy_sha256"] = doubt, (sha256 * 64).encode()
        assert bench.tick(row) & (Reason.POLICY_DOUBT | Reason.POLICY_HASH) == reason
        if not reason:
            assert row["mode"] == (Mode.POLICY if auto_arm else Mode.LOCKED)


def test_rule_is_made_with_its_options() -> None:
    rule = GateSettings("dagger", 3, auto_arm=True, options=RuleOptions("linear")).make_gate(PEG, None).rule
    assert isinstance(rule, Dagger)
    assert rule.beta == pytest.approx(0.4)


@pytest.mark.parametrize(("round_index", "rule"), [(0, "bc"), (1, "hg")])
def test_round_0_is_demonstrations(round_index: int, rule: str) -> None:
    assert GateSettings(rule="hg", round=round_index, auto_arm=True).make_gate(PEG, None).rule.name == rule


def test_rule_that_asks_for_help_is_refused_without_limits() -> None:
    with pytest.raises(DaggerError, match="expected a policy with limits that were fitted for this rule, got none"):
        ALL.make_gate(PEG, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doubt_limit": 0.0}, r"^doubt_limit: expected a number > 0 \(inf: no limit\), got 0$"),
        ({"doubt_limit": math.nan}, r"^doubt_limit: expected a number > 0 \(inf: no limit\), got nan$"),
        ({"policy_sha256": "abc"}, "^policy_sha256: expected 64 hex digits or nothing, got 'abc'$"),
        (
            {"options": RuleOptions(expert_noise=0.1)},
            "^expert_noise: expected 0 where a person arms the robot, got 0.1$",
        ),
    ],
)
def test_setting_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DaggerError, match=message):
        GateSettings(rule="hg", round=1, auto_arm=False, **change)
