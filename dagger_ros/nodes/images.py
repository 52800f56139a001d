"""Pictures on their way from a camera to a policy: views of what came, and rings of shared memory within a machine.

A driver that calls `ImageOutput` writes each picture where the policy reads it, if both have `shared_images: true`;
whoever else wants it hears it on the camera's topic as before. The ring is found by the name of that topic.
"""

from __future__ import annotations

import io
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from dagger_ros.contract import NEVER_NS, DaggerError, stamp_from_ns, stamp_ns
from dagger_ros.contract.messages import read_image
from dagger_ros.contract.schema import ImageStream
from dagger_ros.control.ring import Item, Lapped, RingReader, capacity_for
from dagger_ros.control.shared import SharedReader, SharedWriter
from dagger_ros.nodes.base import ContractNode, message_class

__all__ = ["ImageInput", "ImageOutput", "Pixels", "is_due", "ring_name"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""(height, width, 3) RGB."""

_See = Callable[[str, Pixels, int], None]
_JPEG_QUALITY = 95


def ring_name(node: Node, topic: str) -> str:
    """Name of the shared memory for a topic: that of the domain and of the topic as the graph knows it."""
    return f"dagger_ros.{node.context.get_domain_id()}{node.resolve_topic_name(topic).replace('/', '.')}"


def is_due(camera: ImageStream, tick: Any, period_ns: int) -> bool:
    """Whether a simulated camera takes a picture at a tick; the first one of an episode always has one.

    Args:
        camera: Of the contract.
        tick: A SimTick, or anything else with `tick` and `start`.
        period_ns: Of control, ns.
    """
    every = max(1, round(1e9 / (camera.rate_hz * period_ns)))
    return bool(tick.start or tick.tick % every == 0)


class ImageOutput:
    """Hands over the pictures of one camera: `frame`, filled in place, then `publish`.

    Args:
        node: Publishes.
        camera: Of the contract.
        qos: Of the topic.
        shared: Whether there is a ring too.

    Raises:
        DaggerError: If another process writes this camera's ring.
    """

    def __init__(self, node: Node, camera: ImageStream, qos: QoSProfile, *, shared: bool) -> None:
        shape = (camera.height, camera.width, 3)
        self._message = message_class(camera.type)()
        self._message.header.frame_id = camera.frame
        self._is_compressed = camera.type.endswith("CompressedImage")
        if self._is_compressed:
            self._message.format = "jpeg"
            self._pixels = np.zeros(shape, np.uint8)
        else:
            message = self._message
            message.height, message.width, message.step = camera.height, camera.width, 3 * camera.width
            message.encoding = "rgb8"
            message.data = array("B", bytes(3 * camera.width * camera.height))
            self._pixels = np.frombuffer(message.data, np.uint8).reshape(shape)
        self._publisher = node.create_publisher(type(self._message), camera.topic, qos)
        self._shared: SharedWriter | None = None
        # In lockstep messages are kept for whoever comes later.
        self._is_kept = qos.durability is DurabilityPolicy.TRANSIENT_LOCAL
        if shared:
            self._shared = SharedWriter(
                ring_name(node, camera.topic),
                shape,
                np.uint8,
                # A picture is of use for so long.
                capacity_for(camera.rate_hz, camera.max_age_s),
                epoch=time.time_ns(),
            )

    def is_wanted(self) -> bool:
        """Whether anybody can see the next picture."""
        return self._shared is not None or self._is_heard()

    def frame(self) -> Pixels:
        """(height, width, 3) uint8 RGB, to be filled; the same until `publish`."""
        return self._pixels if self._shared is None else self._shared.ring.slot()

    def publish(self, time_ns: int) -> None:
        """Hands the frame over; the topic gets a message only while somebody listens to it.

        Args:
            time_ns: When it was taken, ns on the robot's clock.
        """
        frame = self.frame()
        if self._shared is not None:
            self._shared.ring.commit(time_ns)
        if self._is_heard():
            if frame is not self._pixels:
                np.copyto(self._pixels, frame)  # nobody but this process writes to the ring
            if self._is_compressed:
                self._message.data = _jpeg(self._pixels)
            stamp_from_ns(self._message.header.stamp, time_ns)
            self._publisher.publish(self._message)

    def close(self) -> None:
        """Ends the ring, and frees its name."""
        if self._shared is not None:
            self._shared.close()

    def _is_heard(self) -> bool:
        return bool(self._is_kept or self._publisher.get_subscription_count() > 0)


class ImageInput:
    """The newest picture of each of some cameras.

    Args:
        node: Subscribes, or finds the rings.
        names: Of the cameras, as in the contract.
        shared: Whether pictures come by rings; nothing is subscribed to then, and nothing is called.
        on_picture: Called after each message.
    """

    def __init__(
        self, node: ContractNode, names: Sequence[str], *, shared: bool, on_picture: Callable[[], None]
    ) -> None:
        self._tolerance_s = node.contract.timing.future_tolerance_s
        self._period_ns = node.period_ns
        self._sources: dict[str, _Source] = {}
        for name in names:
            camera = node.contract.cameras[name]
            self._sources[name] = _Ring(node, camera) if shared else _Topic(node, camera, on_picture)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the cameras."""
        return tuple(self._sources)

    def complete(self, tick: Any) -> bool:
        """In lockstep: whether the pictures of a SimTick have come."""
        time_ns = stamp_ns(tick.header.stamp)
        due = [s for s in self._sources.values() if is_due(s.camera, tick, self._period_ns)]
        return all(source.newest_ns() >= time_ns for source in due)

    def show(self, see: _See, now_ns: int) -> str:
        """Shows the newest picture of each camera.

        Args:
            see: Is given name, read-only view and stamp (ns) of each.
            now_ns: On the robot's clock.

        Returns:
            Empty; or, in words, why a picture that may be used is missing.
        """
        for name, source in self._sources.items():
            item = source.newest()
            if item is None:
                return f"camera {name}: {source.problem or f'no picture has come yet {source.origin}'}"
            age_s, max_age_s = (now_ns - item.stamp_ns) * 1e-9, source.camera.max_age_s
            if age_s > max_age_s:
                return f"camera {name}: the newest picture is {age_s:.3f} s old, at most {max_age_s:g} s are allowed"
            if -age_s > self._tolerance_s:
                limit = f"at most {self._tolerance_s:g} s are allowed"
                return f"camera {name}: the newest picture is {-age_s:.3f} s ahead of the clock, {limit}"
            see(name, item.values, item.stamp_ns)
        return ""

    def still_valid(self) -> bool:
        """Whether everything that was shown last is as it was; asked after its last use."""
        return all(source.still_valid() for source in self._sources.values())


class _Source(Protocol):
    """Where the pictures of one camera come from.

    Attributes:
        camera: Of the contract.
        origin: In words.
        problem: What is wrong with what came last; empty: nothing.
    """

    camera: ImageStream
    origin: str
    problem: str

    def newest(self) -> Item | None:
        """The newest picture, read-only; None: there is none that can be used."""

    def newest_ns(self) -> int:
        """Stamp of what came last, usable or not, ns; -1: nothing has come."""

    def still_valid(self) -> bool:
        """Whether what `newest` gave last is as it was."""


class _Topic:
    """Views of messages. A message is decoded when it is looked at."""

    def __init__(self, node: ContractNode, camera: ImageStream, on_picture: Callable[[], None]) -> None:
        self.camera, self.origin, self.problem = camera, f"on {camera.topic}", ""
        self._on_picture = on_picture
        self._message: Any = None
        self._item: Item | None = None
        self._stamp_ns, self._count = NEVER_NS, 0
        node.create_subscription(message_class(camera.type), camera.topic, self._take, node.qos.sensor)

    def newest(self) -> Item | None:
        if self._message is not None:
            self._item = self._decode(self._message)
            self._message = None
        return self._item

    def newest_ns(self) -> int:
        return self._stamp_ns

    def still_valid(self) -> bool:
        return True

    def _take(self, message: Any) -> None:
        self._message, self._stamp_ns = message, stamp_ns(message.header.stamp)
        self._count += 1
        self._on_picture()

    def _decode(self, message: Any) -> Item | None:
        try:
            pixels = read_image(self.camera, message)
        except (ValueError, OSError) as error:  # OSError: what Pillow raises for what is no picture
            self.problem = str(error)
            return None
        self.problem = ""
        pixels = pixels.view()
        pixels.setflags(write=False)
        return Item(pixels, self._stamp_ns, self._count)


class _Ring:
    """Views of shared memory, looked for when they are asked for."""

    def __init__(self, node: ContractNode, camera: ImageStream) -> None:
        self.camera, self.problem = camera, ""
        name = ring_name(node, camera.topic)
        self.origin = f"in the shared memory {name}; the driver of the camera needs shared_images too"
        self._reader = SharedReader(name, (camera.height, camera.width, 3), np.uint8)
        self._shown: tuple[RingReader, Item] | None = None

    def newest(self) -> Item | None:
        self.problem, self._shown = "", None
        try:
            ring = self._reader.ring()
        except DaggerError as error:
            self.problem = str(error)
            return None
        if ring is None:
            return None
        item = ring.newest()
        if isinstance(item, Lapped):
            self.problem = "pictures come faster than they can be looked at"
            return None
        if item is not None:
            self._shown = ring, item
        return item

    def newest_ns(self) -> int:
        item = self.newest()
        return NEVER_NS if item is None else item.stamp_ns

    def still_valid(self) -> bool:
        if self._shown is None:
            return True
        ring, item = self._shown
        return ring.still_valid(item)


def _jpeg(pixels: Pixels) -> array[int]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=_JPEG_QUALITY)
    return array("B", buffer.getvalue())
