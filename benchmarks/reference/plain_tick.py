"""The tick as one would write it plainly: `np.array(message.x)`, torch for each member, a gate on lists, `.tolist()`.

It gives the commands of `dagger_ros.control.ControlTick`, within the rounding of float32; see `benchmarks/tick.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from reference.plain_gate import PlainGate
from std_msgs.msg import Float64MultiArray

from dagger_ros.contract import NEVER_NS, Contract
from dagger_ros.contract.schema import Stream
from dagger_ros.contract.types import MESSAGE_TYPES, FieldKind, parse_field
from dagger_ros.supervisor import Reason

__all__ = ["PlainEnsemble", "PlainTick"]

_GAP, _TWICE = int(Reason.OBSERVATION_GAP), int(Reason.OBSERVATION_DUPLICATE)
_OLD, _SEQUENCE = int(Reason.OBSERVATION_OUT_OF_ORDER), int(Reason.OBSERVATION_SEQUENCE)


class PlainEnsemble:
    """Members as torch modules, asked one after the other.

    Args:
        tensors: As `MlpEnsemble` takes them.
    """

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        count, layers = 0, []
        while f"layer{count}.weight" in tensors:
            count += 1
        self._members = []
        for member in range(len(tensors["layer0.weight"])):
            layers = []
            for i in range(count):
                weight = torch.from_numpy(tensors[f"layer{i}.weight"][member].T.copy())
                linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
                linear.weight.data = weight
                linear.bias.data = torch.from_numpy(tensors[f"layer{i}.bias"][member, 0].copy())
                layers += [linear, torch.nn.ReLU()]
            self._members.append(torch.nn.Sequential(*layers[:-1]).eval())
        names = ("input_mean", "input_scale", "output_mean", "output_scale")
        self._mean, self._scale, self._middle, self._half = (torch.from_numpy(tensors[n]) for n in names)

    def act(self, observation: Any) -> tuple[list[float], float]:
        """The action (A,) for an observation (O,), and the doubt."""
        with torch.inference_mode():
            x = (torch.as_tensor(observation, dtype=torch.float32) - self._mean) / self._scale
            actions = torch.stack([member(x) for member in self._members])
            doubt = actions.std(dim=0, unbiased=False).square().mean().sqrt()
            return (actions.mean(dim=0) * self._half + self._middle).tolist(), doubt.item()


class PlainTick:
    """Keeps the newest values of each stream and decides at each tick.

    Args:
        contract: As `PlainGate` takes it, with a `Float64MultiArray` as its command.
        policy: Proposes.
        sha256: Of its weights.
        expert: Gives the expert's action for an observation, which is a label.
        intent: Of the expert.
    """

    def __init__(self, contract: Contract, policy: PlainEnsemble, sha256: str, expert: Any, intent: int) -> None:
        self._rates_hz = [stream.rate_hz for stream in contract.streams.values()]
        self._readers = [_reader(stream) for stream in contract.streams.values()]
        self._measured = list(contract.streams).index(contract.action.measured or "")
        self._boxes = [(list(contract.streams).index(b.stream), b.lower, b.upper) for b in contract.action.workspace]
        self._policy, self._sha256, self._expert, self._intent = policy, sha256, expert, intent
        self._gate = PlainGate(contract)
        count = len(self._readers)
        self._values: list[Any] = [None] * count
        self._stamps_ns, self._receives_ns, self._faults = [NEVER_NS] * count, [NEVER_NS] * count, [0.0] * count
        self._bits = 0

    def receive(self, index: int, message: Any, receive_ns: int) -> None:
        """Takes a message of one stream."""
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        last_ns = self._stamps_ns[index]
        if stamp_ns <= last_ns:
            self._bits |= _TWICE if stamp_ns == last_ns else _OLD
            self._faults[index] = min(self._faults[index] + 1.0, 5.0)
            return
        if last_ns != NEVER_NS and stamp_ns - last_ns > 1.5e9 / self._rates_hz[index]:
            self._bits |= _GAP
        self._faults[index] = max(self._faults[index] - 0.25, 0.0)
        self._values[index] = self._readers[index](message)
        self._stamps_ns[index], self._receives_ns[index] = stamp_ns, receive_ns

    def decide(self, now_ns: int) -> tuple[Float64MultiArray, dict[str, Any]]:
        """The command, and what was decided, at a tick at which every stream is there."""
        observation = np.concatenate(self._values)
        action, doubt = self._policy.act(observation)
        newest_ns = max(self._stamps_ns)
        bits, self._bits = self._bits, 0
        if any(faults >= 5.0 for faults in self._faults):
            bits |= _SEQUENCE
        decided = self._gate.decide(
            {
                "time_ns": now_ns,
                "monotonic_ns": now_ns,
                "stamp_ns": self._stamps_ns,
                "receive_ns": self._receives_ns,
                "observation": observation.tolist(),
                "measured": self._values[self._measured].tolist(),
                "boxes": [(self._values[i].tolist(), lower, upper) for i, lower, upper in self._boxes],
                "policy": {"action": action, "stamp_ns": newest_ns, "receive_ns": now_ns},
                "expert": {"action": self._expert(observation).tolist(), "stamp_ns": newest_ns, "receive_ns": now_ns},
                "sha256": self._sha256,
                "doubt": doubt,
                "intent": self._intent,
                "bits": bits,
            }
        )
        command = Float64MultiArray()
        command.data = decided["executed_action"]
        return command, decided


def _reader(stream: Stream) -> Callable[[Any], Any]:
    """From a message to the selected values, as one would write it for this stream."""
    kind, first = MESSAGE_TYPES[stream.type].kind, stream.select[0]
    if kind is FieldKind.JOINT:
        field, joints = first.partition(".")[0], [path.partition(".")[2] for path in stream.select]
        return lambda message: np.array(getattr(message, field))[[message.name.index(joint) for joint in joints]]
    if kind is FieldKind.ARRAY:
        part = parse_field(first)
        return lambda message: np.array(getattr(message, part.name))[part.start : part.stop]
    names = [path.rpartition(".")[2] for path in stream.select]
    parent = attrgetter(first.rpartition(".")[0])
    return lambda message: np.array([getattr(parent(message), name) for name in names])
