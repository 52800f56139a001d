"""What an ensemble's action and doubt cost: numpy, against torch on one thread in inference mode.

    .venv/bin/python benchmarks/inference.py [--calls 20000] [--core 1] [--json FILE]

5 networks with 2 layers of 256, 24 inputs and 12 outputs, one observation at a time. The reference asks one torch
module after the other, as ensembles are mostly written (`ratio_p50`, `ratio_p99`). Beside it stands torch with all
members in one product per layer, which few write; there is not much in it but the time that 1.5 MB of weights take on
their way from the cache, which nobody can save. In turn, on one core.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reference.plain_tick import PlainEnsemble
from tick import network

from dagger_ros.contract import NEVER_NS
from dagger_ros.policy import MlpEnsemble

INPUTS, OUTPUTS = 24, 12
_WARM = 200


class Batched:
    """All members in one product per layer."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self._layers = [
            (torch.from_numpy(tensors[f"layer{i}.weight"]), torch.from_numpy(tensors[f"layer{i}.bias"]))
            for i in range(3)
        ]
        names = ("input_mean", "input_scale", "output_mean", "output_scale")
        self._mean, self._scale, self._middle, self._half = (torch.from_numpy(tensors[n]) for n in names)

    def act(self, observation: Any) -> tuple[list[float], float]:
        """The action (A,) for an observation (O,), and the doubt."""
        with torch.inference_mode():
            values = ((torch.as_tensor(observation, dtype=torch.float32) - self._mean) / self._scale)[None, None]
            values = values.expand(len(self._layers[0][0]), 1, -1)
            for i, (weight, bias) in enumerate(self._layers):
                values = torch.baddbmm(bias, values, weight)
                values = torch.relu(values) if i < 2 else values
            actions = values[:, 0]
            doubt = actions.std(dim=0, unbiased=False).square().mean().sqrt()
            return (actions.mean(dim=0) * self._half + self._middle).tolist(), doubt.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="to be pinned to")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    tensors = network(INPUTS, OUTPUTS)
    numpy, plain, batched = MlpEnsemble(tensors), PlainEnsemble(tensors), Batched(tensors)
    out = np.zeros(OUTPUTS)

    def ours(observation: Any) -> tuple[list[float], float]:
        scores = numpy.act(observation, out, NEVER_NS)
        return out.tolist(), scores.doubt

    ways: dict[str, Callable[[Any], Any]] = {"ours": ours, "torch": plain.act, "torch, batched": batched.act}
    observations = np.random.default_rng(1).normal(size=(500, INPUTS))
    took_us = {name: np.empty(options.calls) for name in ways}
    gc.disable()
    for i in range(-_WARM, options.calls):
        said = {}
        for name, act in ways.items():
            start = time.perf_counter_ns()
            said[name] = act(observations[i % len(observations)])
            took = time.perf_counter_ns() - start
            if i >= 0:
                took_us[name][i] = took * 1e-3
        for name, (action, doubt) in said.items():
            if not (np.allclose(action, said["torch"][0], atol=1e-6) and abs(doubt - said["torch"][1]) < 1e-6):
                raise SystemExit(f"{name} says {action}, {doubt}; torch {said['torch']}")
    shares = {"p50": 50.0, "p99": 99.0, "max": 100.0}
    table = {name: dict(zip(shares, np.percentile(v, [*shares.values()]), strict=True)) for name, v in took_us.items()}
    print(f"{'us':16}" + "".join(f"{name:>10}" for name in shares))
    for name, values in table.items():
        print(f"{name:16}" + "".join(f"{value:10.1f}" for value in values.values()))
    figures: dict[str, Any] = {"calls": options.calls, "us": table}
    for name, key in (("torch", "ratio"), ("torch, batched", "ratio_to_batched")):
        for share in ("p50", "p99"):
            figures[f"{key}_{share}"] = table[name][share] / table["ours"][share]
        print(f"{name} / ours: p50 {figures[f'{key}_p50']:.2f}   p99 {figures[f'{key}_p99']:.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
