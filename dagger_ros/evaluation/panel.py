"""The panel: the same held-out rollouts for every policy, in process, on every core."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.stats import binomtest

from dagger_ros.contract import Contract, DaggerError, Mode, RowLayout, load_contract
from dagger_ros.contract.files import write_files
from dagger_ros.contract.load import problems_of
from dagger_ros.control import ControlTick
from dagger_ros.policy import load_checkpoint
from dagger_ros.sim import MujocoPlant, Perturbation, load_plant, rollout
from dagger_ros.supervisor import Gate, Response, make_rule, response_bits

__all__ = ["Panel", "PanelResult", "PanelRunner", "RolloutResult", "load_panel"]

_ROLLOUTS = "rollouts.json"


class Panel(BaseModel):
    """A named list of held-out rollouts.

    Args:
        name: Of the panel.
        first_seed: Seed of the first rollout; the others follow. Collection never uses seeds from 10^9 on.
        count: How many rollouts.
        perturbation: What is made worse in each of them; settings of `Perturbation`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    first_seed: Annotated[int, Field(ge=1_000_000_000, strict=True)]
    count: Annotated[int, Field(ge=1, strict=True)]
    perturbation: dict[str, float]

    @property
    def seeds(self) -> range:
        """One for each rollout."""
        return range(self.first_seed, self.first_seed + self.count)

    @property
    def sha256(self) -> str:
        """Over the content; equal panels have equal hashes."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True)
class RolloutResult:
    """One rollout of a policy. Shares are of its control ticks."""

    seed: int
    success: bool
    failure: str
    metric: float
    ticks: int
    driven: float
    clamped: float
    doubt: float


@dataclass(frozen=True)
class PanelResult:
    """How one policy did.

    Args:
        panel: Name of the panel.
        panel_sha256: Hash of the panel.
        metric_name: The contract's metric.
        rollouts: In the order of the seeds.
    """

    panel: str
    panel_sha256: str
    metric_name: str
    rollouts: tuple[RolloutResult, ...]

    @property
    def success_rate(self) -> float:
        """Share of rollouts that met the contract's criterion."""
        return sum(r.success for r in self.rollouts) / len(self.rollouts)

    @property
    def metric_mean(self) -> float:
        """Mean of the contract's metric."""
        return float(np.mean([r.metric for r in self.rollouts]))

    def summary(self) -> dict[str, Any]:
        """What stands in result.json; the interval is Wilson's, at 95 %."""
        successes = sum(r.success for r in self.rollouts)
        interval = binomtest(successes, len(self.rollouts)).proportion_ci(0.95, method="wilson")
        failures = Counter(r.failure for r in self.rollouts if not r.success)
        return {
            "name": self.panel,
            "sha256": self.panel_sha256,
            "n": len(self.rollouts),
            "success_rate": self.success_rate,
            "success_ci95": [interval.low, interval.high],
            "metric": {"name": self.metric_name, "mean": self.metric_mean},
            "failures": dict(sorted(failures.items())),
        }

    def write(self, folder: Path) -> None:
        """Writes one entry per rollout to `rollouts.json`."""
        write_files(folder, {_ROLLOUTS: (json.dumps(asdict(self), indent=1) + "\n").encode()})

    @staticmethod
    def read(folder: Path) -> PanelResult:
        """Reads what `write` wrote.

        Raises:
            DaggerError: If it is missing or not of this format.
        """
        path = folder / _ROLLOUTS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rollouts = tuple(RolloutResult(**r) for r in content.pop("rollouts"))
            return PanelResult(**content, rollouts=rollouts)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DaggerError(f"{path}: expected the rollouts of a panel; {error}") from error


def load_panel(path: str | Path) -> Panel:
    """Reads a panel from YAML.

    Raises:
        DaggerError: If it cannot be read or is not valid; names every key.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        panel = Panel.model_validate(content)
        Perturbation(**panel.perturbation)
    except OSError as error:
        raise DaggerError(f"{path}: expected a panel (YAML) here; {error.strerror}") from error
    except ValidationError as error:
        raise DaggerError("\n".join([f"{path}: not a panel", *(f"  {p}" for p in problems_of(error))])) from error
    except TypeError as error:
        valid = ", ".join(item.name for item in fields(Perturbation))
        raise DaggerError(f"{path}: perturbation: expected only {valid}; {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DaggerError(f"{path}: expected a panel (YAML); {error}") from error
    except DaggerError as error:
        raise DaggerError(f"{path}: {error}") from error
    return panel


class PanelRunner:
    """Runs panels in worker processes that live as long as the runner.

    Args:
        contract_path: The task contract.
        panel: Which rollouts.
        workers: Processes.
    """

    def __init__(self, contract_path: Path, panel: Panel, *, workers: int) -> None:
        self.panel = panel
        self._contract = load_contract(contract_path)
        # Not forked: a forked child inherits the locks of torch's and DDS's threads, but not the threads.
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(contract_path, panel),
        )

    def run(self, policy: Path, on_rollout: Callable[[], object] = lambda: None) -> PanelResult:
        """Evaluates one checkpoint.

        Args:
            policy: Folder of the checkpoint.
            on_rollout: Called after each rollout.

        Raises:
            DaggerError: If the checkpoint cannot be used.
        """
        load_checkpoint(policy, self._contract)
        futures = {self._pool.submit(_run_one, policy, seed): seed for seed in self.panel.seeds}
        results = {}
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            on_rollout()
        rollouts = tuple(results[seed] for seed in self.panel.seeds)
        return PanelResult(self.panel.name, self.panel.sha256, self._contract.task.metric.name, rollouts)

    def close(self) -> None:
        """Ends the workers."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> PanelRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_worker: tuple[Contract, MujocoPlant] | None = None


def _start_worker(contract_path: Path, panel: Panel) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    contract = load_contract(contract_path)
    _worker = contract, load_plant(contract, contract_path, Perturbation(**panel.perturbation))


def _end_with_parent() -> None:
    """A worker whose runner was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_one(policy: Path, seed: int) -> RolloutResult:
    if _worker is None:
        raise RuntimeError("the worker was not started by PanelRunner")
    contract, plant = _worker
    return run_rollout(contract, plant, policy, seed)


def run_rollout(contract: Contract, plant: MujocoPlant, policy: Path, seed: int) -> RolloutResult:
    """One rollout of a policy under the supervisor, with nobody to help.

    Args:
        contract: Of the policy and the plant.
        plant: Where.
        policy: Folder of the checkpoint.
        seed: Of the rollout.
    """
    layout = RowLayout(contract)
    # `hg` without an expert: the policy drives, and nobody takes over.
    gate = Gate(contract, make_rule("hg", round_index=1), auto_arm=True, needs_expert=False)
    control = ControlTick(layout, gate, None, load_checkpoint(policy, contract))
    rows, status = rollout(plant, control, layout, seed=seed, ticks=contract.horizon_ticks)
    clamped = rows["reasons"] & np.uint64(response_bits(Response.LIMIT))
    return RolloutResult(
        seed=seed,
        success=status.success,
        failure=status.failure,
        metric=status.metric,
        ticks=len(rows),
        driven=float((rows["mode"] == Mode.POLICY).mean()),
        clamped=float((clamped > 0).mean()),
        doubt=float(rows["doubt"].mean()),
    )
