"""What a torch model costs as a policy: on one thread of the CPU, and on a graphics card where there is one.

    .venv/bin/python benchmarks/torch_policy.py [--calls 500] [--rate 100] [--json FILE]

Perceptrons of three sizes, as TorchScript and as an exported program, each loaded by `load_policy` as the policy node
loads it, one observation at a time: from the (O,) float64 of a row to the (A,) float64 that is proposed, with the way
to the card and back. Asked at the rate of a robot, since a card that has nothing to do meanwhile slows down; `--rate 0`
asks without a pause. *first* is the slowest of the first 20 answers after loading: what a robot's first ticks would
have to wait for. The devices answer in turn and must say the same.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dagger_ros.contract import NEVER_NS, Contract, RowLayout, load_contract
from dagger_ros.policy import Policy, load_policy

CONTRACT = Path(__file__).resolve().parent.parent / "config" / "contracts" / "peg.yaml"
SIZES = ((2, 256), (3, 1024), (4, 2048))
FORMS = {"TorchScript": ".pt", "torch.export": ".pt2"}
_FIRST = 20
# TorchScript may take TF32 or other orders of summation on the card.
_SAME = 1e-3


def write(path: Path, layers: int, width: int, contract: Contract) -> None:
    """A perceptron for the contract, with fixed weights."""
    torch.manual_seed(0)
    layout = RowLayout(contract)
    sizes = [layout.observation_size, *[width] * layers]
    parts: list[torch.nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [torch.nn.Linear(before, after), torch.nn.GELU()]
    model = torch.nn.Sequential(*parts, torch.nn.Linear(width, layout.action_size)).eval()
    example = torch.zeros(1, layout.observation_size)
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(model, (example,)), path)
    else:
        torch.jit.trace(model, example).save(str(path))


def measure(
    policies: dict[str, Policy], sizes: tuple[int, int], calls: int, period_ns: int
) -> dict[str, dict[str, float]]:
    """Microseconds of an answer on each device."""
    observations = np.random.default_rng(0).normal(size=(calls, sizes[0]))
    took_us, said = {name: np.empty(calls) for name in policies}, np.empty((len(policies), sizes[1]))
    due_ns = time.monotonic_ns()
    for i, observation in enumerate(observations):
        due_ns += period_ns
        time.sleep(max(0, due_ns - time.monotonic_ns()) * 1e-9)
        for (name, policy), out in zip(policies.items(), said, strict=True):
            start = time.perf_counter_ns()
            policy.act(observation, out, NEVER_NS)
            took_us[name][i] = (time.perf_counter_ns() - start) * 1e-3
        if not np.allclose(said, said[0], atol=_SAME):
            raise SystemExit(f"expected the same action on each device, got {dict(zip(policies, said, strict=True))}")
    return {
        name: {
            "first": us[:_FIRST].max(),
            **dict(zip(("p50", "p99", "max"), np.percentile(us[_FIRST:], [50, 99, 100]).tolist(), strict=True)),
        }
        for name, us in took_us.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--rate", type=float, default=100.0, help="Hz; 0: without a pause")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    contract = load_contract(CONTRACT)
    layout = RowLayout(contract)
    devices = {"cpu": "torch:"}
    if torch.cuda.is_available():
        devices[torch.cuda.get_device_name()] = "torch:cuda:"
    period_ns = round(1e9 / options.rate) if options.rate else 0
    figures: dict[str, Any] = {"torch": torch.__version__, "calls": options.calls, "rate_hz": options.rate, "us": {}}
    print(f"{'us':44}" + "".join(f"{name:>10}" for name in ("first", "p50", "p99", "max")))
    gc.disable()
    for layers, width in SIZES:
        for form, suffix in FORMS.items():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"model{suffix}"
                write(path, layers, width, contract)
                policies = {name: load_policy(f"{prefix}{path}", contract)[1] for name, prefix in devices.items()}
            sizes = layout.observation_size, layout.action_size
            for device, us in measure(policies, sizes, options.calls, period_ns).items():
                name = f"{layers} x {width}, {form}, {device}"
                figures["us"][name] = us
                print(f"{name:44}" + "".join(f"{value:10.0f}" for value in us.values()))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
