"""Pictures on their way to a policy: without a copy, fresh, whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import seeing
from conftest import ROOT, contract_path, with_cameras
from dagger_ros.contract import DaggerError, load_contract, stamp_from_ns

rclpy = pytest.importorskip("rclpy")
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CompressedImage, Image

from dagger_ros.msg import PolicyAction
from dagger_ros.nodes import images
from dagger_ros.nodes.images import ImageOutput, ring_name
from dagger_ros.nodes.policy import PolicyNode
from dagger_ros.nodes.qos import GraphQos

pytestmark = pytest.mark.ros

WIDTH, HEIGHT = 64, 48
QOS = GraphQos(lockstep=False)


class Bench:
    """A policy that wants pictures of `wrist`, in its node, and whoever publishes them."""

    def __init__(self, context: Any, path: Path) -> None:
        self.context, self.path, self.contract = context, path, load_contract(path)
        self.camera = self.contract.cameras["wrist"]
        self.driver = rclpy.create_node("driver", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.driver)
        self.actions: list[Any] = []
        self.driver.create_subscription(PolicyAction, "policy/action", self.actions.append, QOS.record)
        self._nodes: list[Any] = [self.driver]
        self._outputs: list[ImageOutput] = []

    def policy(self, **parameters: Any) -> PolicyNode:
        """Its node, which has received observations."""
        node = PolicyNode({"contract": str(self.path), "policy": "seeing:make"} | parameters, self.context)
        for i, stream in enumerate(self.contract.streams.values()):
            node._observations._newest.put(i, np.zeros(len(stream.dimensions)), 0, 0)
        self.executor.add_node(node)
        self._nodes.append(node)
        return node

    def output(self, *, shared: bool) -> ImageOutput:
        output = ImageOutput(self.driver, self.camera, QOS.sensor_writer, shared=shared)
        self._outputs.append(output)
        return output

    def until(self, done: Any) -> None:
        for _ in range(2_000):
            if done():
                return
            self.executor.spin_once(timeout_sec=0.1)
        raise AssertionError("nothing happened")

    def now_ns(self) -> int:
        return int(self.driver.get_clock().now().nanoseconds)

    def propose(self, node: PolicyNode) -> str:
        """Asks for a proposal now; empty, or why there was none."""
        node._propose(self.now_ns())
        return node._blind

    def close(self) -> None:
        for output in self._outputs:
            output.close()
        self.executor.shutdown()
        for node in self._nodes:
            node.destroy_node()


@pytest.fixture
def bench(ros_domain: int, tmp_path: Path) -> Iterator[Bench]:
    path = with_cameras(contract_path("peg"), tmp_path / "contract.yaml", wrist=(WIDTH, HEIGHT))
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    bench = Bench(context, path)
    yield bench
    bench.close()
    context.try_shutdown()


def message(time_ns: int, encoding: str = "rgb8", width: int = WIDTH) -> Image:
    depth = 1 if encoding == "mono8" else 3
    image = Image(height=HEIGHT, width=width, step=depth * width, encoding=encoding)
    image.data = bytes(range(256)) * (depth * width * HEIGHT // 256)
    stamp_from_ns(image.header.stamp, time_ns)
    return image


def picture(policy: seeing.Seeing) -> Any:
    return policy.pictures["wrist"][0]


def test_picture_goes_from_message_to_policy_without_a_copy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []
    read = images.read_image
    monkeypatch.setattr(images, "read_image", lambda camera, message: received.append(message) or read(camera, message))
    node, policy = bench.policy(), seeing.MADE[-1]
    output = bench.output(shared=False)
    bench.until(output.is_wanted)

    def proposed() -> bool:
        output.frame()[:] = 9
        output.publish(bench.now_ns())
        return bench.propose(node) == ""

    bench.until(proposed)
    shown, data = picture(policy), np.frombuffer(received[-1].data, np.uint8)
    assert (shown.shape, shown.dtype, shown.flags.writeable) == ((HEIGHT, WIDTH, 3), np.uint8, False)
    assert np.shares_memory(shown, data)
    assert shown.size == data.size
    assert (shown == 9).all()


def test_picture_goes_from_ring_to_policy_without_a_copy_or_a_message(bench: Bench) -> None:
    output = bench.output(shared=True)
    node, policy = bench.policy(shared_images=True), seeing.MADE[-1]
    output.frame()[:] = 9
    output.publish(now_ns := bench.now_ns())
    assert bench.propose(node) == ""
    ring = node._images._sources["wrist"]._reader.ring()  # type: ignore[attr-defined]
    shown = picture(policy)
    assert policy.pictures["wrist"][1] == now_ns
    assert np.shares_memory(shown, ring.memory.slots[0])
    assert not shown.flags.writeable
    assert (shown == 9).all()
    assert bench.driver.count_subscribers("wrist/image") == 0


def test_who_listens_to_the_topic_hears_what_is_in_the_ring_too(bench: Bench) -> None:
    output, heard = bench.output(shared=True), []
    assert not output._is_heard()
    bench.driver.create_subscription(Image, "wrist/image", heard.append, QOS.sensor)
    bench.until(output._is_heard)
    output.frame()[:] = np.arange(WIDTH)[None, :, None]
    output.publish(1_500_000_000)
    bench.until(lambda: bool(heard))
    (image,) = heard
    assert (image.width, image.height, image.step, image.encoding) == (WIDTH, HEIGHT, 3 * WIDTH, "rgb8")
    assert (image.header.stamp.sec, image.header.frame_id) == (1, "wrist")
    assert np.array_equal(images.read_image(bench.camera, image), output._shared.ring.memory.slots[0])  # type: ignore[union-attr]


def test_ring_is_found_by_domain_namespace_and_remapped_topic(ros_domain: int) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    plain = rclpy.create_node("a", context=context, namespace="left")
    moved = rclpy.create_node(
        "b", context=context, namespace="left", cli_args=["--ros-args", "-r", "camera:=wrist/image"]
    )
    assert ring_name(plain, "wrist/image") == f"dagger_ros.{ros_domain}.left.wrist.image"
    assert ring_name(moved, "camera") == ring_name(plain, "wrist/image")
    for node in (plain, moved):
        node.destroy_node()
    context.try_shutdown()


def test_policy_proposes_nothing_without_a_picture_that_may_be_used(bench: Bench) -> None:
    node, policy = bench.policy(), seeing.MADE[-1]
    policy.acted.clear()
    source, now_ns = node._images._sources["wrist"], bench.now_ns()
    assert bench.propose(node) == "camera wrist: no picture has come yet on wrist/image"
    assert "no proposal in the last second: camera wrist: no picture" in node.verdict()[1]
    for wrong, words in (
        (message(now_ns, width=32), "expected 64x48 pixels, got 32x48 from wrist/image"),
        (message(now_ns, encoding="16UC1"), "expected an image encoded as rgb8, bgr8 or mono8"),
        (message(now_ns - 10_000_000_000), "s old, at most 3 s are allowed"),
        (message(now_ns + 10_000_000_000), "s ahead of the clock, at most 0.01 s are allowed"),
    ):
        source._take(wrong)  # type: ignore[attr-defined]
        assert words in bench.propose(node)
    assert policy.acted == []
    source._take(message(bench.now_ns()))  # type: ignore[attr-defined]
    assert bench.propose(node) == ""
    assert len(policy.acted) == 1


def test_policy_of_rings_says_what_it_waits_for(bench: Bench) -> None:
    node = bench.policy(shared_images=True)
    name = ring_name(node, "wrist/image")
    words = f"camera wrist: no picture has come yet in the shared memory {name}; the driver of the camera needs"
    assert bench.propose(node).startswith(words)
    output = bench.output(shared=True)
    assert bench.propose(node).startswith(words)
    output.publish(bench.now_ns())
    assert bench.propose(node) == ""
    output.close()
    assert bench.propose(node).startswith(words)


def test_ring_of_another_size_is_said(bench: Bench) -> None:
    output = bench.output(shared=True)
    other = with_cameras(contract_path("peg"), bench.path.parent / "other.yaml", wrist=(32, 24))
    node = bench.policy(shared_images=True, contract=str(other))
    output.publish(bench.now_ns())
    assert "writer and reader must be of one release and one contract" in bench.propose(node)


def test_second_driver_of_a_camera_is_refused(bench: Bench) -> None:
    bench.output(shared=True)
    with pytest.raises(DaggerError, match=r"wrist.image: expected to be the only writer of this name"):
        bench.output(shared=True)


def test_action_from_a_picture_that_was_overwritten_meanwhile_is_not_published(bench: Bench) -> None:
    output = bench.output(shared=True)
    node, policy = bench.policy(shared_images=True), seeing.MADE[-1]
    output.publish(bench.now_ns())

    def overwrite() -> None:
        for _ in range(output._shared.ring.memory.capacity):  # type: ignore[union-attr]
            output.publish(bench.now_ns())

    policy.meanwhile = overwrite
    assert bench.propose(node) == "pictures were overwritten while the policy looked at them"
    assert node._proposals == 0
    policy.meanwhile = lambda: None
    assert bench.propose(node) == ""
    assert node._proposals == 1


def test_compressed_pictures_are_decoded(bench: Bench, tmp_path: Path) -> None:
    path = with_cameras(contract_path("peg"), tmp_path / "jpeg.yaml", type_="CompressedImage", wrist=(WIDTH, HEIGHT))
    bench.camera = load_contract(path).cameras["wrist"]
    node, policy, heard = bench.policy(contract=str(path)), seeing.MADE[-1], []
    output = bench.output(shared=False)
    bench.driver.create_subscription(CompressedImage, "wrist/image", heard.append, QOS.sensor)
    bench.until(output.is_wanted)
    output.frame()[:] = np.linspace(0, 250, WIDTH).astype(np.uint8)[None, :, None]
    output.publish(bench.now_ns())
    bench.until(lambda: bool(heard))
    assert heard[0].format == "jpeg"
    source = node._images._sources["wrist"]
    source._take(heard[0])  # type: ignore[attr-defined]
    assert bench.propose(node) == ""
    assert np.abs(picture(policy).astype(int) - output.frame()).max() < 8
    broken = CompressedImage(format="jpeg", data=b"no picture at all")
    stamp_from_ns(broken.header.stamp, bench.now_ns())
    source._take(broken)  # type: ignore[attr-defined]
    assert "cannot identify image file" in bench.propose(node)


# The simulation's cameras


def drawn(path: Path, tmp_path: Path, **cameras: tuple[int, int]) -> Path:
    """A contract of one second whose cameras are those of the model."""
    with_cameras(contract_path("peg"), path, **cameras)
    content = yaml.safe_load(path.read_text())
    content["task"]["horizon_s"] = 1.0
    content["timing"] |= {"policy_max_age_s": 2.0, "expert_max_age_s": 2.0, "driver_timeout_s": 30.0}
    for stream in content["streams"].values():
        stream["max_age_s"] = 3.0
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    from dagger_ros.sim import load_plant
    from dagger_ros.sim.cameras import PlantCameras

    try:
        PlantCameras(load_plant(load_contract(path), path), path).close()
    except DaggerError as error:
        pytest.skip(str(error))
    return path


@pytest.mark.mujoco
def test_policy_sees_the_picture_of_each_tick_in_lockstep(ros_domain: int, tmp_path: Path) -> None:
    from dagger_ros.nodes.lockstep import LockstepGraph

    path = drawn(tmp_path / "contract.yaml", tmp_path, overview=(32, 24))
    content = yaml.safe_load(path.read_text())
    content["cameras"]["overview"]["rate_hz"] = 10.0  # at every other tick
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with LockstepGraph(path, rule="hg", round_index=1, policy=Path("seeing:make"), expert=False) as graph:
        policy = seeing.MADE[-1]
        policy.acted.clear()
        graph.run_episode(0)
        assert policy.pictures["overview"][0].std() > 5
        graph.run_episode(1)
    period_ns = load_contract(path).timing.period_ns
    ages = [(acted_ns - shown["overview"]) // period_ns for acted_ns, shown in policy.acted]
    assert len(ages) == 2 * 20
    assert ages == [0, 1] * 20


@pytest.mark.mujoco
def test_policy_process_goes_on_with_the_ring_of_a_bridge_that_was_killed_and_started_again(
    ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graph import running_graph

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "test"), os.environ.get("PYTHONPATH", "")]))
    path = drawn(tmp_path / "contract.yaml", tmp_path, overview=(32, 24))
    segment = Path("/dev/shm", f"dagger_ros.{ros_domain}.overview.image")
    with running_graph(ros_domain, tmp_path) as graph:
        actions: list[Any] = []
        graph.node.create_subscription(PolicyAction, "policy/action", actions.append, QOS.command)

        def start_bridge() -> None:
            graph.start("mujoco_bridge", contract=path, seed=0, repeat=True, shared_images=True)

        start_bridge()
        graph.start("policy", contract=path, policy="seeing:make", shared_images=True, use_sim_time=True)
        graph.wait_for(lambda: len(actions) > 3)
        assert graph.node.count_subscribers("overview/image") == 0
        graph.kill("mujoco_bridge")
        assert segment.exists()
        start_bridge()
        actions.clear()
        graph.wait_for(lambda: len(actions) > 3)
    assert not segment.exists()
