"""A robot with three cameras, recorded: what is lost, and what the recorder costs.

    .venv/bin/python benchmarks/recording_load.py [--seconds 60] [--json FILE]

A process publishes JointState at 200 Hz, GateDecision at 100 Hz, three cameras at 30 Hz (CompressedImage, JPEG 640x480
of textured pictures) and the contract's other observations at 20 Hz, over real DDS. The aggregator records it in a
process of its own; then, one after the other so that they do not share the two cores, a plain process that hands the
same subscriptions to `rosbags.rosbag2.Writer` (MCAP). Each message has a number, so that what the bag lacks is counted
whoever lost it. CPU share is user + system time of the recorder's process over wall time. Exit status 1 if the
aggregator's bag lacks a message.
"""

from __future__ import annotations

import argparse
import heapq
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test"))

import numpy as np
import rclpy
import yaml
from PIL import Image
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from conftest import contract_path, next_domain
from dagger_ros.contract import Contract, DecisionWriter, Mode, RowLayout, load_contract
from dagger_ros.nodes.base import message_class
from dagger_ros.nodes.network import stay_on_this_machine
from dagger_ros.nodes.qos import GraphQos
from dagger_ros.nodes.share import message_definition
from dagger_ros.srv import StartEpisode, StopEpisode
from graph import PATIENCE_S, Graph, GraphError, running_graph

QOS = GraphQos(lockstep=False)
CAMERAS, WIDTH, HEIGHT, PICTURES = ("wrist", "left", "right"), 640, 480, 8
DECISIONS = "supervisor/decision"
OTHER_HZ = 20.0


@dataclass(frozen=True)
class Load:
    """What is published on a topic."""

    topic: str
    type: str
    rate_hz: float


@dataclass(frozen=True)
class Found:
    """What became of the messages of a topic, from the first one that was recorded."""

    sent: int
    recorded: int
    lost: int
    bytes: int


@dataclass(frozen=True)
class Recording:
    """What one recorder did."""

    recorder: str
    seconds: float
    cpu_share: float
    bag_bytes: int
    topics: dict[str, Found]

    @property
    def lost(self) -> int:
        """Messages that the bag lacks."""
        return sum(found.lost for found in self.topics.values())


def write_contract(folder: Path) -> Path:
    """The peg's contract with three cameras, at the rates of the load."""
    content = yaml.safe_load(contract_path("peg").read_text())
    content["timing"] |= {"control_rate_hz": 100.0, "latency_budget_s": 0.01}
    for name, stream in content["streams"].items():
        stream["rate_hz"] = 200.0 if name.startswith("joint_") else OTHER_HZ
    content["cameras"] = {
        name: {
            "topic": f"camera/{name}/compressed",
            "type": "sensor_msgs/msg/CompressedImage",
            "width": WIDTH,
            "height": HEIGHT,
            "frame": name,
            "rate_hz": 30.0,
            "max_age_s": 0.5,
        }
        for name in CAMERAS
    }
    content["simulation"]["model"] = str((contract_path("peg").parent / content["simulation"]["model"]).resolve())
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def loads_of(contract: Contract) -> list[Load]:
    streams = {s.topic: Load(s.topic, s.type, s.rate_hz) for s in contract.streams.values()}
    cameras = [Load(c.topic, c.type, c.rate_hz) for c in contract.cameras.values()]
    decisions = Load(DECISIONS, "dagger_ros/msg/GateDecision", contract.timing.control_rate_hz)
    return [*streams.values(), decisions, *cameras]


def payloads(load: Load, contract: Contract) -> Iterator[bytes]:
    """Serialized messages of a topic, that begin with a header, without end."""
    message = message_class(load.type)()
    if load.topic == DECISIONS:
        row = RowLayout(contract).new(1)[0]
        row["mode"] = Mode.POLICY
        message = DecisionWriter(message, row, contract.sha256).fill(row, "")
    elif load.type == "sensor_msgs/msg/JointState":
        message.name = [f"j{i}" for i in range(1, 7)]
        message.position = message.velocity = message.effort = [0.0] * 6
    kinds = [serialize_message(message)]
    if load.type == "sensor_msgs/msg/CompressedImage":
        kinds, message.format = [], "jpeg"
        for picture in pictures(seed=CAMERAS.index(load.topic.split("/")[1])):
            message.data = picture
            kinds.append(serialize_message(message))
    while True:
        yield from kinds


