"""What it costs to get a picture of 640x480 RGB from a camera to a policy: copies, and the hand-over between processes.

    .venv/bin/python benchmarks/images.py [--seconds 2] [--repeats 2] [--json FILE]

A writer process fills pictures in place and hands them over by `ImageOutput`; a reader process looks at them by
`ImageInput`: in the shared ring, or on the ROS topic over UDP (as our nodes set it), or on the topic over what Fast DDS
takes by itself (shared memory, within a machine), best effort as our nodes read pictures, and reliable. All of them run
in the same loop without an executor, in turn, each process on its own half of the cores. What is measured begins when
the picture is whole in its place, and ends when the reader has the view of it.

    eager     30 Hz; the reader looks again 50 us after it found nothing: what the hand-over itself takes, and half
              of the time from one look to the next
    tick      30 Hz; the reader looks 30 times a second, as a policy does: what it costs in CPU
    flat out  the writer does not wait, and the reader is eager

`publish` and `take` are the times of those calls: what writer and reader cannot do anything else in. CPU is of both
processes, all their threads, without the filling. Wanted: 10 times less than the topic over UDP.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "test"))

import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from conftest import contract_path, next_domain, with_cameras
from dagger_ros.contract import load_contract, stamp_from_ns
from dagger_ros.nodes.base import ContractNode
from dagger_ros.nodes.images import ImageInput, ImageOutput, Pixels
from dagger_ros.nodes.network import TRANSPORT
from dagger_ros.nodes.qos import GraphQos
from dagger_ros.nodes.spin import poll
from dagger_ros.policy import SeeingPolicy, load_policy

CAMERA, WIDTH, HEIGHT, RATE_HZ = "wrist", 640, 480, 30.0
WANTED = 10.0
LOOK_S = 50e-6
_PR_SET_TIMERSLACK = 29  # linux/prctl.h: Linux adds 50 us to each sleep unless it is told to be exact
# After the last picture the reader looks on for so long.
LAST_S = 0.3
# Left out at the beginning: caches, discovery, the first pages of the memory.
WARM_UP_S = 0.3
RING, UDP, DEFAULT, RELIABLE = "ring", "topic, UDP", "topic, Fast DDS default", "topic, same, reliable"
TRANSPORTS = {RING: TRANSPORT[1], UDP: TRANSPORT[1], DEFAULT: "DEFAULT", RELIABLE: "DEFAULT"}
PACES = ("eager", "tick", "flat out")

Said = dict[str, Any]


def write_contract(path: Path) -> Path:
    with_cameras(contract_path("peg"), path, wrist=(WIDTH, HEIGHT))
    content = yaml.safe_load(path.read_text())
    content["cameras"][CAMERA] |= {"rate_hz": RATE_HZ, "max_age_s": 0.2}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def node_named(name: str, path: Path) -> ContractNode:
    """A node of the contract that does nothing by itself."""
    return type(name, (ContractNode,), {"NODE": name})({"contract": str(path)})


# The two processes. Each prints one line of JSON at its end.


def write(path: Path, way: str, pace: str, seconds: float) -> Said:
    """Hands over pictures; their first and last byte count them."""
    node = node_named("writer", path)
    output = ImageOutput(node, node.contract.cameras[CAMERA], node.qos.sensor_writer, shared=way == RING)
    source = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    sys.stdin.readline()  # the reader is there
    while not output.is_wanted():
        time.sleep(0.01)
    time.sleep(WARM_UP_S)
    publish_ns: list[int] = []
    filling_s = 0.0
    begin_s, cpu_s = time.monotonic(), time.process_time()
    while (now_s := time.monotonic()) - begin_s < seconds:
        if pace != "flat out" and now_s < (due_s := begin_s + len(publish_ns) / RATE_HZ):
            time.sleep(due_s - now_s)
        source[0, 0, 0] = source[-1, -1, -1] = len(publish_ns) % 256
        before_s = time.thread_time()
        np.copyto(output.frame(), source)
        filling_s += time.thread_time() - before_s
        whole_ns = time.monotonic_ns()
        output.publish(whole_ns)
        publish_ns.append(time.monotonic_ns() - whole_ns)
    busy_s, lasted_s = time.process_time() - cpu_s - filling_s, time.monotonic() - begin_s
    output.close()
    return {"publish_ns": publish_ns, "cpu_s": busy_s, "seconds": lasted_s}


class Reliable(GraphQos):
    """Readers of observations wait for what was lost."""

    @property
    def sensor(self) -> QoSProfile:
        """For reading observations."""
        return self.sensor_writer


class Watch:
    """What a reader sees."""

    def __init__(self, images: ImageInput) -> None:
        self._images = images
        self.latency_ns: list[int] = []
        self.newest_ns = self.torn = 0
        # Monotonic and CPU time, s, of the first and of the last picture.
        self.first: tuple[float, float] | None = None
        self.last = 0.0, 0.0

    def see(self, _camera: str, picture: Pixels, stamp_ns: int) -> None:
        """Takes a view; the same as the last time is nothing new."""
        now_ns = time.monotonic_ns()
        if stamp_ns == self.newest_ns:
            return
        self.newest_ns = stamp_ns
        self.last = now_ns * 1e-9, time.process_time()
        self.first = self.first or self.last
        self.latency_ns.append(now_ns - stamp_ns)
        self.torn += int(picture[0, 0, 0] != picture[-1, -1, -1] and self._images.still_valid())


def read(path: Path, way: str, pace: str) -> Said:
    """Looks at pictures until it is told to end."""
    ends: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: ends.append(number))
    node = node_named("reader", path)
    if way == RELIABLE:
        node.qos = Reliable(lockstep=False)
    images = ImageInput(node, [CAMERA], shared=way == RING, on_picture=lambda: None)
    subscriptions = [s for s in node.subscriptions if s.topic_name.endswith("/image")]
    watch, take_ns, looks = Watch(images), [], 0
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    print("ready", flush=True)
    begin_s = time.monotonic()
    while not ends:
        before_ns, newest_ns = time.monotonic_ns(), watch.newest_ns
        while poll(subscriptions):
            pass
        images.show(watch.see, time.monotonic_ns())
        looks += 1
        if watch.newest_ns != newest_ns:
            take_ns.append(time.monotonic_ns() - before_ns)
        if pace == "tick":
            time.sleep(max(0.0, begin_s + looks / RATE_HZ - time.monotonic()))
        elif watch.newest_ns == newest_ns:
            time.sleep(LOOK_S)
    first = watch.first or watch.last
    seconds, busy_s = watch.last[0] - first[0], watch.last[1] - first[1]
    return {
        "latency_ns": watch.latency_ns,
        "take_ns": take_ns,
        "cpu_s": busy_s,
        "seconds": seconds,
        "torn": watch.torn,
    }


def part(arguments: Sequence[str]) -> None:
    """What a child does."""
    name, way, pace, path, seconds = arguments
    rclpy.init()
    said = write(Path(path), way, pace, float(seconds)) if name == "write" else read(Path(path), way, pace)
    print(json.dumps(said), flush=True)
    rclpy.try_shutdown()


# What the parent does with them


def run(way: str, pace: str, path: Path, seconds: float) -> tuple[Said, Said]:
    """One writer and one reader, which end by themselves."""
    environment = os.environ | {"ROS_DOMAIN_ID": str(next_domain()), TRANSPORT[0]: TRANSPORTS[way]}
    cores = sorted(os.sched_getaffinity(0))
    halves = (cores[: len(cores) // 2] or cores, cores[len(cores) // 2 :])
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--part", name, way, pace, str(path), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=lambda half=half: os.sched_setaffinity(0, half),
        )
        for name, half in zip(("write", "read"), halves, strict=True)
    ]
    writer, reader = processes
    try:
        assert reader.stdout is not None
        reader.stdout.readline()
        written = writer.communicate("\n")[0]
        time.sleep(LAST_S)
        reader.send_signal(signal.SIGUSR1)
        return json.loads(written), json.loads(reader.communicate()[0])
    finally:
        for process in processes:
            process.kill()
            process.wait()


def figures(runs: Sequence[tuple[Said, Said]]) -> dict[str, float]:
    """Of one way at one pace, over all repetitions."""
    writers, readers = [w for w, _ in runs], [r for _, r in runs]
    # So many pictures are warming up, of each run.
    skip = round(WARM_UP_S * RATE_HZ)
    latency, take = ([ns * 1e-3 for r in readers for ns in r[key][skip:]] for key in ("latency_ns", "take_ns"))
    publish = [ns * 1e-3 for w in writers for ns in w["publish_ns"][skip:]]
    received = sum(len(r["latency_ns"]) for r in readers)
    shares = [sum(x["cpu_s"] for x in p) / max(sum(x["seconds"] for x in p), 1e-9) for p in (writers, readers)]
    received_hz = received / sum(w["seconds"] for w in writers)
    p50, p99 = np.percentile(latency or [np.nan], [50, 99])
    return {
        "latency_p50_us": float(p50),
        "latency_p99_us": float(p99),
        "publish_p50_us": float(np.median(publish)),
        "take_p50_us": float(np.median(take or [np.nan])),
        "cpu_ms_per_picture": 1e3 * sum(shares) / received_hz if received else float("nan"),
        "writer_cpu": shares[0],
        "reader_cpu": shares[1],
        "received_hz": received_hz,
        "written": sum(len(w["publish_ns"]) for w in writers),
        "received": received,
        "torn": sum(r["torn"] for r in readers),
    }


# Copies


def copies(path: Path) -> dict[str, dict[str, Any]]:
    """Whether what a policy is shown lies in the message or in the ring, and what was allocated on the way."""
    rclpy.init()
    node = node_named("copies", path)
    camera = load_contract(path).cameras[CAMERA]
    _, policy = load_policy("seeing:make", node.contract, pictures=True)
    assert isinstance(policy, SeeingPolicy)
    found = {}
    for encoding in ("rgb8", "bgr8"):
        images = ImageInput(node, [CAMERA], shared=False, on_picture=lambda: None)
        message = Image(height=HEIGHT, width=WIDTH, step=3 * WIDTH, encoding=encoding)
        message.data = bytes(3 * WIDTH * HEIGHT)
        stamp_from_ns(message.header.stamp, 1)
        images._sources[CAMERA]._take(message)  # type: ignore[attr-defined]
        found[f"message, {encoding}"] = shown(images, policy, [np.frombuffer(message.data, np.uint8)])
    output = ImageOutput(node, camera, node.qos.sensor_writer, shared=True)
    images = ImageInput(node, [CAMERA], shared=True, on_picture=lambda: None)
    output.frame()[:] = 0
    output.publish(1)
    ring = images._sources[CAMERA]._reader.ring()  # type: ignore[attr-defined]
    found["ring"] = shown(images, policy, ring.memory.slots)
    output.close()
    node.destroy_node()
    rclpy.try_shutdown()
    return found


def shown(images: ImageInput, policy: SeeingPolicy, places: Sequence[Pixels]) -> dict[str, Any]:
    """Shows the newest picture to a policy."""
    taken: list[Pixels] = []

    def see(camera: str, picture: Pixels, stamp_ns: int) -> None:
        policy.see(camera, picture, stamp_ns)
        taken.append(picture)

    tracemalloc.start()
    problem = images.show(see, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if problem:
        raise RuntimeError(problem)
    shares = any(np.shares_memory(taken[0], place) for place in places)
    return {"shares_memory": shares, "allocated_bytes": peak}


# The tables


def print_copies(found: dict[str, dict[str, Any]]) -> None:
    print(f"from message to policy, {WIDTH}x{HEIGHT}")
    for name, values in found.items():
        words = "0 copies (np.shares_memory)" if values["shares_memory"] else "1 conversion"
        print(f"  {name:14} {words:28} {values['allocated_bytes']:8d} bytes allocated")


def print_table(table: dict[tuple[str, str], dict[str, float]]) -> None:
    print(f"\n{'us':35}  latency p50      p99  publish   take  CPU/picture  writer  reader  received")
    for pace in PACES:
        for way in TRANSPORTS:
            v = table[way, pace]
            print(
                f"{pace:9} {way:25}  {v['latency_p50_us']:11.0f} {v['latency_p99_us']:8.0f} {v['publish_p50_us']:8.0f} "
                f"{v['take_p50_us']:6.0f} {v['cpu_ms_per_picture']:9.2f} ms {100 * v['writer_cpu']:5.1f} % "
                f"{100 * v['reader_cpu']:5.1f} % {v['received_hz']:6.1f} Hz"
            )


def compare(table: dict[tuple[str, str], dict[str, float]]) -> dict[str, dict[str, float]]:
    """How many times as much the topic takes."""
    ratios = {}
    for way in (UDP, DEFAULT, RELIABLE):
        ring, topic = table[RING, "eager"], table[way, "eager"]
        ratios[way] = {
            "ratio_p50": topic["latency_p50_us"] / ring["latency_p50_us"],
            "ratio_p99": topic["latency_p99_us"] / ring["latency_p99_us"],
            "ratio_calls": sum(topic[k] for k in ("publish_p50_us", "take_p50_us"))
            / sum(ring[k] for k in ("publish_p50_us", "take_p50_us")),
            "ratio_cpu": table[way, "tick"]["cpu_ms_per_picture"] / table[RING, "tick"]["cpu_ms_per_picture"],
            "ratio_received": table[RING, "flat out"]["received_hz"] / table[way, "flat out"]["received_hz"],
        }
    return ratios


def plain(values: dict[str, float]) -> dict[str, float | None]:
    """As JSON knows them: what was not measured is null."""
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--repeats", type=int, default=2, help="of all runs, in turn")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--part", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.part)
        return 0
    runs: dict[tuple[str, str], list[tuple[Said, Said]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_contract(Path(folder) / "contract.yaml")
        print_copies(found := copies(path))
        for _ in range(options.repeats):
            for pace in PACES:
                for way in TRANSPORTS:
                    runs.setdefault((way, pace), []).append(run(way, pace, path, options.seconds))
    table = {key: figures(value) for key, value in runs.items()}
    print_table(table)
    ratios = compare(table)
    for way, values in ratios.items():
        words = ", ".join(f"{name.removeprefix('ratio_')} {value:.1f}" for name, value in values.items())
        print(f"{way}, times the ring: {words}" + (f" (wanted: {WANTED:g})" if way == UDP else ""))
    torn = sum(int(v["torn"]) for v in table.values())
    print(f"pictures that were not whole: {torn}")
    if options.json is not None:
        rows = [{"way": way, "pace": pace} | plain(values) for (way, pace), values in table.items()]
        said = {way: plain(values) for way, values in ratios.items()}
        content = {"copies": found, "rows": rows, "ratios": said, "wanted": WANTED}
        options.json.write_text(json.dumps(content, indent=1))
    is_viewed = all(found[name]["shares_memory"] for name in ("message, rgb8", "ring"))
    return int(torn > 0 or not is_viewed or ratios[UDP]["ratio_p50"] < WANTED)


if __name__ == "__main__":
    sys.exit(main())
