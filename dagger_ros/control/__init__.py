"""Reads streams and gives a decided row at each tick: the newest values, rings of items, and the order of a tick."""

from dagger_ros.control.clock import Deadlines
from dagger_ros.control.inbox import Inbox
from dagger_ros.control.replay import Replayed, label_again, propose_again, replay
from dagger_ros.control.streams import GAP_PERIODS, NewestStreams
from dagger_ros.control.tick import ControlTick, newest_ns

__all__ = [
    "GAP_PERIODS",
    "ControlTick",
    "Deadlines",
    "Inbox",
    "NewestStreams",
    "Replayed",
    "label_again",
    "newest_ns",
    "propose_again",
    "replay",
]
