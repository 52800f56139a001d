"""A recorder that is killed loses nothing that was finished, and little of what was not."""

from __future__ import annotations

from pathlib import Path

from recorder_kills import LARGEST_LOSS_S, kill_recorders


def test_killed_recorder_loses_at_most_a_second(ros_domain: int, tmp_path: Path) -> None:
    for i, kill in enumerate(kill_recorders(ros_domain, tmp_path, kills=5, seed=0)):
        assert kill.finished == i + 1
        assert kill.loss_s <= LARGEST_LOSS_S, kill
        assert kill.recovered > 0
