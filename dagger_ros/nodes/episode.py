"""Which episode is being recorded, from events that are repeated for nodes that join late."""

from __future__ import annotations

from typing import Any

from dagger_ros.msg import EpisodeEvent

__all__ = ["EpisodeWatch"]


class EpisodeWatch:
    """Follows the topic `episode`.

    Attributes:
        episode: Index within the round; -1: nothing is being recorded.
        seed: Of its initial state; -1: none.
    """

    def __init__(self) -> None:
        self.episode, self.seed = -1, -1

    def started(self, event: Any) -> bool:
        """Takes an event and says whether a new episode began with it; a repeated one begins nothing."""
        running = event.event == EpisodeEvent.STARTED
        news = (event.episode, event.seed) if running else (-1, -1)
        if news == (self.episode, self.seed):
            return False
        self.episode, self.seed = news
        return bool(running)