def pictures(seed: int) -> list[bytes]:
    """JPEGs of shapes with texture and noise, as a camera sees them."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(PICTURES):
        picture = np.zeros((HEIGHT, WIDTH, 3))
        for cells, amplitude in ((8, 60), (32, 25), (160, 12)):
            coarse = rng.normal(128, amplitude, (cells * 3 // 4, cells, 3)).clip(0, 255).astype(np.uint8)
            picture += np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) - 128.0
        picture += rng.normal(128, 8, picture.shape)
        buffer = io.BytesIO()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        found.append(buffer.getvalue())
    return found


def number_of(data: bytes) -> int:
    """The number of a message: the seconds of its stamp."""
    return int(struct.unpack_from("<i", data, 4)[0])


def publish(contract: Contract, report: Path) -> None:
    """Publishes on a fixed schedule until SIGINT; then writes how many messages were sent of each topic."""
    ended: list[int] = []
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    signal.signal(signal.SIGINT, lambda number, _: ended.append(number))
    node, loads = rclpy.create_node("robot"), loads_of(contract)
    kinds = [payloads(load, contract) for load in loads]
    publishers = [
        node.create_publisher(
            message_class(load.type), load.topic, QOS.record if load.topic == DECISIONS else QOS.sensor_writer
        )
        for load in loads
    ]
    sent = [0] * len(loads)
    due = [(time.monotonic() + 0.001 * i, i) for i in range(len(loads))]
    while not ended:
        due_s, i = due[0]
        time.sleep(max(0.0, due_s - time.monotonic()))
        data = bytearray(next(kinds[i]))
        struct.pack_into("<i", data, 4, sent[i])
        publishers[i].publish(bytes(data))
        sent[i] += 1
        heapq.heapreplace(due, (due_s + 1 / loads[i].rate_hz, i))
    time.sleep(1.0)  # what is reliable may have to be sent again
    report.write_text(json.dumps({load.topic: n for load, n in zip(loads, sent, strict=True)}))
    node.destroy_node()
    rclpy.try_shutdown()


def record_plainly(contract: Contract, bag: Path, ready: Path) -> None:
    """The same subscriptions, handed to rosbags' writer; until SIGINT."""
    ended: list[int] = []
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    signal.signal(signal.SIGINT, lambda number, _: ended.append(number))
    typestore = get_typestore(Stores.ROS2_KILTED)
    decision = "dagger_ros/msg/GateDecision"
    typestore.register(get_types_from_msg(message_definition(decision), decision))
    node, heard = rclpy.create_node("plain_recorder"), set[str]()
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for load in loads_of(contract):
            connection = writer.add_connection(f"/{load.topic}", load.type, typestore=typestore)

            def take(data: bytes, connection: Any = connection) -> None:
                writer.write(connection, time.time_ns(), data)
                heard.add(connection.topic)

            qos = QOS.record if load.topic == DECISIONS else QOS.recorded_sensor(load.rate_hz)
            node.create_subscription(message_class(load.type), load.topic, lambda data, t=take: t(data), qos, raw=True)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not ended:
            executor.spin_once(timeout_sec=0.1)
            if len(heard) == len(loads_of(contract)) and not ready.exists():
                ready.touch()
    node.destroy_node()
    rclpy.try_shutdown()


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def role(graph: Graph, name: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """This file in another process, that ends with the block."""
    command = [sys.executable, __file__, "--role", name, *map(str, arguments)]
    process = subprocess.Popen(command, preexec_fn=graph._join_group)
    graph.group = graph.group or process.pid
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)


def measure(graph: Graph, recorder: subprocess.Popen[bytes], seconds: float) -> tuple[float, float]:
    """Wall time, and the share of it that a process computes."""
    began_s, before_s = time.monotonic(), cpu_s(recorder.pid)
    while time.monotonic() < began_s + seconds:
        graph.executor.spin_once(timeout_sec=1.0)
    wall_s = time.monotonic() - began_s
    return wall_s, (cpu_s(recorder.pid) - before_s) / wall_s


