"""Faults between the processes of a running graph, made by the fault_injector node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import contract_path, next_domain, weak_policy
from dagger_ros.contract import Mode

rclpy = pytest.importorskip("rclpy")
from std_srvs.srv import SetBool, Trigger

from dagger_ros.msg import GateDecision
from dagger_ros.nodes.qos import GraphQos
from dagger_ros.supervisor import Reason, Response, response_bits
from graph import Graph, running_graph

pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.slow]

QOS = GraphQos(lockstep=False)
PATH = contract_path("peg")
FAULTS: list[dict[str, Any]] = [
    {"name": "stale_observation", "kind": "drop", "topic": "joint_states"},
    {"name": "delayed_observation", "kind": "delay", "topic": "joint_states", "value": 0.5},
    {"name": "stale_action", "kind": "drop", "topic": "policy/action"},
    {"name": "delayed_action", "kind": "delay", "topic": "policy/action", "value": 1.0},
    {"name": "nan_action", "kind": "not_a_number", "topic": "policy/action"},
    {"name": "millimetres", "kind": "add", "topic": "policy/action", "value": 100.0},
    {"name": "joystick_unplugged", "kind": "drop", "topic": "expert/action"},
    {"name": "clock_back", "kind": "shift_stamp", "topic": "/clock", "value": -2.0},
    {"name": "second_writer", "kind": "say", "topic": "command", "value": 0.0},
    # Last: nobody says that the button was released, so nothing leads out of it.
    {"name": "estop", "kind": "say", "topic": "estop"},
]
ANSWERS = {
    "stale_observation": (Mode.LOCKED, Reason.OBSERVATION_STALE),
    "delayed_observation": (Mode.LOCKED, Reason.OBSERVATION_STALE),
    "stale_action": (Mode.HOLD, Reason.POLICY_STALE),
    "delayed_action": (Mode.HOLD, Reason.POLICY_STALE | Reason.POLICY_LATE),
    "nan_action": (Mode.HOLD, Reason.POLICY_NOT_FINITE),
    "millimetres": (Mode.HOLD, Reason.POLICY_JUMP),
    "joystick_unplugged": (Mode.HOLD, Reason.EXPERT_STALE),
    "clock_back": (Mode.LOCKED, Reason.CLOCK_JUMP | Reason.OBSERVATION_FUTURE),
    "second_writer": (Mode.ESTOP, Reason.SECOND_WRITER),
    "estop": (Mode.ESTOP, Reason.ESTOP_PRESSED),
}

_LOCKS = response_bits(Response.LOCK)
# A loaded machine may hold the policy again before it is seen to drive.
_ATTEMPTS = 200


@dataclass
class Person:
    """Somebody at the robot: sees decisions, calls services."""

    graph: Graph
    decisions: list[Any]

    def call(self, name: str, request: Any) -> Any:
        client = self.graph.node.create_client(SetBool if hasattr(request, "data") else Trigger, name)
        self.graph.wait_for(client.service_is_ready)
        future = client.call_async(request)
        self.graph.wait_for(future.done)
        self.graph.node.destroy_client(client)
        return future.result()

    def ask(self, name: str) -> bool:
        return bool(self.call(f"supervisor/{name}", Trigger.Request()).success)

    def switch(self, fault: str, *, on: bool) -> None:
        assert self.call(f"fault_injector/{fault}", SetBool.Request(data=on)).success

    def mode(self) -> Mode | None:
        return Mode(self.decisions[-1].mode) if self.decisions else None

    def drive(self) -> None:
        """Arms and resumes until the policy drives; a loaded machine may hold it again in between."""
        for _ in range(_ATTEMPTS):
            if self.mode() is Mode.POLICY:
                return
            self.ask("reset_estop")
            self.ask("arm")
            self.ask("resume")
            seen = len(self.decisions)
            self.graph.wait_for(lambda: len(self.decisions) > seen + 2)  # noqa: B023
        raise AssertionError(f"the policy does not drive: {self.decisions[-1].reasons_text}")

    def meets(self, fault: str, mode: Mode, reason: Reason) -> bool:
        """Begins a fault while the policy drives, and checks the answer.

        Returns:
            Whether it was met by a driving policy; a loaded machine may have held it just before.
        """
        self.drive()
        start = len(self.decisions)
        self.switch(fault, on=True)
        self.graph.wait_for(lambda: any(d.reasons & reason for d in self.decisions[start:]))
        first = next(i for i in range(start, len(self.decisions)) if self.decisions[i].reasons & reason)
        met, held = self.decisions[first], self.decisions[first - 1].mode != Mode.POLICY
        # An observation may have become stale in the same tick; an emergency stop prevails over that too.
        if mode is not Mode.ESTOP and (held or met.reasons & _LOCKS & ~reason):
            return False
        assert met.mode == mode, met.reasons_text
        return True


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """One graph for all faults; its ROS domain is its own."""
    folder = tmp_path_factory.mktemp("graph")
    (folder / "faults.yaml").write_text(yaml.safe_dump({"faults": FAULTS}))
    policy = weak_policy("peg", folder / "pi_000")
    with pytest.MonkeyPatch.context() as patch:
        domain = next_domain()
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        with running_graph(domain, folder) as graph:
            decisions: list[Any] = []
            graph.node.create_subscription(GateDecision, "supervisor/decision", decisions.append, QOS.record)
            common = {"contract": PATH}
            sim_time = common | {"use_sim_time": True}
            source = {t: f"unfaulted/{t}" for t in ("joint_states", "policy/action", "expert/action")}
            bridge = {"joint_states": source["joint_states"], "/clock": "/unfaulted/clock"}
            graph.start("mujoco_bridge", bridge, **common, seed=0, repeat=True)
            graph.start("fault_injector", faults=folder / "faults.yaml", **common)
            graph.start("policy", {"policy/action": source["policy/action"]}, **sim_time, policy=policy)
            graph.start("expert_label", {"expert/action": source["expert/action"]}, **sim_time)
            graph.start("supervisor", **sim_time)
            result = Person(graph, decisions)
            graph.wait_for(lambda: bool(decisions))
            yield result


@pytest.mark.parametrize("fault", ANSWERS)
def test_fault_in_the_running_graph(fault: str, person: Person) -> None:
    """The mode and the reason; then at rest; then nothing moves before a person says so."""
    mode, reason = ANSWERS[fault]
    try:
        while not person.meets(fault, mode, reason):
            person.switch(fault, on=False)
        count = len(person.decisions)
        person.graph.wait_for(lambda: len(person.decisions) > count + 3)
        assert (np.array(person.decisions[-1].executed_action) == 0).all()
    finally:
        person.switch(fault, on=False)
    if fault == "estop":
        # Nobody says that the button was released: the last word stands.
        assert not person.ask("reset_estop")
        return
    count = len(person.decisions)
    person.graph.wait_for(lambda: len(person.decisions) > count + 20)
    assert {Mode(d.mode) for d in person.decisions[count:]} <= {Mode.HOLD, Mode.LOCKED, Mode.ESTOP}
