"""The graph in one process without ROS: messages, the fault injector between them, inbox, gate, a body that obeys."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, Mode, RowLayout, StreamReader, stamp_from_ns, stamp_ns
from dagger_ros.control import Inbox
from dagger_ros.sim import Fault, FaultInjector, FaultKind
from dagger_ros.supervisor import Event, Gate, HumanGated, Reason

START_NS = 10**10


class FaultLoop:
    """Ticks of the control period; every message goes through the injector.

    Args:
        contract: Of the peg, commanded by tool velocity.
        faults: What may happen; switched with `injector.switch`.
    """

    def __init__(self, contract: Contract, faults: Sequence[Fault] = ()) -> None:
        self.contract, self.layout = contract, RowLayout(contract)
        self.period_ns = contract.timing.period_ns
        self.gate = Gate(contract, HumanGated(), auto_arm=False)
        self.inbox = Inbox(self.layout)
        self.now_ns = START_NS
        self.injector = FaultInjector(faults, self.now_ns)
        self.position = np.array([0.45, 0.0, 0.2])
        self.policy_says = np.array([0.05, 0.0, -0.05])
        self.expert_says = np.array([-0.05, 0.0, 0.0])
        self.sent: list[Any] = []  # every command that went out
        self._sequence = {"policy": 0, "expert": 0}
        self._robot_ns = self.now_ns
        self._readers = [StreamReader(s) for s in contract.streams.values()]
        self._rows = self.layout.new(1)

    def tick(self, *requests: Event, takeover: bool = False, resume: bool = False) -> Any:
        """One control period; the decided row, a view until the next tick."""
        self.now_ns += self.period_ns
        stamp = _stamp(self.now_ns)
        for topic, message in [
            ("/clock", SimpleNamespace(clock=stamp)),
            *((topic, self._observation(topic)) for topic in self.contract.topics),
            ("policy/action", self._proposal("policy", self.policy_says)),
            ("expert/action", self._proposal("expert", self.expert_says, takeover=takeover, resume=resume)),
        ]:
            for out in self.injector.relay(topic, message, self.now_ns):
                self._receive(topic, out)
        for topic, message in self.injector.due(self.now_ns):
            self._receive(topic, message)
        for fault in self.injector.active(self.now_ns):
            if fault.kind is FaultKind.SAY and fault.topic == "estop":
                self.inbox.put_estop(fault.value != 0, self.now_ns)
        active = self.injector.active(self.now_ns)
        self.inbox.second_writer = any(
            f.kind is FaultKind.SAY and f.topic == self.contract.action.topic for f in active
        )
        for event in requests:
            self.inbox.request(event)
        self._rows[:] = self.layout.new(1)
        row = self._rows[0]
        row["time_ns"], row["monotonic_ns"] = self._robot_ns, self.now_ns
        self.inbox.fill(row)
        self.gate.decide(row)
        if np.isfinite(row["executed_action"]).all():
            self.sent.append(row["executed_action"].copy())
            self.position += row["executed_action"] * self.period_ns * 1e-9
        return row

    def drive(self, mode: Mode) -> None:
        """A person arms, and gives control to the policy or takes it."""
        self.tick()
        self.tick(Event.ARM)
        row = self.tick(Event.RESUME) if mode is Mode.POLICY else self.tick(takeover=True)
        for _ in range(5):
            row = self.tick(takeover=mode is Mode.EXPERT)
        assert row["mode"] == mode, Reason(int(row["reasons"])).words()

    def _observation(self, topic: str) -> Any:
        header = SimpleNamespace(stamp=_stamp(self.now_ns))
        if topic == "joint_states":
            joints = [f"j{i}" for i in range(1, 7)]
            values = {q: [0.1 * i for i in range(6)] for q in ("position", "velocity", "effort")}
            return SimpleNamespace(header=header, name=joints, **values)
        x, y, z = (float(v) for v in self.position)
        orientation = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
        pose = SimpleNamespace(position=SimpleNamespace(x=x, y=y, z=z), orientation=orientation)
        return SimpleNamespace(header=header, pose=pose)

    def _proposal(self, source: str, action: Any, **intent: bool) -> Any:
        self._sequence[source] += 1
        return SimpleNamespace(
            header=SimpleNamespace(stamp=_stamp(self.now_ns)),
            tick=-1,
            sequence=self._sequence[source],
            contract_sha256=self.contract.sha256,
            policy="pi_001",
            policy_sha256="a" * 64,
            round=1,
            doubt=0.0,
            novelty=0.0,
            deviation=0.0,
            risk=0.0,
            inference_s=0.0,
            operator_id="Ada",
            action=[float(v) for v in action],
            label=True,
            reason=0,
            **({"takeover": False, "resume": False, "unattended": False} | intent),
        )

    def _receive(self, topic: str, message: Any) -> None:
        if topic == "/clock":
            self._robot_ns = stamp_ns(message.clock)
        elif topic == "policy/action":
            self.inbox.put_policy(message, self.now_ns)
        elif topic == "expert/action":
            self.inbox.put_expert(message, self.now_ns)
        else:
            for i, stream in enumerate(self.contract.streams.values()):
                if stream.topic == topic:
                    values: Any = np.empty(self._readers[i].size)
                    whole = self._readers[i].read(message, values)
                    stamp = self._readers[i].stamp_ns(message, self.now_ns)
                    self.inbox.streams.put(i, values if whole else None, stamp, self.now_ns)


def _stamp(time_ns: int) -> Any:
    stamp = SimpleNamespace(sec=0, nanosec=0)
    stamp_from_ns(stamp, time_ns)
    return stamp
