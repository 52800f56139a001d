"""The labellers of a contract by name: what the expert_label node and a panel in one process choose from."""

from __future__ import annotations

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.expert import (
    JoystickLabeller,
    Labeller,
    OperatorAtPad,
    PadHands,
    ScriptedLabeller,
    SimulatedOperator,
    plain_pad,
    unreached,
)
from dagger_ros.sim.tasks import TASKS, Task

__all__ = ["LABELLERS", "labeller_of_rule", "make_labeller", "make_operator"]

# scripted: labels every state. operator: a simulated person who takes over and hands back, with the hands at a pad
# where the contract has a mapping with which they can move every number of the action.
LABELLERS = ("scripted", "operator")


def make_labeller(kind: str, contract: Contract) -> Labeller:
    """Makes a labeller.

    Args:
        kind: One of `LABELLERS`.
        contract: Names the task whose scripted expert is used.

    Raises:
        DaggerError: For another kind, or a contract without a simulated task.
    """
    if kind not in LABELLERS:
        raise DaggerError(f"expert: expected one of {', '.join(LABELLERS)}, got {kind!r}")
    if kind == "scripted":
        return ScriptedLabeller(_task(contract).expert)
    operator = make_operator(contract)
    if contract.expert is None or unreached(contract.expert.joystick, contract):
        return operator
    mapping = contract.expert.joystick
    pad = plain_pad(mapping)
    hands = PadHands(mapping, pad, contract)
    joystick = JoystickLabeller(contract, mapping, pad, operator_id=operator.operator_id, shadow=False)
    return OperatorAtPad(operator, joystick, hands)


def make_operator(contract: Contract) -> SimulatedOperator:
    """The simulated operator of the contract's task, without hands.

    Raises:
        DaggerError: If the contract has no simulated task.
    """
    task = _task(contract)
    return SimulatedOperator(task.expert, task.operator, contract)


def _task(contract: Contract) -> Task:
    if contract.simulation is None or contract.simulation.task not in TASKS:
        raise DaggerError(
            f"expert: expected a contract with simulation.task, one of {', '.join(TASKS)}; "
            f"contract {contract.name} has none, and only those tasks have a scripted expert"
        )
    return TASKS[contract.simulation.task](contract)


def labeller_of_rule(rule: str, round_index: int) -> str:
    """Which labeller a rule needs in a round: someone to gate for `hg`, someone to label every state otherwise."""
    return "operator" if rule == "hg" and round_index > 0 else "scripted"
