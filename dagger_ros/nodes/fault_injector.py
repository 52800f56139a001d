"""fault_injector: messages in, the same messages out with the faults of a file; for tests of a running graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from std_srvs.srv import SetBool

from dagger_ros.contract import DaggerError
from dagger_ros.nodes.base import LEVEL_OK, LEVEL_WARN, ContractNode, message_class, new_message, run_node
from dagger_ros.nodes.parameters import NodeParameter
from dagger_ros.nodes.qos import EVENT_QOS
from dagger_ros.sim import FaultInjector, FaultKind, load_faults
from dagger_ros.sim.faults import lacks, set_numbers

__all__ = ["FaultInjectorNode", "main"]

# Under this name a topic is as its writer says it: start the writer with the remapping `T:=unfaulted/T`.
_SOURCE = "unfaulted"
# How often messages that were held back are looked for: well below any control period.
_TICK_S = 0.005


class FaultInjectorNode(ContractNode):
    """Stands between the nodes: takes `unfaulted/T` and gives `T`, for each topic T that a fault names."""

    NODE = "fault_injector"
    PARAMETERS = (NodeParameter("faults", "", "YAML file with a list 'faults'; needed"),)

    def configure(self) -> None:
        """Loads the faults."""
        super().configure()
        path = self.given["faults"]
        if not path:
            raise DaggerError("fault_injector: expected the parameter 'faults' (a YAML file), got nothing")
        faults = load_faults(path)
        types = self._types_of = self._types()
        for fault in faults:
            if fault.topic not in types:
                raise DaggerError(f"{path}: {fault.name}.topic: expected one of {', '.join(types)}; got {fault.topic}")
            missing = lacks(fault.kind, message_class(types[fault.topic])())
            if missing:
                raise DaggerError(
                    f"{path}: {fault.name}.kind: expected one that can happen to {types[fault.topic]}; got "
                    f"{fault.kind.value}, which needs a field {missing}"
                )
        self._injector = FaultInjector(faults, self.monotonic_ns())
        self._said_ns = 0
        self._outputs: dict[str, Any] = {}
        self._said: dict[str, Any] = {}  # by fault
        relayed = {f.topic for f in faults if f.kind is not FaultKind.SAY}
        for topic in self._injector.topics:
            type_ = message_class(types[topic])
            qos = self.qos.command
            if topic in self.contract.topics:
                qos = self.qos.sensor_writer
            elif topic == "episode":
                qos = EVENT_QOS
            if topic in relayed:
                self._outputs[topic] = self.create_publisher(type_, topic, qos)
                source = f"/{_SOURCE}{topic}" if topic.startswith("/") else f"{_SOURCE}/{topic}"
                self.create_subscription(type_, source, partial(self._relay, topic), qos)
        for fault in faults:
            self.create_service(SetBool, f"~/{fault.name}", partial(self._on_switch, fault.name))
        self.create_steady_timer(_TICK_S, self._on_timer)

    def verdict(self) -> tuple[bytes, str, Mapping[str, object]]:
        """What is being done to the graph."""
        names = [fault.name for fault in self._injector.active(self.monotonic_ns())]
        return (LEVEL_WARN, f"injects {', '.join(names)}", {}) if names else (LEVEL_OK, "passes everything on", {})

    def _types(self) -> dict[str, str]:
        types = {s.topic: s.type for s in self.contract.streams.values()}
        return types | {
            self.contract.action.topic: self.contract.action.type,
            "policy/action": "dagger_ros/msg/PolicyAction",
            "expert/action": "dagger_ros/msg/ExpertAction",
            "episode": "dagger_ros/msg/EpisodeEvent",
            "estop": "std_msgs/msg/Bool",
            "/clock": "rosgraph_msgs/msg/Clock",
        }

    def _relay(self, topic: str, message: Any) -> None:
        for out in self._injector.relay(topic, message, self.monotonic_ns()):
            self._outputs[topic].publish(out)

    def _on_timer(self) -> None:
        now_ns = self.monotonic_ns()
        for topic, message in self._injector.due(now_ns):
            self._outputs[topic].publish(message)
        if now_ns - self._said_ns < self.period_ns:
            return
        self._said_ns = now_ns
        active = [f for f in self._injector.active(now_ns) if f.kind is FaultKind.SAY]
        for name in set(self._said) - {fault.name for fault in active}:
            self.destroy_publisher(self._said.pop(name))
        for fault in active:
            message = new_message(self._types_of[fault.topic], period_ns=self.period_ns)
            set_numbers(message, fault.value)
            if fault.name not in self._said:
                self._said[fault.name] = self.create_publisher(type(message), fault.topic, self.qos.command)
            self._said[fault.name].publish(message)

    def _on_switch(self, name: str, request: Any, response: Any) -> Any:
        self._injector.switch(name, on=request.data, now_ns=self.monotonic_ns())
        response.success, response.message = True, f"{name} {'begins' if request.data else 'ends'}"
        return response


def main(args: Sequence[str] | None = None) -> None:
    """Runs the node."""
    run_node(FaultInjectorNode, args)


if __name__ == "__main__":
    main()