def record(recorder: str, contract_file: Path, folder: Path, seconds: float) -> Recording:
    """One recorder on the stream.

    Raises:
        GraphError: If a process does not do what it should.
    """
    report = folder / f"{recorder}.json"
    os.environ["ROS_DOMAIN_ID"] = str(domain := next_domain())
    (log := folder / f"{recorder}.log").mkdir()
    with running_graph(domain, log) as graph:
        bag = folder / "round/episodes/000000/bag"
        if recorder == "aggregator":
            graph.start("aggregator", contract=contract_file, out=folder / "round")
            with role(graph, "publisher", "--contract", contract_file, "--out", report):
                start(graph)
                wall_s, share = measure(graph, graph.processes["aggregator"], seconds)
            answer = graph.ask(StopEpisode, "aggregator/stop_episode", StopEpisode.Request(success=True))
            if answer is None or not answer.success:
                raise GraphError(f"the episode was not finished: {answer}")
        else:
            bag, ready = folder / "plain", folder / "ready"
            given = ("--contract", contract_file)
            with (
                role(graph, "recorder", *given, "--out", bag, "--ready", ready) as process,
                role(graph, "publisher", *given, "--out", report),
            ):
                graph.wait_for(ready.exists)
                wall_s, share = measure(graph, process, seconds)
    sent = json.loads(report.read_text())
    size = sum(file.stat().st_size for file in bag.iterdir())
    return Recording(recorder, wall_s, share, size, found_in(bag, sent))


def start(graph: Graph) -> None:
    """Starts an episode; it is refused until every stream is seen."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        answer = graph.ask(StartEpisode, "aggregator/start_episode", StartEpisode.Request(seed=-1))
        if answer is not None and answer.success:
            return
        if time.monotonic() > end_s:
            raise GraphError(f"no episode was started: {answer}")


def found_in(bag: Path, sent: dict[str, int]) -> dict[str, Found]:
    """What a bag has of each topic."""
    numbers: dict[str, list[int]] = {topic: [] for topic in sent}
    sizes = dict.fromkeys(sent, 0)
    with Reader(bag) as reader:
        for connection, _, data in reader.messages():
            topic = connection.topic.removeprefix("/")
            if topic in sent:
                numbers[topic].append(number_of(data))
                sizes[topic] += len(data)
    found = {}
    for topic, there in numbers.items():
        due = sent[topic] - min(there)
        found[topic] = Found(due, len(there), due - len(set(there)), sizes[topic])
    return found


def table(recordings: list[Recording]) -> str:
    lines = []
    for r in recordings:
        lines.append(
            f"{r.recorder}: {r.seconds:.0f} s, {100 * r.cpu_share:.1f} % of a core, {r.bag_bytes * 1e-6:.0f} MB, "
            f"{r.lost} messages lost"
        )
        lines.append(f"  {'topic':<28}{'sent':>8}{'recorded':>10}{'lost':>6}{'MB':>8}")
        lines += [
            f"  {topic:<28}{f.sent:>8}{f.recorded:>10}{f.lost:>6}{f.bytes * 1e-6:>8.1f}"
            for topic, f in r.topics.items()
        ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--role", choices=("publisher", "recorder"), help=argparse.SUPPRESS)
    for name in ("--contract", "--out", "--ready"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "publisher":
        publish(load_contract(options.contract), options.out)
        return 0
    if options.role == "recorder":
        record_plainly(load_contract(options.contract), options.out, options.ready)
        return 0
    stay_on_this_machine()  # for the processes that are no nodes of ours
    with tempfile.TemporaryDirectory() as folder:
        contract = write_contract(Path(folder))
        recordings = [record(name, contract, Path(folder), options.seconds) for name in ("aggregator", "rosbags")]
    print(table(recordings))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(r) | {"lost": r.lost} for r in recordings], indent=1))
    return 0 if recordings[0].lost == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
