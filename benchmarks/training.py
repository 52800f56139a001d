"""How fast behaviour cloning learns: 2 layers of 256, batches of 256, one thread.

    .venv/bin/python benchmarks/training.py [--steps 1500] [--json FILE]

Prints samples per second of `learning.train` with all that it does (set-up, noise on the inputs, an ensemble in
one pass), for one member and for five, with either library for products of matrices; beside them the same steps by
torch's autograd and optimiser. The best of three turns each, taken in turn. `measure` is what `benchmarks/peers` sets
beside the figure of `imitation` on the same data: the aim is five times that.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dagger_ros.contract import Contract, RowLayout, load_contract
from dagger_ros.learning import TrainingSettings, train
from dagger_ros.learning.network import Perceptrons, minimise

ROOT = Path(__file__).resolve().parent.parent
FRAMES, TURNS = 2000, 3


def measure(
    observations: Any,
    labels: Any,
    steps: int,
    *,
    contract: Contract | None = None,
    members: int = 1,
    products: str = "blas",
    batch: int = 256,
) -> float:
    """Samples per second of one training, set-up included.

    Args:
        observations: (N, O) in the order and units of the contract.
        labels: (N, A) likewise.
        steps: Gradient steps, with a batch for each member.
        contract: None: that of the peg.
        members: Of the ensemble.
        products: As in `TrainingSettings`.
        batch: Frames in a batch of one member.
    """
    contract = contract or load_contract(ROOT / "config" / "contracts" / "peg.yaml")
    settings = TrainingSettings(
        members=members,
        bootstrap=members > 1,
        hidden=(256, 256),
        steps=steps,
        batch=batch,
        threads=1,
        products=products,
    )
    begin = time.perf_counter()
    train(contract, observations, labels, settings, seed=0)
    return steps * batch * members / (time.perf_counter() - begin)


def plain(observations: Any, labels: Any, steps: int, *, members: int, batch: int = 256) -> float:
    """The same of autograd and torch.optim, without set-up and noise."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.tensor(observations, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)
    network = Perceptrons(members, (inputs.shape[1], 256, 256, targets.shape[1]), generator)

    def loss() -> torch.Tensor:
        index = torch.randint(0, len(inputs), (members, batch), generator=generator)
        return ((network(inputs[index]) - targets[index]) ** 2).mean(dim=(1, 2)).sum()

    begin = time.perf_counter()
    minimise(network, loss, steps=steps, learning_rate=1e-3, weight_decay=1e-5)
    return steps * batch * members / (time.perf_counter() - begin)


def data(contract: Contract, count: int = FRAMES) -> tuple[Any, Any]:
    """Frames of the contract's size."""
    layout, rng = RowLayout(contract), np.random.default_rng(0)
    observations = rng.normal(size=(count, layout.observation_size))
    return observations, np.clip(observations[:, : layout.action_size] * 0.1, -0.24, 0.24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    material = data(load_contract(ROOT / "config" / "contracts" / "peg.yaml"))
    ways = {"autograd and torch.optim": None, "train, blas": "blas", "train, onednn": "onednn"}
    best: dict[tuple[str, int], float] = {}
    for _ in range(TURNS):
        for members in (1, 5):
            for name, products in ways.items():
                steps = max(1, options.steps // members)
                rate = (
                    plain(*material, steps, members=members)
                    if products is None
                    else measure(*material, steps, members=members, products=products)
                )
                best[name, members] = max(best.get((name, members), 0.0), rate)
    print("2 x 256, batches of 256, one thread: samples/s")
    print(f"{'':26}{'one member':>12}{'five':>12}")
    for name in ways:
        print(f"{name:26}{best[name, 1]:12,.0f}{best[name, 5]:12,.0f}")
    if options.json:
        rows = [{"way": name, "members": members, "samples_per_s": rate} for (name, members), rate in best.items()]
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
