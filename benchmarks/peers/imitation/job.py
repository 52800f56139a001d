"""What `run.py` asks of `peer.py`, and what comes back: the two run in different virtual environments."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Args:
        kind: `dagger`, `bc`, or `speed` of BC.
        contract: Path of the task contract.
        seed: Of everything random.
        labels: Of `dagger`, with those of the demonstrations: the round that reaches them is the last. Of `bc`: exact.
        demonstrations: Seeds of the demonstrated episodes; of `bc` as many of them as the labels need.
        out: Folder for the trained policies, TorchScript files.
        training: What `BC.train` is called with.
        rounds: What `SimpleDAggerTrainer.train` is called with; empty: its defaults.
        hidden: Units of each layer; empty: the peer's default network, 2 x 32.
        batch: Of BC.
        scaled: Actions from -1 to 1, and observations normalised as they come; False: neither, as the peer ships.
        policy_drives: The first policy learns from the demonstrations alone, and the policy drives all later rounds, as
            ours does. False: the peer's default schedule LinearBetaSchedule(15), by which the expert drives round 0.
        data: Of `speed`: a npz file with observations (N, O) and labels (N, A).
        steps: Of `speed`: gradient steps.
    """

    kind: str
    contract: str
    seed: int
    labels: int = 0
    demonstrations: list[int] = field(default_factory=list)
    out: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    rounds: dict[str, Any] = field(default_factory=dict)
    hidden: list[int] = field(default_factory=list)
    batch: int = 32
    scaled: bool = False
    policy_drives: bool = False
    data: str = ""
    steps: int = 0

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> Job:
        """What `write` wrote."""
        return Job(**json.loads(path.read_text()))


@dataclass(frozen=True)
class Stage:
    """A policy and what it took from the beginning of the loop until it was there: collecting and training.

    Args:
        policy: What `policy.load_policy` takes.
        labels: That it learned from.
        wall_s: Without any evaluation.
        cpu_s: Of the process that collects and trains: on a busy machine, what can be compared.
    """

    policy: str
    labels: int
    wall_s: float
    cpu_s: float
