"""What one control tick costs: messages of three streams in, the gated command out.

    .venv/bin/python benchmarks/tick.py [--ticks 20000] [--core 1] [--json FILE]

24 numbers of a JointState, a PoseStamped and a LaserScan, an ensemble of 5 networks with 2 layers of 256, an expert
that labels, every check and every limit for 12 joints, a Float64MultiArray. The reference (`reference/`) is the same
written plainly: `np.array(message.x)`, a torch module for each member on one thread in inference mode, a gate of loops
over lists, `.tolist()`. Both get the same messages, in turn, on one core, and must decide the same. From the bytes that
the middleware hands over to those that it is given: ours looks into them, the reference makes messages of them.

*floor* is what is left if all else took no time: the networks' answer, also in turn with the reference. No other code
around them can be faster.

Then 100,000 ticks of ours under tracemalloc: how many bytes more are in use after them than before.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import struct
import sys
import time
import tracemalloc
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState, LaserScan
from std_msgs.msg import Float64MultiArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from decision import JOINTS, arm
from reference.plain_tick import PlainEnsemble, PlainTick

from dagger_ros.contract import CdrReader, Contract, ExpertIntent, Mode, RowLayout, RowView
from dagger_ros.control import ControlTick, NewestStreams
from dagger_ros.nodes.base import message_writer
from dagger_ros.policy import Checkpoint, MlpEnsemble
from dagger_ros.supervisor import Gate, make_rule

RAYS = 9
HIDDEN, MEMBERS = 256, 5
SHA256 = "a" * 64
# Different messages; they come again with new stamps.
_MESSAGES = 500
_WARM = 200
_TYPES = (JointState, PoseStamped, LaserScan)
_STAMP = struct.Struct("<iI")


def task() -> Contract:
    """12 joints by position, a tool, and 9 rays of a range finder."""
    content = arm("position").model_dump(mode="json", by_alias=True)
    content["streams"]["rays"] = content["streams"]["tool"] | {
        "topic": "scan",
        "type": "sensor_msgs/msg/LaserScan",
        "select": [f"ranges[0:{RAYS}]"],
        "unit": "m",
    }
    return Contract.model_validate(content)


def network(inputs: int, outputs: int, seed: int = 0) -> dict[str, Any]:
    """Weights of an ensemble whose actions move smoothly with the observation."""
    rng = np.random.default_rng(seed)
    sizes = (inputs, HIDDEN, HIDDEN, outputs)
    tensors: dict[str, Any] = {}
    for i in range(3):
        shape = (MEMBERS, sizes[i], sizes[i + 1])
        tensors[f"layer{i}.weight"] = (rng.normal(size=shape) / np.sqrt(sizes[i])).astype(np.float32)
        tensors[f"layer{i}.bias"] = rng.normal(size=(MEMBERS, 1, sizes[i + 1])).astype(np.float32) / 10
    tensors["input_mean"] = rng.normal(size=inputs).astype(np.float32)
    tensors["input_scale"] = rng.uniform(0.5, 2, inputs).astype(np.float32)
    tensors["output_mean"] = np.zeros(outputs, np.float32)
    tensors["output_scale"] = np.full(outputs, 0.05, np.float32)
    return tensors


def messages() -> list[list[bytes]]:
    """(N, 3) serialized messages."""
    names = [f"j{i}" for i in range(JOINTS)]
    phase = np.linspace(0.0, np.pi, JOINTS)
    made = []
    for i in range(_MESSAGES):
        turn = 2 * np.pi * i / _MESSAGES
        joints = JointState(name=names[::-1], position=(0.3 * np.sin(turn + phase)).tolist()[::-1])
        tool = PoseStamped()
        tool.pose.position.x, tool.pose.position.y, tool.pose.position.z = 0.5 * np.sin(turn + np.arange(3.0))
        scan = LaserScan(ranges=(2 + np.cos(turn + np.arange(RAYS))).astype(np.float32).tolist())
        made.append([serialize_message(m) for m in (joints, tool, scan)])
    return made


class Follows:
    """An expert that labels each tick: half of what is measured."""

    operator_id = "bench"

    def __init__(self) -> None:
        self.intent = ExpertIntent(label=True, unattended=True)

    def start_episode(self, seed: int) -> None:
        """Nothing to forget."""

    def label(self, row: Any, previous: Any, out: Any) -> ExpertIntent:
        """As `Labeller` says."""
        np.multiply(row.observation[:JOINTS], 0.5, out=out)
        return self.intent


class Ours:
    """The tick of this project in one process."""

    def __init__(self, contract: Contract, tensors: dict[str, Any]) -> None:
        self.layout = RowLayout(contract)
        gate = Gate(contract, make_rule("hg", round_index=1), auto_arm=True)
        about = Checkpoint(
            "pi_001", 1, contract.sha256, 0, self.layout.columns(), contract.action.dimensions, (), {}, {}, {}, SHA256
        )
        self._control = ControlTick(self.layout, gate, Follows(), (about, MlpEnsemble(tensors)))
        self._control.start_episode(0)
        self._readers = [CdrReader(s) for s in contract.streams.values()]
        self._streams = NewestStreams(self.layout)
        self.row, self._empty = RowView.of(self.layout.new(1)[0]), self.layout.new(1).tobytes()
        self._times = self.layout.numbers("time_ns", "monotonic_ns")
        self._writer = message_writer([contract.action], Float64MultiArray())
        self._executed = [self.row.executed_action]

    def __call__(self, received: list[bytes], now_ns: int) -> bytes:
        """The command for three messages."""
        for index, message in enumerate(received):
            reader = self._readers[index]
            self._streams.take(index, reader, message, reader.stamp_ns(message, now_ns), now_ns)
        row = self.row
        row.bytes[:] = self._empty
        self._times.write(row, now_ns, now_ns)
        self._streams.fill(row)
        self._control(row, None)
        return self._writer.fill(self._executed, now_ns)


class Plain:
    """The reference."""

    def __init__(self, contract: Contract, tensors: dict[str, Any]) -> None:
        self._tick = PlainTick(
            contract, PlainEnsemble(tensors), SHA256, lambda seen: 0.5 * seen[:JOINTS], Follows().intent.bits()
        )

    def __call__(self, received: list[bytes], now_ns: int) -> tuple[bytes, dict[str, Any]]:
        """The command for three messages, and what was decided."""
        for index, data in enumerate(received):
            self._tick.receive(index, deserialize_message(data, _TYPES[index]), now_ns)
        command, decided = self._tick.decide(now_ns)
        return serialize_message(command), decided


def with_stamp(data: bytes, time_ns: int) -> bytes:
    """A serialized message with another header stamp."""
    return data[:4] + _STAMP.pack(*divmod(time_ns, 1_000_000_000)) + data[12:]


def stamped(made: list[list[bytes]], period_ns: int) -> Iterator[tuple[list[bytes], int]]:
    """The messages again and again, each time with the stamps of their tick."""
    tick = 0
    while True:
        for received in made:
            tick += 1
            now_ns = tick * period_ns
            yield [with_stamp(data, now_ns) for data in received], now_ns


def measure(contract: Contract, ticks: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(2, T) microseconds of each tick, ours and the reference's, in turn."""
    layout = RowLayout(contract)
    tensors = network(layout.observation_size, layout.action_size)
    ours, plain = Ours(contract, tensors), Plain(contract, tensors)
    source = stamped(messages(), contract.timing.period_ns)
    took_us, driven = np.empty((2, ticks)), 0
    for i in range(-_WARM, ticks):
        received, now_ns = next(source)
        first = time.perf_counter_ns()
        command = ours(received, now_ns)
        second = time.perf_counter_ns()
        reference, decided = plain(received, now_ns)
        third = time.perf_counter_ns()
        if i >= 0:
            took_us[:, i] = (second - first) * 1e-3, (third - second) * 1e-3
        driven += decided["mode"] == Mode.POLICY
        commands = [np.array(deserialize_message(data, Float64MultiArray).data) for data in (command, reference)]
        same = decided["mode"] == ours.row["mode"] and np.allclose(*commands, atol=1e-5)
        if not same:
            raise SystemExit(f"tick {i}: {decided}\nours: {ours.row}")
    if driven < ticks:
        raise SystemExit(f"the policy should drive every tick, it drove {driven} of {ticks}")
    return took_us


