"""LeRobot's recording loop with a robot that costs nothing: when it sends what. Run by `run.py`, in a venv of its own.

PYTHON their_loop.py RATE EPISODE_S EPISODES OUT.json
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.processor import make_default_processors
from lerobot.scripts.lerobot_record import record_loop
from lerobot.teleoperators.teleoperator import Teleoperator

INPUTS, OUTPUTS, HIDDEN, MEMBERS = 24, 12, 256, 5


class Robot:
    """24 numbers that are there at once; notes when it is sent 12."""

    robot_type = name = "none"

    def __init__(self) -> None:
        self.sent_ns: list[int] = []
        self._observation = {f"o{i}": 0.1 for i in range(INPUTS)}

    def get_observation(self) -> dict[str, float]:
        """What is measured."""
        return dict(self._observation)

    def send_action(self, action: Any) -> Any:
        """Notes when."""
        self.sent_ns.append(time.monotonic_ns())
        return action


class Policy:
    """The same ensemble, a module for each member."""

    config = SimpleNamespace(device="cpu", use_amp=False)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._members = [
            torch.nn.Sequential(
                torch.nn.Linear(INPUTS, HIDDEN),
                torch.nn.ReLU(),
                torch.nn.Linear(HIDDEN, HIDDEN),
                torch.nn.ReLU(),
                torch.nn.Linear(HIDDEN, OUTPUTS),
            ).eval()
            for _ in range(MEMBERS)
        ]

    def reset(self) -> None:
        """Nothing to forget."""

    def select_action(self, batch: dict[str, Any]) -> Any:
        """The mean of the members."""
        return torch.stack([member(batch["observation.state"]) for member in self._members]).mean(dim=0)


class Same:
    """A pipeline that changes nothing."""

    def reset(self) -> None:
        """Nothing to forget."""

    def __call__(self, data: Any) -> Any:
        """As it is."""
        return data


class Hand(Teleoperator):
    """A person who holds still."""

    config_class, name = SimpleNamespace, "hand"
    action_features = feedback_features = property(lambda self: {})  # type: ignore[assignment]
    is_connected = is_calibrated = property(lambda self: True)  # type: ignore[assignment]

    def __init__(self) -> None:
        pass

    def connect(self, calibrate: bool = True) -> None:
        """Nothing to do."""

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    def send_feedback(self, feedback: Any) -> None:
        """Nothing to do."""

    def disconnect(self) -> None:
        """Nothing to do."""

    def get_action(self) -> dict[str, float]:
        """Standing still."""
        return {f"a{i}": 0.0 for i in range(OUTPUTS)}


def main() -> None:
    rate_hz, episode_s, episodes = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    state = {"dtype": "float32", "shape": (INPUTS,), "names": [f"o{i}" for i in range(INPUTS)]}
    action = {"dtype": "float32", "shape": (OUTPUTS,), "names": [f"a{i}" for i in range(OUTPUTS)]}
    with tempfile.TemporaryDirectory() as folder:
        dataset = LeRobotDataset.create(
            "local/loop",
            int(rate_hz),
            {"observation.state": state, "action": action},
            root=Path(folder) / "dataset",
            use_videos=False,
        )
        robot, events = Robot(), {"exit_early": False}
        common = [robot, events, int(rate_hz), *make_default_processors()]
        policy = {"policy": Policy(), "preprocessor": Same(), "postprocessor": Same()}
        handed, saved = [], []
        for _ in range(episodes):
            for who in (policy, {"teleop": Hand()}):  # a loop for each of who drives
                record_loop(*common, dataset=dataset, control_time_s=episode_s / 2, single_task="none", **who)
                handed.append(len(robot.sent_ns))
            dataset.save_episode()
            saved.append(len(robot.sent_ns))
        version = __import__("importlib.metadata").metadata.version("lerobot")
    gaps_ms = np.diff(robot.sent_ns) * 1e-6
    found = {
        "version": version,
        "periods_ms": gaps_ms.tolist(),
        "hand_over_ms": [gaps_ms[i - 1] for i in handed if i not in saved and i <= len(gaps_ms)],
        "save_ms": [gaps_ms[i - 1] for i in saved if i <= len(gaps_ms)],
    }
    Path(sys.argv[4]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
