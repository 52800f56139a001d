"""A gate with a clock around it, for tests of single ticks."""

from __future__ import annotations

from typing import Any

from conftest import by_joint_position, contract_path
from dagger_ros.contract import Contract, ExpertIntent, RowLayout, load_contract
from dagger_ros.supervisor import Event, Gate, HumanGated, Reason, Rule

SHIPPED = load_contract(contract_path("peg"))


def changed(**action: Any) -> Contract:
    """The peg's contract with another action part; hand-overs are as fast as everything else unless they are tested."""
    content = SHIPPED.model_dump(mode="json", by_alias=True)
    content["action"] |= {"handover": {"limit_scale": 1.0, "longest_s": 0.3, "beta_mixing": True}} | action
    return Contract.model_validate(content)


PEG = changed()
LAYOUT = RowLayout(PEG)
PERIOD_NS = PEG.timing.period_ns
LIMIT = 0.24
STEP = 4.0 * 0.05  # the contract's rate limit over one period


def position_contract(**limits: float) -> Contract:
    """The peg's arm commanded by joint positions."""
    content = PEG.model_dump(mode="json", by_alias=True)
    by_joint_position(content, **limits)
    return Contract.model_validate(content)


class Bench:
    """A gate and the clock around it."""

    def __init__(
        self, rule: Rule | None = None, *, auto_arm: bool = True, contract: Contract = PEG, **options: Any
    ) -> None:
        self.layout = RowLayout(contract)
        self.gate = Gate(contract, rule or HumanGated(), auto_arm=auto_arm, **options)
        self.now_ns = 10 * PERIOD_NS

    def row(self, policy: Any = 0.0, expert: Any = 0.0) -> Any:
        """A row in which everything is fresh."""
        row = self.layout.new(1)[0]
        row["time_ns"] = row["monotonic_ns"] = self.now_ns
        for name in ("stamp_ns", "receive_ns"):
            row[name] = self.now_ns
        row["observation"], row["privileged"] = 0.1, 0.1
        for i, stream in enumerate(self.layout.streams):
            if stream == "tool_position":
                self.layout.stream(row, i)[:] = [0.45, 0.0, 0.2]
        row["doubt"] = 0.0
        for source, action in (("policy", policy), ("expert", expert)):
            row[f"{source}_action"] = action
            row[f"{source}_stamp_ns"] = row[f"{source}_receive_ns"] = self.now_ns
        return row

    def tick(self, row: Any, intent: ExpertIntent | None = None, requests: tuple[Event, ...] = ()) -> Reason:
        intent = intent or ExpertIntent()
        row["expert_intent"], row["expert_reason"] = intent.bits(), intent.reason
        row["requests"] = sum(event.bit for event in requests)
        self.gate.decide(row)
        self.now_ns += PERIOD_NS
        return Reason(int(row["reasons"]))

    def drive(self, policy: Any = 0.0, expert: Any = 0.0, **intent: Any) -> Any:
        row = self.row(policy, expert)
        self.tick(row, ExpertIntent(**intent))
        return row
