"""Reads streams and gives a decided row at each tick: keeps the newest values, and knows the order of a tick."""

from dagger_ros.control.clock import Deadlines
from dagger_ros.control.inbox import Inbox
from dagger_ros.control.replay import replay
from dagger_ros.control.streams import NewestStreams
from dagger_ros.control.tick import ControlTick, newest_ns

__all__ = ["ControlTick", "Deadlines", "Inbox", "NewestStreams", "newest_ns", "replay"]
