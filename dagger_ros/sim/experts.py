"""The labellers of a contract by name: what the expert_label node and a panel in one process choose from."""

from __future__ import annotations

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.expert import Labeller, ScriptedLabeller, SimulatedOperator
from dagger_ros.sim.tasks import TASKS

__all__ = ["LABELLERS", "labeller_of_rule", "make_labeller"]

# scripted: labels every state. operator: a simulated person who takes over and hands back.
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
    if contract.simulation is None or contract.simulation.task not in TASKS:
        raise DaggerError(
            f"expert {kind!r}: expected a contract with simulation.task, one of {', '.join(TASKS)}; "
            f"contract {contract.name} has none, and only those tasks have a scripted expert"
        )
    task = TASKS[contract.simulation.task](contract)
    if kind == "scripted":
        return ScriptedLabeller(task.expert)
    return SimulatedOperator(task.expert, task.operator, contract)


def labeller_of_rule(rule: str, round_index: int) -> str:
    """Which labeller a rule needs in a round: someone to gate for `hg`, someone to label every state otherwise."""
    return "operator" if rule == "hg" and round_index > 0 else "scripted"