def floor(contract: Contract, ticks: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(T,) microseconds of the networks, each time after a tick of the reference."""
    layout = RowLayout(contract)
    tensors = network(layout.observation_size, layout.action_size)
    policy, plain = MlpEnsemble(tensors), Plain(contract, tensors)
    observation, action = np.zeros(layout.observation_size), np.zeros(layout.action_size)
    source, took_us = stamped(messages(), contract.timing.period_ns), np.empty(ticks)
    for i in range(-_WARM, ticks):
        received, now_ns = next(source)
        start = time.perf_counter_ns()
        policy.act(observation, action, now_ns)
        took = time.perf_counter_ns() - start
        plain(received, now_ns)
        if i >= 0:
            took_us[i] = took * 1e-3
    return took_us


def growth(contract: Contract, ticks: int, *, warm: int = 10_000) -> int:
    """Bytes in use after so many ticks of ours less those before.

    The first ones are not counted: the interpreter keeps a few small objects for use again.
    """
    layout, in_use = RowLayout(contract), array("q", [0, 0])  # an object for each number would be counted
    gc.collect()  # and so would one that was made before and is used again
    tracemalloc.start()
    try:
        ours = Ours(contract, network(layout.observation_size, layout.action_size))
        source = stamped(messages(), contract.timing.period_ns)
        for at, count in enumerate((warm, ticks)):
            for _ in range(count):
                ours(*next(source))
            gc.collect()
            in_use[at] = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return in_use[1] - in_use[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=20_000)
    parser.add_argument("--memory-ticks", type=int, default=100_000, help="0: leave it out")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="to be pinned to")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    contract = task()
    gc.disable()
    took_us = np.vstack([measure(contract, options.ticks), floor(contract, options.ticks)])
    gc.enable()
    shares = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    ours, reference, least = np.percentile(took_us, list(shares.values()), axis=1).T
    figures: dict[str, Any] = {"ticks": options.ticks, "us": {}, "joints": JOINTS}
    print(f"{'us':18}" + "".join(f"{name:>10}" for name in shares))
    for name, values in (("ours", ours), ("reference", reference), ("floor", least)):
        figures["us"][name] = dict(zip(shares, values.tolist(), strict=True))
        print(f"{name:18}" + "".join(f"{value:10.1f}" for value in values))
    for key, name, values in (("ratio", "ours", ours), ("ratio_of_floor", "floor", least)):
        ratios = reference / values
        print(f"{'reference / ' + name:18}" + "".join(f"{value:10.2f}" for value in ratios))
        figures[f"{key}_p50"], figures[f"{key}_p99"] = ratios[:2].tolist()
    if options.memory_ticks:
        figures["growth_bytes"] = growth(contract, options.memory_ticks)
        print(f"{figures['growth_bytes']} bytes more in use after {options.memory_ticks} ticks")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
